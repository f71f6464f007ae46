"""Requests to paste into a shell, for the person who has just started a server."""

from __future__ import annotations

_JSON = "-H 'Content-Type: application/json'"


def embedding(at: str, token: str) -> str:
    """One text to its vector."""
    return f'curl {at}/embed {_bearer(token)}{_JSON} -d \'{{"text": "안녕하세요, 반갑습니다!"}}\''


def forecast(at: str, key: str | None, seq_len: int, n_features: int) -> str:
    """A market that goes nowhere to its next close. `key` None where none is needed."""
    row = ",".join((["60000"] * 4 + ["12.5"] + ["0"] * n_features)[:n_features])
    rows = f"$(printf '[{row}],%.0s' $(seq {seq_len}) | sed 's/,$//')"
    return f'curl {at}/predict {_bearer(key)}{_JSON} -d "{{\\"X\\": [{rows}]}}"'


def recommend(at: str, key: str | None) -> str:
    """A session that looked at one item of the starter's shop and put another into the cart. `key` as above."""
    events = '[{"aid": 1001, "ts": 1659304800, "type": "clicks"}, {"aid": 1002, "ts": 1659304900, "type": "carts"}]'
    body = f'{{"session_id": 12345, "events": {events}, "top_k": 5}}'
    return f"curl {at}/recommend {_bearer(key)}{_JSON} -d '{body}'"


def ai(at: str, key: str | None) -> str:
    """The beginning of a sentence, which the starter goes on with, word by word. `key` as above."""
    body = '{"prompt": "It is a truth universally acknowledged, that", "model_id": "austen-3m"}'
    return f"curl -N {at}/api/v1/generate/stream {_bearer(key)}{_JSON} -d '{body}'"


def style(at: str, key: str) -> str:
    """One sentence to the furniture style that it speaks of."""
    return f'curl {at}/infer {_bearer(key)}{_JSON} -d \'{{"text": "모던한 거실에 어울리는 의자"}}\''


def _bearer(credential: str | None) -> str:
    return f"-H 'Authorization: Bearer {credential}' " if credential else ""
