"""Who may ask: several keys at once, keys that come and go, and nobody without one."""

from __future__ import annotations

import threading
from datetime import timedelta

import httpx
import pytest
from tests.contracts.style.conftest import KEY, OTHER_KEY, eventually, styling

from maru.auth.keyring import utc_now
from maru.auth.keys import mint
from maru.storage import database
from maru.storage.api_keys import ApiKeys

GUARDED = ["/infer", "/infer/image", "/infer/batch", "/stream/infer", "/v2/models/style/infer"]
EVERYTHING = frozenset({"*"})


@pytest.mark.parametrize("path", GUARDED)
@pytest.mark.parametrize("credential", [None, "Bearer", "Bearer abc", "Basic dXNlcjpwYXNz", f"Bearer {KEY}x"])
def test_a_key_is_required(toy, path, credential) -> None:
    headers = {"Authorization": credential.encode("latin-1")} if credential else {}
    answer = httpx.post(toy.url + path, json={"text": "a"}, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == ("Bearer" if credential is None else 'Bearer error="invalid_token"')
    if not path.startswith("/v2"):
        assert answer.json()["error"] == "UNAUTHORIZED"


def test_the_stream_of_states_needs_one_too(toy) -> None:
    assert httpx.get(toy.url + "/stream").status_code == 401
    assert httpx.get(toy.url + "/stream", params={"api_key": KEY, "token": KEY}).status_code == 401
    assert KEY not in toy.log()


def test_several_keys_are_good_at_once(toy) -> None:
    for key in (KEY, OTHER_KEY):
        with toy.open(key) as client:
            assert client.post("/infer", json={"text": "모던"}).status_code == 200


def test_rotation_under_load(tmp_path) -> None:
    """A client goes over from one key to the next without a request refused; then the old one is no good any more."""
    with styling(tmp_path, toy={}) as server:
        server.wait()
        keys = ApiKeys(database.connect(f"sqlite:///{tmp_path / 'maru.db'}"))
        old = mint(keys, "crud", ["style"], by=EVERYTHING)
        current, stop = [old.key], threading.Event()
        answers: list[int] = []

        def send() -> None:
            with httpx.Client(base_url=server.url) as client:
                while not stop.is_set():
                    headers = {"Authorization": f"Bearer {current[0]}"}
                    answers.append(client.post("/infer", json={"text": "모던"}, headers=headers).status_code)

        sender = threading.Thread(target=send)
        sender.start()
        eventually(lambda: len(answers) > 20)
        current[0] = mint(keys, "crud", ["style"], by=EVERYTHING).key
        so_far = len(answers)
        eventually(lambda: len(answers) > so_far + 20)
        keys.revoke(old.stored.public_id, utc_now())
        with server.open(old.key) as client:
            eventually(lambda: client.post("/infer", json={"text": "모던"}).status_code == 403, 5.0)
            told = client.post("/infer", json={"text": "모던"})
        stop.set()
        sender.join()
    assert set(answers) == {200}
    assert told.json()["error"] == "FORBIDDEN" and "insufficient_scope" in told.headers["www-authenticate"]


def test_keys_that_are_for_something_else_or_have_expired(tmp_path) -> None:
    with styling(tmp_path, toy={}) as server:
        server.wait()
        keys = ApiKeys(database.connect(f"sqlite:///{tmp_path / 'maru.db'}"))
        other = mint(keys, "other", ["embedding"], by=EVERYTHING)
        short = mint(keys, "short", ["style"], by=EVERYTHING, life=timedelta(milliseconds=1))
        for key in (other.key, short.key):
            with server.open(key) as client:
                assert client.post("/infer", json={"text": "모던"}).status_code == 403
