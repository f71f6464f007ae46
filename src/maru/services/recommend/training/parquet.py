"""Tables of events in Parquet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from maru.services.recommend.training.errors import BadEvents
from maru.services.recommend.training.tables import Block, Layout, named


def blocks(file: Path, size: int, told: Callable[[int], None]) -> Iterator[Block]:
    """`size` rows at a time. `told` hears how many bytes are done, in proportion to the rows."""
    import polars as pl
    from polars.exceptions import PolarsError

    try:
        table = pl.scan_parquet(file, glob=False)
        layout = named(file.name, table.collect_schema().names())
        wanted = [layout.names[place] for place in layout.places.values()]
        layout = Layout(wanted, {what: place for place, what in enumerate(layout.places)})
        table = table.select(wanted)
        count = int(table.select(pl.len()).collect().item())
        weight = file.stat().st_size
        for start in range(0, count, size):
            part = table.slice(start, size).collect()
            rows = range(start + 1, start + 1 + len(part))
            yield layout.block(file.name, [_values(part[name]) for name in wanted], rows)
            told(weight * (start + len(part)) // count)
    except PolarsError:
        raise BadEvents(f"{file.name} is no Parquet file, or is damaged") from None


def _values(series: Any) -> Sequence[Any]:
    """As numbers where they are numbers, moments in milliseconds, else as objects."""
    import polars as pl

    if series.dtype == pl.Datetime or series.dtype == pl.Date:
        series = series.cast(pl.Datetime("ms")).dt.timestamp("ms")
    if series.null_count() == 0 and series.dtype.is_integer():
        return series.to_numpy()  # type: ignore[no-any-return]
    return series.to_list()  # type: ignore[no-any-return]
