"""No image URL makes this service connect to anything that is not public: the corpora, watched at connect(2)."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.contracts.style.conftest import KEY, picture
from tests.contracts.style.toy import Toy
from tests.http.ssrf_corpus import CONFUSING, SPELLINGS, V4, V6

from maru.auth.keys import KeyAuthenticator
from maru.engine.engine import Engine
from maru.http.health import Health
from maru.http.service import ServiceApp
from maru.services.style.assembly import Styling
from maru.services.style.declaration import service
from maru.services.style.service import Configuration
from maru.telemetry.host import HostSampler
from maru.telemetry.telemetry import Telemetry

GOOD = "93.184.215.14"
URLS = (
    *(f"{scheme}://{address}/a.jpg" for address in V4 for scheme in ("http", "https")),
    *(f"http://[{address}]/a.jpg" for address in V6),
    *(f"http://{spelling}/a.jpg" for spelling in SPELLINGS),
    *(url.replace("GOOD", GOOD).replace("EVIL", evil) for url in CONFUSING for evil in ("127.0.0.1", "localhost")),
)


class Watch:
    """Every address that this process connects to. Nothing gets there."""

    def __init__(self) -> None:
        self.connects: list[str] | None = None
        sys.addaudithook(self._audit)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "socket.connect" and self.connects is not None and args[0].family != socket.AF_UNIX:
            self.connects.append(args[1][0])
            raise OSError("a test lets nobody out")


@pytest.fixture(scope="session")
def watch() -> Watch:
    return Watch()  # an audit hook can't be taken away again, so there is one


@pytest.fixture
def connects(watch: Watch) -> Iterator[list[str]]:
    watch.connects = []
    yield watch.connects
    watch.connects = None


@asynccontextmanager
async def client(folder: Path, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service in this process, to which nothing needs to be connected."""
    engine, telemetry, sampler = Engine(), Telemetry("0"), HostSampler()
    styling = Styling(
        engine, Configuration(folder, model=str(folder)), sampler.sample, open_bundle=lambda _: Toy(), **options
    )
    routes = styling.routes(Health(engine, ("style",), telemetry.metrics.render))
    authenticator = KeyAuthenticator(needs=("style",), plain=[KEY])
    app = ServiceApp(service, routes, engine=engine, report=telemetry.http, authenticator=authenticator)
    async with styling.opened():
        await styling.styles.start()
        engine.lifecycle.advance("ready")
        headers = {"Authorization": f"Bearer {KEY}"}
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://style.test", headers=headers) as asking:
            yield asking
        await engine.close()
    sampler.close()
    telemetry.close()


def test_no_url_of_the_corpora_is_connected_to(connects: list[str], tmp_path: Path) -> None:
    async def main() -> None:
        async with client(tmp_path) as asking:
            for url in URLS:
                body = b'{"image_url": %s}' % _json(url)
                answer = await asking.post("/infer/image", content=body, headers={"Content-Type": "application/json"})
                assert answer.status_code in (400, 502), (url, answer.text)

    asyncio.run(main())
    assert len(URLS) > 250 and set(connects) <= {GOOD}


def test_the_watch_would_have_seen_one(connects: list[str], tmp_path: Path) -> None:
    async def main() -> None:
        async with client(tmp_path, allowed_hosts=["127.0.0.1"]) as asking:
            answer = await asking.post("/infer/image", json={"image_url": "http://127.0.0.1/a.jpg"})
            assert answer.status_code == 502
            sent = await asking.post("/infer/image", json={"image_base64": base64.b64encode(picture()).decode()})
            assert sent.status_code == 200

    asyncio.run(main())
    assert connects == ["127.0.0.1"]


def _json(url: str) -> bytes:
    """The URL as JSON, a lone surrogate included."""
    return json.dumps(url).encode()
