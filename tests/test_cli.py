"""The `maru` command: what it refuses, and in which words."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.conftest import SECRET, maru, running


@pytest.mark.parametrize("command", [("up",), ("serve", "embedding")])
def test_refuses_a_public_address_without_credentials(tmp_path, command) -> None:
    run = maru(tmp_path, *command, "--host", "0.0.0.0")
    assert run.returncode == 2
    for word in ("0.0.0.0", "SUPABASE_JWT_SECRET", "API_KEYS", "--insecure"):
        assert word in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


def test_refuses_a_public_address_with_a_secret_that_everybody_knows(tmp_path) -> None:
    known = "super-secret-jwt-token-with-at-least-32-characters-long"
    run = maru(tmp_path, "up", "--host", "0.0.0.0", SUPABASE_JWT_SECRET=known)
    assert run.returncode == 2 and "SUPABASE_JWT_SECRET" in run.stderr and known not in run.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SUPABASE_JWT_SECRET", "your_supabase_jwt_secret"),
        ("SUPABASE_JWT_SECRET", "too-short"),
        ("SUPABASE_URL", "http://your-supabase-url:54321"),
        ("HF_TOKEN", "your_huggingface_token_here"),
        ("API_KEYS", "changeme"),
        ("MODEL_QUANTIZATION", "int3"),
        ("MAX_BATCH_SIZE", "0"),
        ("RATE_LIMIT_PER_MIN", "ten"),
        ("REDIS_URL", "not-a-url"),
        ("DATABASE_URL", "nonsense"),
    ],
)
def test_a_wrong_setting_stops_the_start_with_a_line_that_names_it(tmp_path, name, value) -> None:
    run = maru(tmp_path, "serve", "embedding", **{name: value})
    assert run.returncode == 2
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1 and name in lines[0], run.stderr
    if "SECRET" in name or "KEY" in name:
        assert value not in run.stderr


def test_the_documents_env_file_is_read(tmp_path) -> None:
    (tmp_path / ".env").write_text("MODEL_QUANTIZATION=int3\n")
    assert "MODEL_QUANTIZATION" in maru(tmp_path, "serve", "embedding").stderr


def test_every_setting_is_documented(tmp_path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "operate.md").read_text()
    assert maru(tmp_path, "settings").stdout in page


def test_keys_are_shown_once_and_revoked(tmp_path) -> None:
    made = maru(tmp_path, "keys", "create", "shop", "--scope", "embedding", "--days", "30")
    key = made.stdout.strip()
    assert made.returncode == 0 and key.startswith("maru_")
    (row,) = json.loads(maru(tmp_path, "keys", "list", "--json").stdout)
    assert row["name"] == "shop" and row["scopes"] == "embedding" and row["revoked"] is None
    stored = b"".join(file.read_bytes() for file in tmp_path.rglob("maru.db*"))
    assert key.split("_")[2].encode() not in stored
    assert maru(tmp_path, "keys", "revoke", row["id"]).returncode == 0
    again = maru(tmp_path, "keys", "revoke", row["id"])
    assert again.returncode == 2 and row["id"] in again.stderr
    assert json.loads(maru(tmp_path, "keys", "list", "--json").stdout)[0]["revoked"]


def test_an_unknown_service(tmp_path) -> None:
    run = maru(tmp_path, "serve", "teleport")
    assert run.returncode == 2 and "embedding" in run.stderr


def test_up_shows_a_key_once_and_requests_that_work(tmp_path, embedding) -> None:
    import shutil

    from maru.app import SERVICES

    shutil.copytree(embedding.home / "cache", tmp_path / "cache")
    with running(tmp_path, "up", SUPABASE_JWT_SECRET="") as server:
        server.wait(timeout_s=120)
        wait_for(server, "curl ", times=len(SERVICES))
        shown = server.log()
        assert shown.count("maru_") == len(SERVICES), "once by itself, and in each request that needs it"
        requests = [line for line in shown.splitlines() if line.startswith("curl ")]
        said = {path_of(line): pasted(line) for line in requests}
        assert "event: done" in said.pop("/ai/api/v1/generate/stream")
        answers = {path: json.loads(text) for path, text in said.items()}
        assert answers["/embedding/embed"]["dimension"] == 384
        assert answers["/forecast/predict"]["model_version"] == "1"
        assert len(answers["/recommend/recommend"]["recommendations"]) == 5
        assert answers["/style/infer"]["style"] == "modern"
        page = subprocess.run(["curl", "-fsS", server.url + "/"], capture_output=True, text=True).stdout
        assert all(f"{name}/docs" in page for name in SERVICES)
        assert server.stop() == 0
    with running(tmp_path, "up", SUPABASE_JWT_SECRET="") as server:
        server.wait()
        wait_for(server, "curl ", times=len(SERVICES) + 1)
        assert server.log().count("maru_") == len(SERVICES)


def path_of(line: str) -> str:
    (url,) = [word for word in line.split() if word.startswith("http://")]
    return urlsplit(url).path


def pasted(line: str) -> str:
    return subprocess.run(["sh", "-c", f"{line} -fsS"], capture_output=True, text=True, check=True).stdout


def wait_for(server, words: str, times: int = 1) -> None:
    import time

    until = time.monotonic() + 20
    while server.log().count(words) < times:
        assert time.monotonic() < until, server.log()
        time.sleep(0.05)


def test_a_key_opens_the_service_it_is_for(tmp_path, embedding) -> None:
    import shutil

    import httpx

    shutil.copytree(embedding.home / "cache", tmp_path / "cache")
    good = maru(tmp_path, "keys", "create", "shop", "--scope", "embedding").stdout.strip()
    other = maru(tmp_path, "keys", "create", "shop", "--scope", "style").stdout.strip()
    plain = "a-key-that-a-vault-keeps-1234"
    with running(tmp_path, "serve", "embedding", API_KEYS=f"{plain}, another-key-of-that-vault-99") as server:
        server.wait()

        def embed(key: str) -> int:
            headers = {"Authorization": f"Bearer {key}"}
            return httpx.post(server.url + "/embed", json={"text": "a"}, headers=headers).status_code

        assert [embed(good), embed(plain), embed(other), embed("maru_nope")] == [200, 200, 403, 401]
    assert SECRET not in server.log() and good not in server.log() and plain not in server.log()
