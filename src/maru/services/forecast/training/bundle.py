"""A trained forecaster as files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import maru
from maru.runtimes.registry.publish import publish
from maru.runtimes.registry.types import RegisteredVersion

MODEL, METADATA, REPORT = "model.onnx", "metadata.json", "report.md"


class BadBundle(Exception):
    """The folder holds no whole bundle. The message names the file, never its folder."""


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """The graph, and what to say about it.

    `metadata` is what a caller must know to make a window and what says where the model came from; `metrics`
    were measured on the holdout and the folds before; `params` are the options of the training.
    """

    onnx: bytes
    metadata: dict[str, Any]
    metrics: dict[str, float]
    params: dict[str, str | int | float]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.onnx).hexdigest()

    def write(self, folder: Path, report: str = "") -> None:
        """`model.onnx`, `metadata.json` and, for people, `report.md`; what is there is replaced."""
        folder.mkdir(parents=True, exist_ok=True)
        described = {
            "model_sha256": self.sha256,
            "metadata": self.metadata,
            "metrics": self.metrics,
            "params": self.params,
        }
        (folder / MODEL).write_bytes(self.onnx)
        (folder / METADATA).write_text(json.dumps(described, indent=2, ensure_ascii=False) + "\n", "utf-8")
        (folder / REPORT).write_text(report, "utf-8")

    def register(self, registry: str | Path, name: str, alias: str | None) -> RegisteredVersion:
        """Make it the next version of `name` in the registry (a folder, or an MLflow URI), and point `alias` at it.
        Blocks for some seconds. RegistryError."""
        return publish(
            registry,
            name,
            self.onnx,
            seq_len=self.metadata["seq_len"],
            n_features=self.metadata["n_features"],
            metadata=self.metadata,
            params=self.params,
            metrics=self.metrics,
            experiment=name,
            alias=alias,
        )

    @classmethod
    def read(cls, folder: Path) -> Bundle:
        """BadBundle when a file is missing or the graph is not the one that was described."""
        try:
            content = (folder / MODEL).read_bytes()
            described = json.loads((folder / METADATA).read_text("utf-8"))
            bundle = cls(content, described["metadata"], described["metrics"], described["params"])
            whole = bundle.sha256 == described["model_sha256"]
        except OSError as error:
            raise BadBundle(f"{Path(error.filename or MODEL).name} can't be read") from None
        except (ValueError, KeyError, TypeError):
            raise BadBundle(f"{METADATA} describes no forecaster") from None
        if not whole:
            raise BadBundle(f"{MODEL} is not the graph that {METADATA} describes")
        return bundle


def starter() -> Path | None:
    """The folder of the bundle that comes with Maru: in the installed package, or in the checkout around it."""
    package = Path(maru.__file__).parent
    places = (package / "starters" / "btc", package.parents[1] / "starters" / "btc")
    return next((place for place in places if (place / METADATA).is_file()), None)
