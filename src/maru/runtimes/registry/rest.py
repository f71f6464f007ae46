"""The registry of an MLflow server, over HTTP and without MLflow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import aiohttp
from yarl import URL

from maru.runtimes.registry.answers import READY, Answer, Nonsense, measured, registered_model, registered_version
from maru.runtimes.registry.names import MISSING, MOST_MEASURED, checked_alias, checked_name, checked_version, filter_by
from maru.runtimes.registry.staging import CHUNK, Staging
from maru.runtimes.registry.types import (
    Bounds,
    RegisteredModel,
    RegisteredVersion,
    RegistryUnavailable,
    VersionNotFound,
)

API = "api/2.0/mlflow"
ARTIFACTS = "api/2.0/mlflow-artifacts/artifacts"
PASSING = {429, 500, 502, 503, 504}
PAUSE_S = 0.2
"""Before something is asked again."""

CLOUDS = {"s3", "gs", "wasb", "wasbs", "abfss"}
"""Where a server's files may be that does not hand them out itself."""

LOST = "the registry has lost files of the model"
MAX_ANSWER_BYTES = 16 * 2**20
MAX_PAGES = 100
PARALLEL = 4


@dataclass(frozen=True, slots=True)
class Credentials:
    """What an MLflow server asks for: a bearer token, or a name and a password."""

    token: str | None = field(default=None, repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    def header(self) -> str | None:
        if self.token:
            return f"Bearer {self.token}"
        if self.username is not None:
            return aiohttp.encode_basic_auth(self.username, self.password or "")
        return None


class RestRegistry:
    """One MLflow server. What fails for the network's sake is asked twice, and no more.

    `timeout_s` bounds each question, `download_s` the files of one model.
    """

    def __init__(
        self,
        uri: str,
        credentials: Credentials | None = None,
        *,
        bounds: Bounds | None = None,
        timeout_s: float = 5.0,
        download_s: float = 120.0,
    ) -> None:
        """ValueError for a URL that is none, in one line that does not repeat it."""
        try:
            given = URL(uri)
            if not given.host:
                raise ValueError
        except ValueError:
            raise ValueError("must be the http or https URL of an MLflow server") from None
        if credentials is None and given.user is not None:
            credentials = Credentials(username=given.user, password=given.password)
        self._base = given.with_user(None).with_query(None).with_fragment(None)
        self._credentials = credentials or Credentials()
        self._bounds = bounds or Bounds()
        self._timeout_s = timeout_s
        self._download_s = download_s
        self._session: aiohttp.ClientSession | None = None

    async def resolve(self, name: str, alias: str) -> RegisteredVersion:
        asked = {"name": checked_name(name), "alias": checked_alias(alias)}
        missing = f"the registry has no model {name} with the alias {alias}"
        answer = await self._ask("registered-models/alias", asked, missing)
        return registered_version(answer.child("model_version"), name)

    async def fetch(self, version: RegisteredVersion, folder: Path) -> Path:
        asked = {"name": checked_name(version.name), "version": checked_version(version.version)}
        missing = f"the registry has no version {version.version} of {version.name}"
        answer = await self._ask("model-versions/get-download-uri", asked, missing)
        location = answer.text("artifact_uri")
        try:
            parts = urlsplit(location)
            here = self._is_here(parts.netloc)
        except ValueError:
            raise Nonsense from None
        if parts.scheme in CLOUDS:
            return await asyncio.to_thread(_from_cloud, location, folder, self._bounds)
        if parts.scheme != "mlflow-artifacts" or not here:
            raise RegistryUnavailable("the registry does not hand its files out: start it with --serve-artifacts")
        try:
            async with asyncio.timeout(self._download_s), _staging(folder, self._bounds) as staging:
                await self._download(unquote(parts.path).strip("/"), staging)
        except TimeoutError:
            raise RegistryUnavailable(f"the model did not arrive within {self._download_s:g} s") from None
        return folder

    async def models(self) -> list[RegisteredModel]:
        found = await self._pages("registered-models/search", {}, "registered_models")
        return sorted(map(registered_model, found), key=lambda model: model.name)

    async def versions(self, name: str) -> list[RegisteredVersion]:
        missing = f"the registry has no model {checked_name(name)}"
        answer = await self._ask("registered-models/get", {"name": name}, missing)
        pointed = registered_model(answer.child("registered_model")).aliases
        found = await self._pages("model-versions/search", {"filter": filter_by(name)}, "model_versions")
        ready = [registered_version(entry, name) for entry in found if entry.text("status", READY) == READY]
        ready.sort(key=lambda version: int(version.version), reverse=True)
        metrics = await self._metrics([version.run_id for version in ready[:MOST_MEASURED]])
        return [
            replace(
                version,
                aliases=tuple(sorted(alias for alias, target in pointed.items() if target == version.version)),
                metrics=metrics.get(version.run_id or "", {}),
            )
            for version in ready
        ]

    async def set_alias(self, name: str, alias: str, version: str) -> None:
        body = {"name": checked_name(name), "alias": checked_alias(alias), "version": checked_version(version)}
        await self._ask("registered-models/alias", {}, f"the registry has no version {version} of {name}", body)

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _is_here(self, authority: str) -> bool:
        """Whether files at that host and port are handed out by this very server."""
        if not authority:
            return True
        there = URL(f"{self._base.scheme}://{authority}")
        return (there.host, there.port) == (self._base.host, self._base.port)

    async def _download(self, root: str, staging: Staging) -> None:
        """Every file under `root`, which is the server's path of the model's artifacts."""
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            path = f"{root}/{folder}".rstrip("/")
            listed = Answer.read(await self._get(ARTIFACTS, {"path": path}, LOST))
            for entry in listed.children("files"):
                name = f"{folder}/{entry.text('path').rpartition('/')[2]}".lstrip("/")
                staging.parts(name)
                if entry.flag("is_dir"):
                    waiting.append(name)
                else:
                    await self._file(f"{root}/{name}", name, entry.number("file_size"), staging)

    async def _file(self, path: str, name: str, size: float | None, staging: Staging) -> None:
        came = 0
        with staging.file(name) as write:
            async with self._answer(f"{ARTIFACTS}/{quote(path)}", {}, None, None) as response:
                _checked(response.status, LOST, b"")
                async for chunk in response.content.iter_chunked(CHUNK):
                    came += len(chunk)
                    await asyncio.to_thread(write, chunk)
        if size is not None and came != size:
            raise RegistryUnavailable("one of the model's files did not arrive whole")

    async def _metrics(self, runs: list[str | None]) -> dict[str, dict[str, float]]:
        turns = asyncio.Semaphore(PARALLEL)

        async def of(run: str) -> dict[str, float]:
            async with turns:
                try:
                    return measured(await self._ask("runs/get", {"run_id": run}, "the run is gone"))
                except VersionNotFound:  # the run may be deleted; the version stays
                    return {}

        asked = sorted({run for run in runs if run})
        return dict(zip(asked, await asyncio.gather(*map(of, asked)), strict=True))

    async def _pages(self, path: str, asked: Mapping[str, str], items: str) -> list[Answer]:
        found: list[Answer] = []
        token = ""
        for _ in range(MAX_PAGES):
            page = await self._ask(path, {**asked, "page_token": token} if token else asked, "the registry has none")
            found += page.children(items)
            token = page.text("next_page_token", "")
            if not token:
                break
        return found

    async def _ask(
        self, path: str, asked: Mapping[str, str], missing: str, body: Mapping[str, str] | None = None
    ) -> Answer:
        """One of the API's answers. VersionNotFound with the words `missing` when it does not have that."""
        return Answer.read(await self._get(f"{API}/{path}", asked, missing, body))

    async def _get(
        self, path: str, asked: Mapping[str, str], missing: str, body: Mapping[str, str] | None = None
    ) -> bytes:
        async with self._answer(path, asked, body, self._timeout_s) as response:
            content = await response.content.read(MAX_ANSWER_BYTES)
            while not response.content.at_eof():
                if len(content) >= MAX_ANSWER_BYTES:
                    raise Nonsense
                content += await response.content.read(MAX_ANSWER_BYTES - len(content))
            _checked(response.status, missing, content)
            return content

    @asynccontextmanager
    async def _answer(
        self, path: str, asked: Mapping[str, str], body: Mapping[str, str] | None, total_s: float | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer, whose body is yet to be read within `total_s`. What fails before it came is asked once more."""
        try:
            response = await self._send(path, asked, body, total_s)
            async with response:
                yield response
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(error, TimeoutError):
                raise RegistryUnavailable(f"the registry did not answer within {self._timeout_s:g} s") from None
            # Without its cause, whose text may quote the URL.
            raise RegistryUnavailable(f"the registry can't be reached ({type(error).__name__})") from None

    async def _send(
        self, path: str, asked: Mapping[str, str], body: Mapping[str, str] | None, total_s: float | None
    ) -> aiohttp.ClientResponse:
        method = "POST" if body else "GET"
        limits = aiohttp.ClientTimeout(total=total_s, connect=self._timeout_s, sock_read=self._timeout_s)
        url = URL(f"{str(self._base).rstrip('/')}/{path}", encoded=True).with_query(asked)
        for last in (False, True):
            try:
                response = await self._opened().request(method, url, json=body, timeout=limits, allow_redirects=False)
            except (aiohttp.ClientError, OSError):
                if last:
                    raise
            else:
                if last or response.status not in PASSING:
                    return response
                response.release()
            await asyncio.sleep(PAUSE_S)
        raise AssertionError("unreachable")

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            headers = {"User-Agent": "maru", "Accept-Encoding": "identity"}
            if authorization := self._credentials.header():
                headers["Authorization"] = authorization
            self._session = aiohttp.ClientSession(headers=headers, cookie_jar=aiohttp.DummyCookieJar())
        return self._session


@asynccontextmanager
async def _staging(folder: Path, bounds: Bounds) -> AsyncIterator[Staging]:
    """A `Staging`, opened and settled in a thread."""
    staging = await asyncio.to_thread(Staging(folder, bounds).__enter__)
    try:
        yield staging
    except BaseException as error:
        await asyncio.shield(asyncio.to_thread(staging.__exit__, type(error), error, None))
        raise
    await asyncio.to_thread(staging.__exit__, None, None, None)


def _from_cloud(location: str, folder: Path, bounds: Bounds) -> Path:
    from maru.runtimes.registry.mlflow_store import download

    with Staging(folder, bounds) as staging:
        download(location, staging)
    return folder


def _checked(status: int, missing: str, content: bytes) -> None:
    """RegistryError for a status other than 200."""
    if status == 200:
        return
    if status in (401, 403):
        raise RegistryUnavailable(
            f"the registry refuses us ({status}): are MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, right?"
        )
    if status in (400, 404):
        try:
            code = Answer.read(content).text("error_code", "")
        except Nonsense:
            code = ""
        if code in MISSING:
            raise VersionNotFound(missing)
    raise RegistryUnavailable(f"the registry answered {status}")
