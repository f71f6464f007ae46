"""Who is measured, how each is started, and in whose words it is asked. The files here are what they run.

Every contender has its own virtual environment, `bench/.venvs/NAME`, made by `python -m bench.prepare` from
the requirements file of that name; Maru runs in the environment that runs the benchmarks.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.procs import Server

HERE = Path(__file__).resolve().parent
BENCH = HERE.parent
CACHE = BENCH / ".cache"
VENVS = BENCH / ".venvs"
MODELS = CACHE / "models"
MODEL = MODELS / "minilm"

_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "BENTOML_DO_NOT_TRACK": "True",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@dataclass(frozen=True, slots=True)
class Contender:
    """One server with one configuration.

    `command` is given the venv's bin folder and the port. `body` turns what is asked (a text, a list of
    texts, a window) into the request this server takes. `pausable` servers bear being stopped (SIGSTOP)
    between their turns; the others are started anew for each.
    """

    name: str
    title: str
    venv: str
    command: Callable[[Path, int], Sequence[str]]
    path: str
    body: Callable[[object], object]
    settings: str
    env: Mapping[str, str] = field(default_factory=dict)
    headers: Callable[[], Mapping[str, str]] = dict
    ready: str = "/health"
    precision: str = "fp32"
    packages: tuple[str, ...] = ()
    pausable: bool = True

    @property
    def bin(self) -> Path:
        """The folder of this contender's interpreter."""
        return Path(sys.executable).parent if self.venv == "maru" else VENVS / self.venv / "bin"

    @property
    def prepared(self) -> bool:
        """Whether its virtual environment is there."""
        return (self.bin / "python").exists()

    def server(self) -> Server:
        """A server of this contender, not yet started."""
        env = {**_OFFLINE, "PATH": f"{self.bin}:/usr/local/bin:/usr/bin:/bin", **self.env}
        cwd = HERE
        if self.venv == "maru":  # away from any .env of the person who runs this
            env["PYTHONPATH"], cwd = str(BENCH.parent), CACHE
        return Server(self.name, lambda port: self.command(self.bin, port), env, self.ready, CACHE / "logs", cwd)

    def versions(self) -> dict[str, str]:
        """The installed versions of the packages that matter."""
        code = "import importlib.metadata as m, json, sys;print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
        answer = subprocess.run(
            [self.bin / "python", "-c", code, *self.packages], capture_output=True, text=True, check=True
        )
        found: dict[str, str] = json.loads(answer.stdout)
        return found
