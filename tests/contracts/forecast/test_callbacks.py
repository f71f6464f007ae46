"""Callbacks of a real server to a real receiver: at once, later, after kill -9, and never in anyone's way."""

from __future__ import annotations

import json
import sqlite3
import statistics
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.contracts.forecast.conftest import forecasting, stocked
from tests.contracts.forecast.graphs import window
from tests.contracts.forecast.receiver import Receiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
QUICK = {"base_s": 0.1, "longest_s": 0.5, "lease_s": 12.0, "poll_s": 0.1}
METADATA = {"request_id": "abc-123", "user_id": "user-456", "깊이": {"n": [1, 2.5, None, True]}}


@pytest.fixture
def receiver():
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def server(shelf, tmp_path, receiver):
    """A server of this test's own."""
    with forecasting(tmp_path, allowed_hosts=[receiver.host], callback_secret=SECRET, pace=QUICK) as server:
        server.wait()
        yield server


@pytest.fixture(scope="module")
def common(tmp_path_factory):
    home = tmp_path_factory.mktemp("callbacks")
    stocked(home)
    with (
        Receiver() as receiver,
        forecasting(home, allowed_hosts=[receiver.host], callback_secret=SECRET, pace=QUICK) as server,
    ):
        server.wait()
        yield server, receiver


@pytest.fixture
def pair(common):
    """A server and its receiver, which others have used before and left as they were."""
    server, receiver = common
    receiver.received.clear()
    receiver.status, receiver.headers = 204, {}
    yield server, receiver
    assert waiting(server) == 0


def ask(client, receiver: Receiver, close: float = 45_000.0, **given: object):
    return client.post("/predict", json={"X": window(close), "callback_url": receiver.url, **given})


def waiting(server) -> int:
    with sqlite3.connect(server.home / "maru.db") as tables:
        return int(tables.execute("SELECT count(*) FROM callbacks").fetchone()[0])


def test_the_documents_callback(pair) -> None:
    server, receiver = pair
    with server.open() as client:
        answer = ask(client, receiver, metadata=METADATA)
    assert answer.status_code == 200
    assert answer.json() == {
        "pred_btc_close_next": 45_001.0,
        "posted_to_callback": True,
        "model_alias": "staging",
        "model_version": "1",
    }
    (got,) = receiver.received
    assert got.path == "/callback?token=1" and got.headers["content-type"] == "application/json"
    assert json.loads(got.body) == {
        "pred_btc_close_next": 45_001.0,
        "metadata": METADATA,
        "model_alias": "staging",
        "model_version": "1",
    }
    got.check(SECRET)
    assert waiting(server) == 0


def test_metadata_that_was_not_given_is_not_sent(pair) -> None:
    server, receiver = pair
    with server.open() as client:
        ask(client, receiver)
    assert b"metadata" not in receiver.received[0].body


@pytest.mark.parametrize("status", [500, 503, 429, 408, 302])
def test_what_failed_is_delivered_later(pair, status) -> None:
    server, receiver = pair
    receiver.status = status
    with server.open() as client:
        answer = ask(client, receiver, metadata=METADATA)
    assert answer.status_code == 200 and answer.json()["posted_to_callback"] is False
    assert waiting(server) == 1
    receiver.wait(lambda: len(receiver.received) >= 3)
    receiver.status = 200
    receiver.wait(lambda: waiting(server) == 0)
    assert len(receiver.ids) == 1 and len({each.body for each in receiver.received}) == 1
    for each in receiver.received:
        each.check(SECRET)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422])
def test_what_the_receiver_refuses_for_good_is_not_sent_again(pair, status) -> None:
    server, receiver = pair
    receiver.status = status
    with server.open() as client:
        assert ask(client, receiver).json()["posted_to_callback"] is False
    time.sleep(0.5)
    assert len(receiver.received) == 1 and waiting(server) == 0
    assert "is given up" in server.log() and "token" not in server.log()


def test_a_receiver_may_ask_to_be_left_alone(pair) -> None:
    server, receiver = pair
    receiver.status, receiver.headers = 503, {"Retry-After": "2"}
    with server.open() as client:
        ask(client, receiver)
    began = time.monotonic()
    receiver.status = 200
    receiver.wait(lambda: len(receiver.received) == 2)
    assert time.monotonic() - began > 1.5
    receiver.wait(lambda: waiting(server) == 0)


def test_places_that_callbacks_do_not_go_to(pair) -> None:
    """The same answer as for a receiver that is down, and nothing is dialled or kept."""
    server, receiver = pair
    with server.open() as client:
        for url in ("http://169.254.169.254/latest", "http://10.0.0.1/", f"http://localhost:{receiver.port}/"):
            answer = client.post("/predict", json={"X": window(), "callback_url": url})
            assert answer.status_code == 200 and answer.json()["posted_to_callback"] is False
    assert receiver.received == [] and waiting(server) == 0


