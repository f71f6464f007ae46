"""What is logged, and where all that is logged in this process goes.

Nothing of a request's body, query or headers, and no exception's message, is ever in a line: see
`log_format` for how exceptions are told, and `EventLog` for all that is said of a request.
"""

from __future__ import annotations

import logging
from typing import Literal

from maru.engine.events import Event, LifecycleChanged, ModelChanged, RequestFinished
from maru.telemetry.http_events import HttpEvent, HttpFinished
from maru.telemetry.log_format import Fields, JsonLines, TextLines
from maru.telemetry.log_writer import LogWriter

access = logging.getLogger("maru.access")
log = logging.getLogger("maru.engine")

_CHANGES = {
    "loading": (logging.INFO, "model_loading"),
    "loaded": (logging.INFO, "model_loaded_successfully"),  # the words document 003 has its readers wait for
    "failed": (logging.ERROR, "model_load_failed"),
    "swapped": (logging.INFO, "model_swapped"),
    "evicted": (logging.INFO, "model_evicted"),
    "unloaded": (logging.INFO, "model_unloaded"),
}


def configure(level: str = "INFO", format: Literal["json", "text"] = "json", fd: int = 1) -> LogWriter:
    """Send what anyone in this process logs to `fd`, one line a record, and return the writer, to be closed.

    `level` is for ours and uvicorn's lines; other libraries are heard from WARNING on, since some tell
    what they send and receive below that. uvicorn must be started with `log_config=None`; its access log,
    which has raw paths and queries, is silenced for ours.
    """
    # No line of ours has these, and finding them out costs more than writing it (as Python's logging HOWTO
    # says under "Optimization").
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    writer = LogWriter(fd, lines=JsonLines() if format == "json" else TextLines())
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.addHandler(writer)
    root.setLevel(logging.WARNING)
    for name in ("maru", "uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(level.upper() if name in ("maru", "uvicorn") else logging.NOTSET)
    silenced = logging.getLogger("uvicorn.access")
    silenced.propagate = False
    silenced.setLevel(logging.CRITICAL)
    return writer


class EventLog:
    """A line for each HTTP request, each change of a model or of the server's state, and each failure. With a
    `writer` the lines of requests, which are the most, are given to it at once."""

    def __init__(self, writer: LogWriter | None = None) -> None:
        self._writer = writer

    def http(self, event: HttpEvent) -> None:
        if isinstance(event, HttpFinished):
            level = _level(event.status)
            if not access.isEnabledFor(level):
                return
            if self._writer is not None and event.exception is None:
                self._writer.say(level, "request", _request(event))
            else:
                access.log(level, "request", exc_info=event.exception, extra={"fields": _request(event)})

    def engine(self, event: Event) -> None:
        match event:
            case RequestFinished(request, ref, "failed", _, error):
                fields: Fields = {"request_id": request.id, "model": str(ref) if ref else None}
                log.error("request_failed", exc_info=error, extra={"fields": fields})
            case ModelChanged(ref, change, seconds, memory_bytes, error):
                level, words = _CHANGES[change]
                fields = {"model": str(ref), "seconds": round(seconds, 3), "memory_bytes": memory_bytes}
                log.log(level, words, exc_info=error, extra={"fields": fields})
            case LifecycleChanged(state):
                log.info("lifecycle", extra={"fields": {"state": state}})


def _request(event: HttpFinished) -> Fields:
    timings = event.request.timings if event.request else None
    return {
        "service": event.service,
        "route": event.route,
        "method": event.verb,
        "status": event.status,
        "error": event.error,
        "request_id": event.request_id,
        "trace_id": event.trace_id,
        "principal": event.principal,
        "model": str(event.model) if event.model else None,
        "cache": event.cache,
        "items": event.items,
        "bytes_out": event.bytes_out,
        "queue_ms": _ms(timings.queue_s) if timings else None,
        "batch_ms": _ms(timings.batch_s) if timings else None,
        "compute_ms": _ms(timings.compute_s) if timings else None,
        "total_ms": _ms(event.seconds),
    }


def _level(status: int) -> int:
    if status < 500:
        return logging.INFO
    return logging.ERROR if status == 500 else logging.WARNING


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)
