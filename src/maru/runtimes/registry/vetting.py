"""What a model from a registry may be. Its files are not trusted: nothing in them is run to find out."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

from maru.runtimes.errors import BadModelFile, UnsupportedModel
from maru.runtimes.registry.types import Bounds

if TYPE_CHECKING:
    import onnx

MANIFEST = "MLmodel"
MAX_MANIFEST_BYTES = 128 * 1024
ONNX_LOADER = "mlflow.onnx"
NESTING = (b"[", b"{", b"- ", b"-\t", b"-\n", b"-\r", b"? ", b"?\t", b"?\n", b"?\r")
"""What begins one more level within a line. By indentation, no file that is taken nests deeper than 500 levels."""
MOST_NESTED = 1000
FAST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a graph. A size of None is any; `kind` is one of onnx's element types."""

    name: str
    kind: int
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """An ONNX graph whose every byte is in the model's folder. `digest` is of all that it is computed from."""

    path: Path
    digest: str
    memory_bytes: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class Manifest:
    """A model's folder, and what the `MLmodel` in it says. `metadata` is its author's: check what is taken of it."""

    def __init__(self, root: Path, files: Mapping[str, Path], fields: Mapping[str, Any]) -> None:
        self.root = root
        self._files = files
        self._flavors = _object(fields.get("flavors"))
        self.metadata = _object(fields.get("metadata"))

    @classmethod
    def read(cls, root: Path, bounds: Bounds | None = None) -> Manifest:
        """BadModelFile for a folder with links or devices in it, over the bounds, or without a sound `MLmodel`."""
        files = dict(_plain_files(root, bounds or Bounds()))
        if MANIFEST not in files:
            raise BadModelFile(f"the model has no {MANIFEST}")
        if files[MANIFEST].stat().st_size > MAX_MANIFEST_BYTES:
            raise BadModelFile(f"{MANIFEST} is too large")
        try:
            fields = _fields(files[MANIFEST].read_bytes())
        except (yaml.YAMLError, ValueError, RecursionError, TypeError, OverflowError):
            raise BadModelFile(f"{MANIFEST} is not what MLflow writes") from None
        return cls(root, files, _object(fields))

    @property
    def loader(self) -> str:
        """The module that MLflow would load the model with."""
        loader = _object(self._flavors.get("python_function")).get("loader_module")
        return loader if isinstance(loader, str) else ""

    def digest(self) -> str:
        """Of every file and its name."""
        return _digest(self._files.items())

    def memory_bytes(self) -> int:
        return sum(file.stat().st_size for file in self._files.values())

    def graph(self, checksum: str | None = None) -> Graph:
        """The model's graph, if it is one that was logged with `mlflow.onnx` and brings no code.

        UnsupportedModel for other kinds of model. BadModelFile for a graph that is damaged, that is not the one
        of that `checksum` (SHA-256), or that wants data from outside of the folder.
        """
        function, onnx_flavor = _object(self._flavors.get("python_function")), _object(self._flavors.get("onnx"))
        if self.loader != ONNX_LOADER or not onnx_flavor:
            raise UnsupportedModel(f"the model is not one that was logged with {ONNX_LOADER}")
        if function.get("code") or onnx_flavor.get("code"):
            raise UnsupportedModel("the model brings code of its own, which is not run")
        if function.get("data") != onnx_flavor.get("data"):
            raise BadModelFile(f"{MANIFEST} names two graphs")
        path = self._file(onnx_flavor.get("data"))
        if checksum is not None and _sha256(path) != checksum:
            raise BadModelFile(f"{path.name} does not match its checksum: it is damaged, or was changed")
        proto = _parsed(path)
        external = {self._beside(path, location) for location in _external(proto)}
        return Graph(
            path,
            _digest((file.relative_to(self.root).as_posix(), file) for file in {path, *external})
            if external
            else _sha256(path),
            2 * sum(file.stat().st_size for file in {path, *external}),
            _tensors(proto, inputs=True),
            _tensors(proto, inputs=False),
        )

    def _file(self, name: Any) -> Path:
        if not isinstance(name, str) or name not in self._files:
            raise BadModelFile(f"{MANIFEST} names a file that the model does not have")
        return self._files[name]

    def _beside(self, path: Path, location: str) -> Path:
        """A file that a graph names. Only what is in its folder, under its plain name, is its own."""
        folder = PurePosixPath(path.relative_to(self.root).as_posix()).parent
        file = self._files.get(str(folder / location))
        if file is None or ".." in PurePosixPath(location).parts or location.startswith("/"):
            raise BadModelFile(f"{path.name} wants data from a file that the model does not have")
        return file


def _fields(text: bytes) -> Any:
    """What is written in YAML. By libyaml, which is ten times as fast as Python, where it can't nest deep: some
    thousand levels crash it."""
    nests = sum(map(text.count, NESTING)) < MOST_NESTED and b"\0" not in text
    return yaml.load(text, FAST if nests else yaml.SafeLoader)  # noqa: S506


def _plain_files(root: Path, bounds: Bounds) -> Iterator[tuple[str, Path]]:
    size = count = 0
    for path in root.rglob("*"):
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode):
            continue
        if not stat.S_ISREG(status.st_mode):
            raise BadModelFile("the model holds a link or a device among its files")
        size, count = size + status.st_size, count + 1
        if size > bounds.max_bytes or count > bounds.max_files:
            raise BadModelFile("the model is larger than is taken")
        yield path.relative_to(root).as_posix(), path


def _parsed(path: Path) -> onnx.ModelProto:
    import onnx

    try:
        return onnx.load_model(path, "protobuf", load_external_data=False)
    except Exception as error:  # protobuf's own, which has no public name
        raise BadModelFile(f"{path.name} is damaged, or no ONNX graph") from error


def _external(proto: onnx.ModelProto) -> Iterator[str]:
    """Where the tensors are that are not in the graph's own file."""
    import onnx

    waiting: list[Any] = [proto]
    while waiting:
        message = waiting.pop()
        if isinstance(message, onnx.TensorProto):
            if message.data_location == onnx.TensorProto.EXTERNAL or message.external_data:
                yield from (entry.value for entry in message.external_data if entry.key == "location")
            continue
        for field, value in message.ListFields():
            if field.message_type is not None:
                waiting.extend(value if field.is_repeated else [value])


def _tensors(proto: onnx.ModelProto, *, inputs: bool) -> tuple[Tensor, ...]:
    stored = {tensor.name for tensor in proto.graph.initializer}
    infos = proto.graph.input if inputs else proto.graph.output
    return tuple(
        Tensor(
            info.name,
            info.type.tensor_type.elem_type,
            tuple(size.dim_value if size.HasField("dim_value") else None for size in info.type.tensor_type.shape.dim),
        )
        for info in infos
        if info.name not in stored
    )


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _digest(files: Iterable[tuple[str, Path]]) -> str:
    lines = sorted(f"{_sha256(path)} {name}\n" for name, path in files)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
