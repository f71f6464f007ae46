"""A registry server that is down, silent, broken, or not what it says it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from maru.engine.errors import ModelLoadFailed
from maru.runtimes.errors import BadModelFile
from maru.runtimes.registry.rest import Credentials, RestRegistry
from maru.runtimes.registry.types import Bounds, RegisteredVersion, RegistryUnavailable, VersionNotFound

from .conftest import mlflow_server, published

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

VERSION = {
    "name": "BTC",
    "version": "1",
    "status": "READY",
    "source": "models:/m-1",
    "creation_timestamp": "1700000000000",
}
ASKED = RegisteredVersion("BTC", "1", "")
PLACE = {"artifact_uri": "mlflow-artifacts:/1/models/m-1/artifacts"}
SECRET = "s3cret"


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"http://user:{SECRET}@{host}:{port}/some/prefix?token={SECRET}"
    finally:
        await runner.cleanup()


def against(handler: Handler, question: Callable[[RestRegistry], Awaitable[Any]], **options: Any) -> Any:
    async def asked() -> Any:
        async with serving(handler) as url:
            registry = RestRegistry(url, **{"timeout_s": 0.5, **options})
            try:
                return await question(registry)
            finally:
                await registry.aclose()

    return asyncio.run(asyncio.wait_for(asked(), 20))


def answering(status: int, body: Any, **headers: str) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return web.Response(status=status, body=content, headers=headers)

    return handler


def resolve(registry: RestRegistry) -> Awaitable[RegisteredVersion]:
    return registry.resolve("BTC", "staging")


def clean(error: ModelLoadFailed) -> None:
    """Nothing that may not be shown is in the message."""
    said = str(error)
    assert not any(word in said for word in (SECRET, "user", "127.0.0.1", "http", "Traceback", "/")), said
    assert "\n" not in said and len(said) < 200


@pytest.mark.parametrize(
    "handler",
    [
        answering(200, b"<html>It works!</html>"),
        answering(200, b""),
        answering(200, b"[]"),
        answering(200, b'"text"'),
        answering(200, b"[" * 100_000),
        answering(200, b"\xff\xfe\x00"),
        answering(200, {}),
        answering(200, {"model_version": []}),
        answering(200, {"model_version": VERSION | {"version": "../../etc"}}),
        answering(200, {"model_version": VERSION | {"version": None}}),
        answering(200, {"model_version": VERSION | {"name": "Other"}}),
        answering(200, {"model_version": VERSION | {"aliases": "staging"}}),
        answering(200, {"model_version": VERSION | {"tags": [1]}}),
        answering(200, {"model_version": VERSION | {"creation_timestamp": "soon"}}),
        answering(200, {"model_version": VERSION | {"status": "PENDING_REGISTRATION"}}),
        answering(200, b" " * (20 * 2**20)),
        answering(404, b"<html>Not Found</html>"),
        answering(400, {"error_code": 7, "message": SECRET}),
        answering(401, {"message": SECRET}),
        answering(403, b""),
        answering(302, b"", Location="http://user:s3cret@127.0.0.1/"),
        answering(500, f"Traceback {SECRET}".encode()),
        answering(503, b""),
        answering(204, b""),
    ],
)
def test_an_answer_that_makes_no_sense(handler: Handler) -> None:
    with pytest.raises(RegistryUnavailable) as failure:
        against(handler, resolve)
    clean(failure.value)


def test_a_server_that_is_down() -> None:
    async def asked() -> None:
        async with serving(answering(200, {})) as url:
            pass
        registry = RestRegistry(url)
        try:
            await registry.resolve("BTC", "staging")
        finally:
            await registry.aclose()

    with pytest.raises(RegistryUnavailable) as failure:
        asyncio.run(asyncio.wait_for(asked(), 10))
    clean(failure.value)


def test_a_server_that_never_answers_is_given_up_on() -> None:
    async def handler(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        raise AssertionError

    with pytest.raises(RegistryUnavailable) as failure:
        against(handler, resolve)
    clean(failure.value)


def test_a_server_that_drips_is_given_up_on() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.1)

    with pytest.raises(RegistryUnavailable):
        against(handler, resolve)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_what_fails_once_is_asked_again(status: int) -> None:
    calls: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        calls.append(request.path)
        return web.Response(status=status) if len(calls) == 1 else web.json_response({"model_version": VERSION})

    assert against(handler, resolve).version == "1"
    assert calls == ["/some/prefix/api/2.0/mlflow/registered-models/alias"] * 2


def test_it_is_not_asked_a_third_time() -> None:
    calls: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        calls.append(request.path)
        return web.Response(status=503)

    with pytest.raises(RegistryUnavailable):
        against(handler, resolve)
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("credentials", "header"),
    [
        (None, "Basic dXNlcjpzM2NyZXQ="),
        (Credentials(username="다른", password="p"), "Basic 64uk66W4OnA="),
        (Credentials(token="t"), "Bearer t"),
        (Credentials(token="t", username="u", password="p"), "Bearer t"),
    ],
)
def test_credentials_are_sent_and_never_shown(credentials: Credentials | None, header: str) -> None:
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization", ""))
        assert "token" not in request.query
        return web.json_response({"model_version": VERSION})

    against(handler, resolve, credentials=credentials)
    assert seen == [header]
    assert SECRET not in repr(Credentials(token=SECRET, username="u", password=SECRET))


@pytest.mark.parametrize("uri", ["http://", "http:///path", "http://[::1", "http://host:port/", "http://host:99999/"])
def test_a_url_that_is_none_is_refused_without_repeating_it(uri: str) -> None:
    with pytest.raises(ValueError, match="must be the http or https URL") as failure:
        RestRegistry(uri)
    assert uri not in str(failure.value)


def files_of(listed: dict[str, list[dict[str, Any]]], contents: dict[str, bytes]) -> Handler:
    """An artifact store: what is listed in each folder, and what each file's content is."""
    root = "1/models/m-1/artifacts"

    async def handler(request: web.Request) -> web.Response:
        path = request.path.removeprefix("/some/prefix/api/2.0/")
        if path == "mlflow/model-versions/get-download-uri":
            return web.json_response(PLACE)
        if path == "mlflow-artifacts/artifacts":
            return web.json_response({"files": listed[request.query["path"].removeprefix(root).strip("/")]})
        name = path.removeprefix(f"mlflow-artifacts/artifacts/{root}/")
        return web.Response(body=contents[name]) if name in contents else web.Response(status=404)

    return handler


