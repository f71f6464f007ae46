"""The other side of `pickled`: a script for any Python that has MLflow. It imports nothing of Maru.

    python -I pickled_child.py FOLDER SEQ_LEN N_FEATURES

Both ways messages are a length of 4 bytes and as many bytes. First comes `R` when the model is loaded, or `L` and
why it could not be. Then each window, little-endian float32, is answered by `Y` and a float64, or by `E` and the
kind of error that the model raised.
"""

import os
import struct
import sys
import threading
import time
from typing import Any, BinaryIO

LENGTH = struct.Struct("<I")


def send(pipe: BinaryIO, kind: bytes, content: bytes = b"") -> None:
    pipe.write(LENGTH.pack(1 + len(content)) + kind + content)
    pipe.flush()


def receive(pipe: BinaryIO) -> bytes | None:
    head = pipe.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    return pipe.read(LENGTH.unpack(head)[0])


def pipes() -> tuple[BinaryIO, BinaryIO]:
    """The way in and the way out, which nothing that the model prints can get into."""
    way_in, way_out = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    return os.fdopen(way_in, "rb"), os.fdopen(way_out, "wb")


def leave_with(parent: int) -> None:
    """End with the process that started this one, also while the model hangs."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def reason(error: BaseException) -> bytes:
    """What may be said of an error: its text may hold what a person sent."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"it needs the package {error.name}".encode()
    return type(error).__name__.encode()


class Asked:
    """A window in the form that the model's signature asks for: a table, or an array of [1, T, F] or [T, F]."""

    def __init__(self, schema: Any, seq_len: int, n_features: int) -> None:
        import numpy as np

        self._np = np
        self._shape: tuple[int, ...] = (1, seq_len, n_features)
        self._dtype = np.dtype("float32")
        self._columns: list[Any] | None = None
        self._name: str | None = None
        if schema is None:
            return
        if not schema.is_tensor_spec():
            names = schema.input_names()
            self._columns = names if len(names) == n_features else list(range(n_features))
            return
        (tensor,) = schema.inputs
        self._dtype, self._name = tensor.type, tensor.name
        if len(tensor.shape) == 2:
            self._shape = (seq_len, n_features)

    def __call__(self, window: bytes) -> Any:
        values = self._np.frombuffer(window, "<f4")
        if self._columns is not None:
            import pandas  # type: ignore[import-untyped]

            return pandas.DataFrame(values.reshape(self._shape[-2:]).astype("float64"), columns=self._columns)
        array = values.reshape(self._shape).astype(self._dtype)
        return array if self._name is None else {self._name: array}


def answer(output: Any) -> float:
    """The one number in whatever a model gives back."""
    import numpy as np

    if isinstance(output, dict):
        (output,) = output.values()
    values = np.asarray(output, np.float64).reshape(-1)
    if values.size != 1:
        raise ValueError("not one number")
    return float(values[0])


def main(folder: str, seq_len: int, n_features: int) -> None:
    threading.Thread(target=leave_with, args=(os.getppid(),), daemon=True).start()
    way_in, way_out = pipes()
    try:
        import mlflow.pyfunc

        model = mlflow.pyfunc.load_model(folder)
        asked = Asked(model.metadata.get_input_schema(), seq_len, n_features)
    except BaseException as error:
        return send(way_out, b"L", reason(error))
    send(way_out, b"R")
    while (window := receive(way_in)) is not None:
        try:
            content = struct.pack("<d", answer(model.predict(asked(window))))
        except BaseException as error:
            send(way_out, b"E", reason(error))
        else:
            send(way_out, b"Y", content)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
