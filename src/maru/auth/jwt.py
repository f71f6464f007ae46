"""Reading a JSON Web Token strictly, before anything in it is believed."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")


class Malformed(Exception):
    """This is not a JSON Web Token that we read."""


@dataclass(frozen=True, slots=True)
class Jwt:
    """The parts of a token. Nothing of it is true until `signature` over `signed` was verified."""

    header: dict[str, Any]
    claims: dict[str, Any]
    signed: bytes
    signature: bytes


def parse(token: str) -> Jwt:
    """The parts of a token in compact form, or Malformed.

    Three parts of canonical base64url, the first two UTF-8 JSON objects without a name given twice, at any
    depth, and without NaN or infinities. There is one way to read such a token, so nobody reads it otherwise.
    """
    match = _COMPACT.fullmatch(token)
    if match is None:
        raise Malformed
    header, claims, signature = match.groups()
    return Jwt(_object(header), _object(claims), token[: match.end(2)].encode(), _bytes(signature))


def _object(segment: str) -> dict[str, Any]:
    try:
        value = json.loads(_bytes(segment).decode(), object_pairs_hook=_without_twins, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Malformed from None
    if not isinstance(value, dict):
        raise Malformed
    return value


def _bytes(segment: str) -> bytes:
    try:
        data = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except binascii.Error:
        raise Malformed from None
    if base64.urlsafe_b64encode(data).rstrip(b"=") != segment.encode():
        raise Malformed
    return data


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Malformed
    return members


def _no_constant(_: str) -> NoReturn:
    raise Malformed
