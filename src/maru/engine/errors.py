"""What can go wrong on the road. None of these knows HTTP: `maru.http.errors` gives each its status code.

EngineError
├── Refused                 nothing was computed; the same request may be sent again
│   ├── QueueFull             no free place in the waiting line
│   ├── DeadlineUnreachable   the measured rate says the answer would come too late
│   ├── ModelNotReady         the model is still loading, or failed to load and is tried again
│   ├── NoRoom                no memory for the model while every loaded one is in use
│   └── Draining              the server is stopping
├── DeadlineExceeded        the deadline passed while waiting or computing
├── ModelNotFound           no model, version or alias of that name
├── ModelLoadFailed         a load or a swap failed; what was loaded before still serves
├── ModelFailed             the model raised; its message is never shown, as it may hold input
├── OutOfMemory             the model ran out of memory
└── InputError              the model can't take this input; the message is for the caller
    ├── InputTooLong          longer than the model's window, and truncation was refused
    └── TooManyItems          more than may run and wait together
"""

from __future__ import annotations


class EngineError(Exception):
    """Anything the engine itself raises."""


class Refused(EngineError):
    """Nothing was computed. `retry_after_s` is the measured time after which a place should be free."""

    def __init__(self, message: str, retry_after_s: float = 1.0, estimated_wait_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.estimated_wait_s = estimated_wait_s


class QueueFull(Refused):
    """The waiting line has no place for this request."""


class DeadlineUnreachable(Refused):
    """At the measured rate the answer would come after the request's deadline."""


class ModelNotReady(Refused):
    """The model is loading, or its last load failed and is being tried again."""


class NoRoom(Refused):
    """The model does not fit beside the models in use."""


class Draining(Refused):
    """The server is stopping and takes no new work."""


class DeadlineExceeded(EngineError):
    """The request's deadline passed. `stage` says where: 'waiting' or 'computing'."""

    def __init__(self, stage: str) -> None:
        super().__init__(f"deadline exceeded while {stage}")
        self.stage = stage


class ModelNotFound(EngineError):
    """No such model, version or alias."""


class ModelLoadFailed(EngineError):
    """A model could not be loaded."""


class ModelFailed(EngineError):
    """The model raised while computing. The cause is chained and is never shown to a caller."""


class OutOfMemory(EngineError):
    """The model ran out of memory."""


class InputError(EngineError):
    """The input is not one the model takes. The message is written for the caller."""


class InputTooLong(InputError):
    """The input is longer than the model's window and the caller asked not to have it cut."""


class TooManyItems(InputError):
    """The request holds more items than may run and wait together, however idle the model is."""