def test_a_receiver_that_hangs_slows_nobody_down(server, receiver) -> None:
    """Neither predictions without a callback, nor callbacks to others; and in the end not those to itself."""
    receiver.hang()
    stop = threading.Event()
    slow: list[float] = []

    def flood() -> None:
        with server.open() as client:
            while not stop.is_set():
                began = time.monotonic()
                assert ask(client, receiver).status_code == 200
                slow.append(time.monotonic() - began)

    def timed(**given: object) -> list[float]:
        times = []
        with server.open() as client:
            for n in range(40):
                began = time.monotonic()
                answer = client.post("/predict", json={"X": window(float(n)), **given})
                times.append(time.monotonic() - began)
                assert answer.status_code == 200 and answer.json()["posted_to_callback"] is bool(given)
        return times

    with Receiver() as sound, ThreadPoolExecutor(12) as pool:
        flooding = [pool.submit(flood) for _ in range(12)]
        try:
            receiver.wait(lambda: len(receiver.received) >= 8)
            assert statistics.median(timed()) < 0.5
            receiver.wait(lambda: len(slow) > 100)
        finally:
            stop.set()
            receiver.hang(False)
            for each in flooding:
                each.result()
        # The first few wait for the first try to end, all others are told at once that it will be later.
        assert sum(took > 1 for took in slow) <= 8 and max(slow) < 8
        assert sound.received == []
    receiver.wait(lambda: waiting(server) == 0, 60)
    assert len(receiver.ids) == len(slow)


def test_a_sound_receiver_beside_one_that_hangs(shelf, tmp_path, receiver) -> None:
    with Receiver() as sound:
        hosts = [receiver.host, sound.host]
        with forecasting(tmp_path, allowed_hosts=hosts, pace=QUICK) as server:
            server.wait()
            receiver.hang()
            with ThreadPoolExecutor(30) as pool, server.open() as client:
                hanging = [pool.submit(ask, client, receiver) for _ in range(30)]
                receiver.wait(lambda: len(receiver.received) >= 8)
                sound.status = 500  # so that its first is delivered by the worker, which has the hanging ones, too
                assert ask(client, sound).json()["posted_to_callback"] is False
                sound.status = 200
                assert all(ask(client, sound).json()["posted_to_callback"] for _ in range(20))
                sound.wait(lambda: len(sound.ids) == 21 and len(sound.received) >= 22, 8)
                assert {each.result().status_code for each in hanging} == {200}
            receiver.hang(False)


def test_what_was_accepted_survives_kill_9(shelf, tmp_path, receiver) -> None:
    """The server is killed while it takes predictions and delivers callbacks; then a new one delivers the rest."""
    settings = {"allowed_hosts": [receiver.host], "callback_secret": SECRET, "pace": {**QUICK, "lease_s": 2.0}}
    accepted: Counter[float] = Counter()
    receiver.status = 503
    with forecasting(tmp_path, **settings) as server, ThreadPoolExecutor(6) as pool:
        server.wait()

        def flood(worker: int) -> None:
            with server.open() as client:
                for n in range(10_000):
                    close = float(1000 * worker + n)
                    try:
                        answer = ask(client, receiver, close)
                    except Exception:  # killed
                        return
                    if answer.status_code == 200:
                        accepted[close + 1] += 1

        flooding = [pool.submit(flood, worker) for worker in range(6)]
        receiver.wait(lambda: accepted.total() > 60)
        server.kill()
        for each in flooding:
            each.result()
    receiver.status = 200
    receiver.received.clear()
    with forecasting(tmp_path, **settings) as server:
        server.wait()
        receiver.wait(lambda: waiting(server) == 0, 60)
    delivered = {json.loads(each.body)["pred_btc_close_next"] for each in receiver.received}
    assert accepted.keys() <= delivered


def test_a_full_outbox_is_said_before_it_is_too_late(shelf, tmp_path, receiver) -> None:
    receiver.status = 503
    with forecasting(tmp_path, allowed_hosts=[receiver.host], most=5, pace={"base_s": 600.0}) as server:
        server.wait()
        with server.open() as client:
            answers = [ask(client, receiver) for _ in range(8)]
            plain = client.post("/predict", json={"X": window()})
            receiver.status = 200
            delivered = ask(client, receiver)
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 3
    assert int(answers[-1].headers["retry-after"]) >= 1 and "detail" in answers[-1].json()
    assert plain.status_code == 200 and delivered.json()["posted_to_callback"] is True


def test_a_database_that_is_gone_is_said(server, receiver) -> None:
    receiver.status = 503
    with sqlite3.connect(server.home / "maru.db") as tables:
        tables.execute("DROP TABLE callbacks")
    with server.open() as client:
        answer = ask(client, receiver)
        plain = client.post("/predict", json={"X": window()})
    assert answer.status_code == 503 and "retry-after" in answer.headers
    assert plain.status_code == 200
    server.wait_until(lambda: "callbacks can't be read or written" in server.log(), 5)


def test_a_server_that_stops_gives_back_what_it_has_not_delivered(shelf, tmp_path, receiver) -> None:
    settings = {"allowed_hosts": [receiver.host], "pace": {**QUICK, "lease_s": 600.0}}
    receiver.status = 503
    with forecasting(tmp_path, **settings) as server:
        server.wait()
        with server.open() as client:
            assert ask(client, receiver).json()["posted_to_callback"] is False
        receiver.hang()
        before = len(receiver.received)
        receiver.wait(lambda: len(receiver.received) > before)  # the worker has it, and waits for an answer
        assert server.stop() == 0
    receiver.hang(False)
    receiver.status = 200
    with forecasting(tmp_path, **settings) as server:
        receiver.wait(lambda: waiting(server) == 0)
    assert len(receiver.ids) == 1
