"""Refusing secrets that are none."""

from __future__ import annotations

import re

# Nothing short counts in the middle of a value, or random secrets would be refused by chance.
_PLACEHOLDER = re.compile(
    r"^your[_-]|your[_-](own|super|secret|key|token|supabase|jwt|api|project)|change[_-]?(me|this|it)"
    r"|replace[_-]?(me|this|with)|placeholder|example|insert[_-](your|the|a)[_-]|_goes_here$|_here$"
    r"|^<.*>$|^\$\{?\w+\}?$|^(secret|password|token|test|dev|admin|key|none|null|todo|xx+)$",
    re.IGNORECASE,
)

_PUBLISHED = {"super-secret-jwt-token-with-at-least-32-characters-long"}
"""Secrets that stand in a tool's documentation: everyone can sign with them."""


def check_secret(setting: str, value: str, *, least: int = 32, published: bool = False) -> None:
    """ValueError, in one line that names `setting` and never shows `value`, when the value is one that a
    template left behind, or is too easily guessed to be a secret of `least` bytes.

    `published` lets the secret pass that every local Supabase is started with, for a server that only this
    machine can reach.
    """
    fault = _fault(value, least, published)
    if fault:
        raise ValueError(f"{setting} {fault}")


def _fault(value: str, least: int, published: bool) -> str | None:
    if value in _PUBLISHED:
        return None if published else "is the secret of every local Supabase: set your project's own"
    if value != value.strip():
        return "begins or ends with white space"
    if not value:
        return "is empty"
    if _PLACEHOLDER.search(value):
        return "is still the placeholder of a template: set the real value"
    if len(value.encode()) < least:
        return f"is too short: it must have {least} bytes at least"
    if len(set(value)) < min(8, least):
        return "repeats a few characters: set a random value"
    return None
