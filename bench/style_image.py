"""What an image costs, part by part, and how near its colours are to those of the picture.

    python -m bench.style_image FOLDER [--rounds 5] [--repeats 20] [--opencv PYTHON]

FOLDER has photographs. Each is fetched from a server on this machine through the fetcher that requests use, decoded,
measured and read by the starter, on one core. Mean colour error: the mean ΔE (CIE 1976) of the picture's pixels, 256
on the longer side, to the nearest colour of a palette; beside it OpenCV's k-means in Lab, the best of three starts,
with five seeds.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web
from PIL import Image

from bench.contenders import HERE, VENVS
from bench.page import machine, table, where, write
from bench.rounds import Spread
from maru.http.fetch import Fetcher
from maru.services.style.bundle import StyleBundle
from maru.services.style.image.analysis import analyse
from maru.services.style.image.colors import dominant_colors
from maru.services.style.image.decoding import decode
from maru.services.style.image.lab import lab
from maru.services.style.image.light import light
from maru.services.style.starter import starter

PARTS = ("fetch", "decode", "colors", "light", "model")
COUNTS = (3, 5)
SEEDS = 5
SIDE = 256


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[str]:
    """The folder's address on this machine."""
    app = web.Application()
    app.router.add_static("/", folder)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def once(fetcher: Fetcher, url: str, bundle: StyleBundle) -> dict[str, float]:
    """Milliseconds of each part."""
    took: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        found = work()
        took[name] = 1000 * (time.perf_counter() - began)
        return found

    began = time.perf_counter()
    data = (await fetcher.get(url)).body
    took["fetch"] = 1000 * (time.perf_counter() - began)
    image = timed("decode", lambda: decode(data))
    timed("colors", lambda: dominant_colors(image.small, 3))
    timed("light", lambda: light(image.small))
    timed("model", lambda: bundle.read_images([image]))
    return took


async def split(files: Sequence[Path], rounds: int, repeats: int) -> dict[str, dict[str, Spread]]:
    """File to part to the p50 of the repeats, its median and spread over the rounds."""
    bundle = StyleBundle.open(starter())
    medians: dict[tuple[str, str], list[float]] = defaultdict(list)
    async with served(files[0].parent) as address:
        host = address.removeprefix("http://")
        async with Fetcher(frozenset({host})) as fetcher:
            await once(fetcher, f"{address}/{files[0].name}", bundle)
            for number in range(rounds):
                for file in (*files[number % len(files) :], *files[: number % len(files)]):
                    every = [await once(fetcher, f"{address}/{file.name}", bundle) for _ in range(repeats)]
                    for part in PARTS:
                        medians[file.name, part].append(statistics.median(took[part] for took in every))
    found: dict[str, dict[str, Spread]] = defaultdict(dict)
    for (name, part), values in medians.items():
        if spread := Spread.of(values):
            found[name][part] = spread
    return found


def error(file: Path, palette: Sequence[Sequence[int]]) -> float:
    """Mean ΔE of the picture to a palette in sRGB."""
    image = Image.open(io.BytesIO(file.read_bytes())).convert("RGB")
    image.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    points, colors = lab(np.asarray(image).reshape(-1, 3)), lab(np.asarray(palette))
    return float(np.sqrt(((points[:, None] - colors) ** 2).sum(axis=2)).min(axis=1).mean())


def errors(files: Sequence[Path], python: Path) -> list[dict[str, Any]]:
    """Ours and OpenCV's, for each picture and each number of colours."""
    counts = ",".join(map(str, COUNTS))
    asked = [python, HERE / "opencv_palette.py", counts, str(SEEDS), *files]
    told = json.loads(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)
    found = []
    for file in files:
        image = decode(file.read_bytes())
        for count in COUNTS:
            ours = [[*bytes.fromhex(color.hex[1:])] for color in dominant_colors(image.small, count)]
            palettes, took = told[str(file)][str(count)]
            theirs = Spread.of([error(file, palette) for palette in palettes])
            assert theirs is not None
            found.append(
                {
                    "file": file.name,
                    "count": count,
                    "ours": error(file, ours),
                    "opencv": [theirs.median, theirs.low, theirs.high],
                    "opencv_ms": statistics.median(took),
                    "colors": list(analyse(image).colors),
                }
            )
    return found


def main() -> None:
    """The command line above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--opencv", type=Path, default=VENVS / "opencv/bin/python")
    given = parser.parse_args()
    files = sorted(
        file for file in given.folder.resolve().iterdir() if file.suffix.lower() in (".jpg", ".png", ".webp")
    )
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    about = machine()
    parts = asyncio.run(split(files, given.rounds, given.repeats))
    palettes = errors(files, given.opencv)
    rows = [[name, *(str(found[part]) for part in PARTS)] for name, found in parts.items()]
    page = [
        f"# Images, {where(about)}\n",
        f"Milliseconds on one core: p50 of {given.repeats}, its median (least-most) over {given.rounds} rounds.\n",
        table(("", *PARTS), sorted(rows)) + "\n",
        "Mean colour error, ΔE; less is better. OpenCV's: median (least-most) of its seeds.\n",
        table(
            ("", "colors", "Maru", "OpenCV", "Maru / OpenCV's median"),
            [
                [
                    row["file"], str(row["count"]), f"{row['ours']:.2f}", str(Spread(*row["opencv"])),
                    f"{row['ours'] / row['opencv'][0]:.3f}",
                ]
                for row in palettes
            ],
        ),
        "",
    ]  # fmt: skip
    result = {
        "machine": about,
        "ms": {name: {part: [s.median, s.low, s.high] for part, s in found.items()} for name, found in parts.items()},
        "errors": palettes,
    }
    write("style_image", result, "\n".join(page))


if __name__ == "__main__":
    main()