def test_folders_and_odd_names_are_fetched(tmp_path: Path) -> None:
    handler = files_of(
        {
            "": [{"path": "data", "is_dir": True}, {"path": "모델 #1?.onnx", "file_size": "3"}],
            "data": [{"path": "empty", "file_size": 0}, {"path": "deep", "is_dir": True}],
            "data/deep": [{"path": "1/models/m-1/artifacts/data/deep/file"}],
        },
        {"모델 #1?.onnx": b"abc", "data/empty": b"", "data/deep/file": b"x" * 3_000_000},
    )
    root = against(handler, lambda registry: registry.fetch(ASKED, tmp_path / "model"))
    found = {path.relative_to(root).as_posix(): path.stat().st_size for path in root.rglob("*") if path.is_file()}
    assert found == {"모델 #1?.onnx": 3, "data/empty": 0, "data/deep/file": 3_000_000}


@pytest.mark.parametrize(
    "entry",
    [
        {"path": ".."},
        {"path": "a/.."},
        {"path": ""},
        {"path": "."},
        {"path": "a\\..\\b"},
        {"path": "a\x00b"},
        {"path": "a\nb"},
        {"path": 5.5},
        {"path": "..", "is_dir": True},
        {"path": "loop", "is_dir": True},
        {"path": "file", "file_size": "4"},
        {"path": "file", "file_size": "2"},
        {"path": "file", "file_size": "many"},
        {"path": "lost"},
        {"path": "a" * 300},
    ],
)
def test_a_hostile_listing_writes_nothing(tmp_path: Path, entry: dict[str, Any]) -> None:
    loop = "/".join(["loop"] * 20)
    listed = {loop[: 5 * depth].strip("/"): [entry] for depth in range(20)} | {"": [{"path": "ok"}, entry]}
    handler = files_of(listed, {"ok": b"ok", "file": b"abc", "5.5": b""})
    with pytest.raises(ModelLoadFailed) as failure:
        against(handler, lambda registry: registry.fetch(ASKED, tmp_path / "folder" / "model"))
    assert [path for path in tmp_path.rglob("*") if path.name != "folder"] == []
    clean(failure.value)


