"""Files of events: Parquet, CSV, OTTO's JSON lines, and RetailRocket's and YOOCHOOSE's own files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from maru.services.recommend.core.events import Int64s
from maru.services.recommend.training import otto, parquet, tables
from maru.services.recommend.training.errors import BadEvents
from maru.services.recommend.training.gathering import PEAK_BYTES, Gathering, Reading
from maru.services.recommend.training.progress import Progress
from maru.services.recommend.training.tables import Block
from maru.services.recommend.training.values import IGNORED, Cells, integers, kinds, milliseconds

BLOCK = 1 << 17
"""Rows that are read at a time."""

Blocks = Callable[[Path, int, Callable[[int], None]], Iterator[Block]]
FORMATS: dict[str, Blocks] = {
    ".parquet": parquet.blocks,
    ".jsonl": otto.blocks,
    ".ndjson": otto.blocks,
    ".csv": tables.blocks,
    ".tsv": tables.blocks,
    ".dat": tables.blocks,
}
NO_EVENTS = ("item_properties", "category_tree", "yoochoose-test")
"""How the names of the files begin that RetailRocket and YOOCHOOSE put beside their events."""
LARGEST_CATEGORY = 2**31 - 1


@dataclass(slots=True)
class _Aside:
    """What the files say beside the events themselves."""

    visitors: bool = False
    sessions: bool = False
    ignored: int = 0
    categories: dict[int, int] = field(default_factory=dict)


def read(path: Path, progress: Progress, memory_bytes: int | None = None, more: Sequence[Path] = ()) -> Reading:
    """The events of a file, or of all files of a folder, and of `more` files, together.

    BadEvents when there are none or one is bad.

    A table's columns are found by their names, whatever their order: session (or visitor), aid, ts, and, where
    there are, type (else all are clicks) and category. Times are Unix seconds, milliseconds or ISO 8601.
    RetailRocket's folder also gives the categories of the items, YOOCHOOSE's both clicks and purchases.

    No more events are kept than a training of them takes `memory_bytes` for, by default half of what the machine
    has; of more than that the newest are used, and the notes say so. Files are read in blocks.
    """
    files = [file for each in (path, *more) for file in _files(each)]
    sizes = [file.stat().st_size for file in files]
    gathering = Gathering(max(1, (memory_bytes or half_the_memory()) // PEAK_BYTES))
    aside = _Aside()
    for number, file in enumerate(files):

        def told(done: int, before: int = sum(sizes[:number])) -> None:
            progress("reading", min(1.0, (before + done) / max(1, sum(sizes))))

        for block in _told(FORMATS[file.suffix.lower()], file, told):
            _take(block, gathering, aside)
    progress("reading", 1.0)
    if aside.visitors and aside.sessions:
        raise BadEvents("one file has sessions and another has visitors: they can't be read together")
    if path.is_dir():
        aside.categories.update(_properties(path, progress))
    found = gathering.finish(visitors=aside.visitors, categories=aside.categories)
    if not len(found.events):
        raise BadEvents(f"{path.name} holds no event")
    if aside.ignored:
        note = f"{aside.ignored:,} events were of kinds that say nothing of what is wanted next, and are left out"
        return Reading(found.events, (*found.notes, note))
    return found


def half_the_memory() -> int:
    """Of this machine, in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        within = sorted(file for file in path.iterdir() if file.suffix.lower() in FORMATS and file.is_file())
        files = [file for file in within if not file.name.startswith(NO_EVENTS)]
        if not files:
            raise BadEvents(f"the folder {path.name} holds no events; they may be {', '.join(FORMATS)}")
        return files
    if not path.is_file():
        raise BadEvents(f"there is no file {path.name}")
    if path.suffix.lower() not in FORMATS:
        raise BadEvents(f"{path.name} is none of {', '.join(FORMATS)}")
    return [path]


def _told(blocks: Blocks, file: Path, told: Callable[[int], None]) -> Iterator[Block]:
    """What a reader gives, its failures in a person's words."""
    try:
        yield from blocks(file, BLOCK, told)
    except OSError as error:
        raise BadEvents(f"{file.name} can't be read: {error.strerror or 'it is damaged'}") from None
    except UnicodeDecodeError:
        raise BadEvents(f"{file.name} is no text in UTF-8") from None


def _take(block: Block, gathering: Gathering, aside: _Aside) -> None:
    aside.visitors |= block.visitors
    aside.sessions |= not block.visitors
    session, aid, ts = integers(block.session), integers(block.aid), milliseconds(block.ts)
    type = kinds(block.type) if isinstance(block.type, Cells) else np.full(len(aid), block.type, np.int8)
    if block.category is not None:
        _note_categories(aside.categories, aid, block.category)
    kept = type != IGNORED
    aside.ignored += int((~kept).sum())
    gathering.add(session[kept], aid[kept], ts[kept], type[kept])


def _note_categories(categories: dict[int, int], aid: Int64s, cells: Cells) -> None:
    """The last row of an item says its category; an empty cell says nothing."""
    told = [place for place, value in enumerate(cells.values) if value is not None and value != ""]
    known = Cells(cells.file, cells.column, [cells.values[at] for at in told], [cells.rows[at] for at in told])
    category = integers(known)
    bad = (category < 0) | (category > LARGEST_CATEGORY)
    if bad.any():
        known.wrong(int(np.argmax(bad)), f"is not from 0 to {LARGEST_CATEGORY}")
    categories.update(zip(aid[told].tolist(), category.tolist(), strict=True))


def _properties(folder: Path, progress: Progress) -> dict[int, int]:
    """The categories in RetailRocket's `item_properties` files. They change over time; the latest counts."""
    newest: dict[int, tuple[int, int]] = {}
    for file in sorted(folder.glob("item_properties*.csv")):
        size = max(1, file.stat().st_size)

        def told(done: int, size: int = size) -> None:
            progress("reading categories", min(1.0, done / size))

        for item, when, category in tables.item_categories(file, BLOCK, told):
            if item not in newest or newest[item][0] <= when:
                newest[item] = (when, category)
    return {item: category for item, (_, category) in newest.items() if 0 <= category <= LARGEST_CATEGORY}
