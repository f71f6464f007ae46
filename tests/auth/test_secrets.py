from __future__ import annotations

import secrets

import pytest

from maru.auth.secrets import check_secret

TEMPLATES = [
    "your_supabase_jwt_secret",
    "your-super-secret-jwt-token-with-at-least-32-characters-long",
    "your_huggingface_token_here",
    "YOUR_SECRET_YOUR_SECRET_YOUR_SECRET",
    "changeme",
    "please-change-me-please-change-me-please",
    "CHANGE_THIS_TO_A_LONG_RANDOM_STRING_PLEASE",
    "secret",
    "password",
    "<your jwt secret goes here, 32 characters>",
    "${SUPABASE_JWT_SECRET_FROM_SOMEWHERE_ELSE}",
    "an-example-secret-that-is-long-enough-to-pass",
    "",
    "short",
    "a" * 64,
    "abababababababababababababababababab",
    " 3Ak2pkUxAvHH4QhRMBiqo8VEova1d2x4T7NQ9a1rn38",
    "e6Q7T5BAzC006unvUHqYa6UdU9tQo3yq3HQqchgv248\n",
    "super-secret-jwt-token-with-at-least-32-characters-long",
]


@pytest.mark.parametrize("value", TEMPLATES)
def test_what_is_no_secret_is_refused_in_one_line_that_names_the_setting(value: str) -> None:
    with pytest.raises(ValueError, match=r"^SUPABASE_JWT_SECRET [^\n]+$") as refusal:
        check_secret("SUPABASE_JWT_SECRET", value)
    assert len(value.strip()) < 8 or value.strip() not in str(refusal.value)


def test_random_secrets_pass() -> None:
    for _ in range(500):
        check_secret("SUPABASE_JWT_SECRET", secrets.token_urlsafe(32))
        check_secret("CALLBACK_SECRET", secrets.token_hex(32))


def test_a_shorter_least_is_taken_where_asked() -> None:
    check_secret("HF_TOKEN", "hf_AbCdEfGhIjKlMnOp", least=8)
    with pytest.raises(ValueError, match="HF_TOKEN"):
        check_secret("HF_TOKEN", "your_huggingface_token_here", least=8)


def test_the_secret_of_a_local_supabase_passes_only_where_asked() -> None:
    check_secret("S", "super-secret-jwt-token-with-at-least-32-characters-long", published=True)
