"""Signatures that others make and check: the specification's own example, and MLflow's own sender."""

from __future__ import annotations

import pytest

from maru.http.standard_webhooks import TOLERANCE_S, BadSignature, key_of, sign, verify

# The example that the specification's reference libraries are tested with.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
WHEN = 1614265330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def check(**changes: object) -> None:
    given = {"id": ID, "timestamp": str(WHEN), "signature": SIGNATURE, "now": WHEN, "body": BODY, **changes}
    body = given.pop("body")
    verify(key_of(SECRET), body, **given)  # type: ignore[arg-type]


def test_the_specifications_own_example() -> None:
    assert sign(key_of(SECRET), ID, WHEN, BODY) == SIGNATURE
    check()


def test_one_of_several_signatures_is_enough() -> None:
    check(signature=f"v1a,AAAA v1,{'A' * 43}= {SIGNATURE}")


@pytest.mark.parametrize("seconds", [-TOLERANCE_S, TOLERANCE_S])
def test_a_clock_may_be_off(seconds: float) -> None:
    check(now=WHEN + seconds)


@pytest.mark.parametrize(
    "changes",
    [
        {"body": BODY + b" "},
        {"id": "msg_other"},
        {"timestamp": str(WHEN + 1)},
        {"timestamp": f"0{WHEN}"},
        {"timestamp": f"{WHEN} "},
        {"timestamp": f"+{WHEN}"},
        {"timestamp": "٣"},
        {"timestamp": "9" * 5000},
        {"timestamp": ""},
        {"now": WHEN + TOLERANCE_S + 1},
        {"now": WHEN - TOLERANCE_S - 1},
        {"signature": ""},
        {"signature": " "},
        {"signature": "v1,"},
        {"signature": SIGNATURE[:-1]},
        {"signature": SIGNATURE.replace("v1,", "v2,")},
        {"signature": "v1,\xff\u00e9"},
        {"signature": SIGNATURE.removeprefix("v1,")},
        {"id": None},
        {"id": ""},
        {"timestamp": None},
        {"signature": None},
    ],
)
def test_anything_else_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(BadSignature):
        check(**changes)


def test_another_key_is_refused() -> None:
    with pytest.raises(BadSignature):
        verify(b"another", BODY, id=ID, timestamp=str(WHEN), signature=SIGNATURE, now=WHEN)


def test_a_plain_secret_is_its_own_key() -> None:
    assert key_of("a plain secret, 비밀") == "a plain secret, 비밀".encode()


@pytest.mark.parametrize("secret", ["whsec_@@@@", "whsec_abc", "whsec_비밀"])
def test_a_secret_that_is_not_base64_is_told_without_being_shown(secret: str) -> None:
    with pytest.raises(ValueError) as told:
        key_of(secret)
    assert "base64" in str(told.value) and secret.removeprefix("whsec_") not in str(told.value)


def test_what_mlflow_signs() -> None:
    from mlflow.webhooks.delivery import _generate_hmac_signature

    secret = "whsec_MLflow takes every secret as it is"
    body = '{"entity": "model_version_alias", "data": {"name": "비트코인"}}'
    signature = _generate_hmac_signature(secret, ID, str(WHEN), body)
    verify(secret.encode(), body.encode(), id=ID, timestamp=str(WHEN), signature=signature, now=WHEN)
