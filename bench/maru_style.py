"""The style service on the starter: `QUEUE=64 SLEEP_S=0 KEY=… python -m bench.maru_style PORT`.

With SLEEP_S the model takes so much longer over each call, as one on an accelerator would: `bench.style` overloads it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

from maru import __version__
from maru.auth.keys import KeyAuthenticator
from maru.engine.engine import Engine
from maru.http.crowd import Bounds
from maru.http.health import Health
from maru.http.server import serve
from maru.http.service import ServiceApp
from maru.services.style.assembly import Styling
from maru.services.style.bundle import StyleBundle
from maru.services.style.declaration import service
from maru.services.style.model import NAME
from maru.services.style.reading import Reading
from maru.services.style.service import Configuration
from maru.telemetry.logs import configure
from maru.telemetry.telemetry import Telemetry


class Slow(StyleBundle):
    """The starter, `SLEEP_S` later."""

    def read_texts(self, texts: Sequence[str]) -> list[Reading]:
        time.sleep(float(os.environ["SLEEP_S"]))
        return super().read_texts(texts)


def main() -> None:
    """Serve on the port given."""
    with closing(configure("INFO", "json")) as writer, Telemetry(__version__, writer=writer) as telemetry:
        engine = Engine(cache_bytes=0)
        engine.events.subscribe(telemetry.engine)
        bundle = Slow if float(os.environ["SLEEP_S"]) else StyleBundle
        configuration = Configuration(Path(), queue_size=int(os.environ["QUEUE"]))
        styling = Styling(engine, configuration, telemetry.host.sample, open_bundle=bundle.open)

        @asynccontextmanager
        async def opened(app: object) -> AsyncIterator[None]:
            async with styling.opened():
                await styling.styles.start()
                engine.lifecycle.advance("ready")
                yield
                await engine.close()

        app = ServiceApp(
            service,
            styling.routes(Health(engine, (NAME,), telemetry.metrics.render)),
            engine=engine,
            report=telemetry.http,
            authenticator=KeyAuthenticator(needs=("style",), plain=[os.environ["KEY"]]),
            lifespan=opened,
        )
        code = serve(
            app,
            port=int(sys.argv[1]),
            lifecycle_of=lambda: engine.lifecycle,
            drain_delay_s=0.0,
            bounds=Bounds(max_connections=4096),
        )
    sys.exit(code)


if __name__ == "__main__":
    main()
