"""The first page of a platform with several services."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pydantic import BaseModel

from maru import __version__
from maru.http.call import Caller
from maru.http.endpoint import Reply, Route
from maru.http.health import Health
from maru.http.problem import detail
from maru.http.service import Service

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Maru</title>
<style>body{{font:16px/1.6 system-ui,sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem}}
h1{{font-weight:600}}li{{margin:.6rem 0}}small{{color:#666}}</style>
<h1>Maru <small>{version}</small></h1>
<ul>{services}</ul>
<p><a href="readyz">ready?</a> · <a href="metrics">metrics</a></p>
"""


class HomeProblem(BaseModel):
    detail: str


class Home:
    """Names the services, and tells their common health."""

    def __init__(self, services: Sequence[Service], health: Health) -> None:
        self._services = services
        self._health = health
        self.service = Service(
            name="maru",
            title="Maru",
            version=__version__,
            description="Every model behind one door.",
            port=8000,
            metric_prefix="maru",
            envelope=detail,
            problem_schema=HomeProblem,
        )

    async def page(self, call: Caller) -> Reply:
        """The services and where their documentation is."""
        items = "".join(
            f'<li><b>{escape(s.title)}</b> <a href="{s.name}/docs">documentation</a> · '
            f'<a href="{s.name}/openapi.json">OpenAPI</a><br><small>{escape(s.description)}</small></li>'
            for s in self._services
        )
        page = _PAGE.format(version=escape(__version__), services=items)
        return Reply(page.encode(), media_type="text/html; charset=utf-8")

    def routes(self) -> list[Route]:
        html = {"text/html": {"schema": {"type": "string"}}}
        return [Route("GET", "/", self.page, content=html, protected=False), *self._health.routes()]
