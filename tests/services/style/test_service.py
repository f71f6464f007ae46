"""Which bundle is served, and a start that does not succeed at once."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from tests.contracts.style.toy import Toy

from maru.engine.engine import Engine
from maru.http.fetch import Fetcher
from maru.runtimes.errors import BadModelFile
from maru.services.style import service
from maru.services.style.bundle import MANIFEST
from maru.services.style.images import Images
from maru.services.style.machine import Machine
from maru.services.style.model import NAME, Bundle
from maru.services.style.service import Configuration, Styles
from maru.services.style.starter import kept, starter
from maru.telemetry.host import HostSampler


def test_the_bundle_that_was_named_or_kept_or_else_the_starter(tmp_path: Path) -> None:
    assert Configuration(tmp_path).folder() == starter()
    own = kept(tmp_path)
    own.mkdir(parents=True)
    assert Configuration(tmp_path).folder() == starter()  # a folder alone is no bundle
    (own / MANIFEST).write_text("{}")
    assert Configuration(tmp_path).folder() == own
    assert Configuration(tmp_path, model="~/another").folder() == Path.home() / "another"


def test_a_start_is_tried_again_until_it_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service, "RETRY_S", 0.01)
    troubles = [BadModelFile("text.safetensors is not what the manifest says"), FileNotFoundError(2, "no file")]

    def open_bundle(folder: Path) -> Bundle:
        if troubles:
            raise troubles.pop(0)
        return Toy()

    async def main() -> None:
        engine = Engine()
        engine.lifecycle.advance("ready")
        async with Fetcher(()) as fetcher:
            configuration = Configuration(tmp_path, str(tmp_path))
            images, machine = Images(engine, fetcher), Machine(HostSampler().sample)
            styles = Styles(engine, configuration, open_bundle, images, machine)
            before = styles.state()
            await styles.start()
            after = styles.state()
        await engine.close()
        assert (before.model_ready, before.model_version, before.styles) == (False, None, ())
        assert (after.model_ready, after.model_version) == (True, "v1.2.0")
        assert after.stand_in is True and after.quality == "a toy for tests" and len(after.styles) == 3
        assert before.queue_status.max_concurrent == after.queue_status.max_concurrent == 2
        assert not before.gpu_available and styles.resolve(NAME) == NAME

    with caplog.at_level(logging.ERROR):
        asyncio.run(main())
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and "text.safetensors is not what the manifest says" in said[0]
