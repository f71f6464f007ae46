"""What `maru models` does with the bundles of the recommendation service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

from maru.commands.screen import fail
from maru.services.recommend.bundles import CANDIDATE, LIVE, BundleError, Bundles, bundles_folder
from maru.settings import Settings

RECOMMEND = "recommend"
"""The name by which `maru models` is asked for them."""
ALIASES = (LIVE, CANDIDATE)


def list_bundles(*, as_json: bool) -> None:
    """The versions, newest first, with the aliases that point to each and what was measured of it."""
    with _bundles() as bundles:
        versions, aliases = bundles.versions(), bundles.aliases()
    told: list[dict[str, Any]] = [
        {
            "version": bundle.version,
            "aliases": [alias for alias, version in aliases.items() if version == bundle.version],
            "created": bundle.created,
            "metrics": {name: figure["value"] for name, figure in bundle.metrics.get("served", {}).items()},
        }
        for bundle in versions
    ]
    if as_json:
        print(json.dumps(told))  # noqa: T201
        return
    table = Table("version", "aliases", "trained", "measured", box=None)
    for one in told:
        measured = ", ".join(f"{name} {value:.4g}" for name, value in one["metrics"].items())
        table.add_row(one["version"], ", ".join(one["aliases"]), one["created"], measured)
    Console().print(table)


def promote_bundle(version: str | None, alias: str | None) -> None:
    """Point `alias` at `version`: without one, `live` at the candidate. Its files are verified first."""
    alias = alias or LIVE
    if alias not in ALIASES:
        fail(f"bundles are promoted to {' or '.join(ALIASES)}, not to {alias}")
    with _bundles() as bundles:
        chosen = version or bundles.current(CANDIDATE)
        if chosen is None:
            fail("there is no candidate: name the version to promote")
        bundles.promote(chosen, alias)
    print(f"{RECOMMEND}@{alias} → {chosen}")  # noqa: T201


def roll_back(alias: str) -> None:
    """Point `alias` at what it pointed to before."""
    with _bundles() as bundles:
        print(f"{RECOMMEND}@{alias} → {bundles.rollback(alias).version}")  # noqa: T201


def withdraw() -> None:
    """Let the live bundle answer every session."""
    with _bundles() as bundles:
        bundles.withdraw()
    print(f"{RECOMMEND}@{CANDIDATE} → nothing")  # noqa: T201


@contextmanager
def _bundles() -> Iterator[Bundles]:
    """Those of this home; their refusal is the command's one line."""
    try:
        yield Bundles(bundles_folder(Settings.read().maru_home))
    except BundleError as error:
        fail(str(error))