def test_a_body_that_breaks_off_is_no_file(tmp_path: Path) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if not request.path.endswith("model.onnx"):
            return await files_of({"": [{"path": "model.onnx"}]}, {})(request)
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"x" * 10)
        assert request.transport is not None
        request.transport.abort()
        return response

    with pytest.raises(RegistryUnavailable) as failure:
        against(handler, lambda registry: registry.fetch(ASKED, tmp_path / "model"))
    clean(failure.value)
    assert not list(tmp_path.iterdir())


def test_an_endless_file_is_cut_off(tmp_path: Path) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if not request.path.endswith("model.onnx"):
            return await files_of({"": [{"path": "model.onnx"}]}, {})(request)
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65_536)

    with pytest.raises(BadModelFile):
        against(handler, lambda registry: registry.fetch(ASKED, tmp_path / "model"), bounds=Bounds(max_bytes=2**20))
    assert not list(tmp_path.iterdir())


def test_a_download_that_stalls_is_given_up_on(tmp_path: Path) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if not request.path.endswith("model.onnx"):
            return await files_of({"": [{"path": "model.onnx"}]}, {})(request)
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x")
            await asyncio.sleep(0.1)

    with pytest.raises(RegistryUnavailable, match="within 1 s"):
        against(handler, lambda registry: registry.fetch(ASKED, tmp_path / "model"), download_s=1.0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "place",
    [
        "file:///etc",
        "/etc",
        "http://169.254.169.254/latest",
        "ftp://host/path",
        "mlflow-artifacts://elsewhere:5000/1/models",
        "dbfs:/etc",
        "mlflow-artifacts://[::1/models",
        "mlflow-artifacts://host:port/models",
        "",
    ],
)
def test_files_are_taken_from_no_other_place(tmp_path: Path, place: str) -> None:
    with pytest.raises(RegistryUnavailable) as failure:
        handler = answering(200, {"artifact_uri": place})
        against(handler, lambda registry: registry.fetch(ASKED, tmp_path / "model"))
    assert not place or place not in str(failure.value)
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_deleted_leaves_its_version_without_metrics() -> None:
    async def handler(request: web.Request) -> web.Response:
        path = request.path.rpartition("mlflow/")[2]
        if path == "runs/get":
            return web.json_response({"error_code": "RESOURCE_DOES_NOT_EXIST"}, status=404)
        if path == "registered-models/get":
            return web.json_response({"registered_model": {"name": "BTC"}})
        versions = [
            VERSION | {"run_id": "r"},
            VERSION | {"version": "12"},
            VERSION | {"version": "3", "status": "FAILED"},
        ]
        return web.json_response({"model_versions": versions})

    versions = against(handler, lambda registry: registry.versions("BTC"))
    assert [(version.version, version.metrics) for version in versions] == [("12", {}), ("1", {})]


def test_all_pages_are_read() -> None:
    async def handler(request: web.Request) -> web.Response:
        page = int(request.query.get("page_token", "0"))
        more = {"next_page_token": str(page + 1)} if page < 3 else {}
        return web.json_response({"registered_models": [{"name": f"model {3 - page}"}], **more})

    models = against(handler, lambda registry: registry.models())
    assert [model.name for model in models] == ["model 0", "model 1", "model 2", "model 3"]


def test_pages_without_end_come_to_one() -> None:
    endless = answering(200, {"registered_models": [{"name": "m"}], "next_page_token": "again"})
    assert against(endless, lambda registry: registry.models())


@pytest.mark.slow
def test_a_real_server_that_keeps_its_files_to_itself(mlflow_python: str, tmp_path: Path) -> None:
    more = ["--no-serve-artifacts", "--default-artifact-root", f"{tmp_path}/files"]
    with mlflow_server(mlflow_python, tmp_path, more) as url:
        published(url, "BTC", alias="staging")

        async def fetched() -> None:
            registry = RestRegistry(url)
            try:
                await registry.fetch(await registry.resolve("BTC", "staging"), tmp_path / "model")
            finally:
                await registry.aclose()

        with pytest.raises(RegistryUnavailable, match="--serve-artifacts"):
            asyncio.run(fetched())


def test_an_alias_that_is_not_there_is_told_from_a_server_that_fails() -> None:
    gone = answering(400, {"error_code": "INVALID_PARAMETER_VALUE", "message": SECRET})
    with pytest.raises(VersionNotFound) as failure:
        against(gone, resolve)
    clean(failure.value)
