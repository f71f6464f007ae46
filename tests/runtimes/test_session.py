from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from maru.runtimes.encoder_folder import EncoderFolder
from maru.runtimes.errors import BadModelFile
from maru.runtimes.onnx.graph import MICROSOFT, Graph
from maru.runtimes.onnx.saturation import products_saturate
from maru.runtimes.onnx.session import Session, session_options
from maru.runtimes.sentence_encoder import Encoder

from .small_encoder import small_encoder


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"not a graph", b"\x80\x04pickle"])
def test_a_file_that_is_no_graph(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(BadModelFile, match=r"model\.onnx"):
        Session(path)


def test_8_bit_products_are_exact_on_this_processor(tmp_path: Path) -> None:
    """The largest values there are: on x86 without VNNI the fast kernels would saturate."""
    with (tmp_path / "model.bin").open("wb") as data:
        graph = Graph(data, "model.bin")
        rows = graph.input("rows", TensorProto.UINT8, "n", "k")
        matrix = np.full((384, 64), 127, np.int8)
        matrix[:, ::2] = -127
        one, scales = graph.constant(1, np.float32), graph.constant(np.ones(64), np.float32)
        zero = graph.constant(0, np.uint8)
        sums = graph.op("MatMulIntegerToFloat", rows, graph.constant(matrix), one, scales, zero, domain=MICROSOFT)
        graph.output("sums", sums, "n", 64)
    (tmp_path / "model.onnx").write_bytes(graph.model().SerializeToString())
    session = Session(tmp_path / "model.onnx", int8=True)
    for count in (1, 2, 7, 64):
        (found,) = session.run({"rows": np.full((count, 384), 255, np.uint8)})
        np.testing.assert_array_equal(found, np.tile([-1, 1], (count, 32)) * (255.0 * 127 * 384))


def test_the_exact_kernels_are_asked_for_only_where_they_are_needed() -> None:
    options = session_options()
    options.add_session_config_entry("session.x64quantprecision", "1")
    assert not products_saturate(options)


OUT_OF_MEMORY = """
import resource, sys
from pathlib import Path
from maru.engine.errors import OutOfMemory
from maru.runtimes.encoder_folder import EncoderFolder
from maru.runtimes.sentence_encoder import Encoder
encoder = Encoder(EncoderFolder.read(Path(sys.argv[1])), "fp32", Path(sys.argv[2]))
small, large = [[2, 5, 3]], [[2, *[5] * 3000, 3]]
encoder.encode(small)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
try:
    encoder.encode(large)
except OutOfMemory as error:
    encoder.encode(small)
    print("refused, and works on:", error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits its own address space through /proc")
def test_too_little_memory_is_out_of_memory_and_not_the_end(tmp_path: Path) -> None:
    wide = small_encoder(tmp_path / "wide", positions=4096, transformer={"max_seq_length": 4096})
    made = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY, str(wide), str(tmp_path / "cache")],
        capture_output=True,
        text=True,
    )
    assert made.stdout.startswith("refused, and works on:"), made.stderr


def test_what_the_encoder_holds(small: Path, tmp_path: Path) -> None:
    """Its weights, as they are at run time: an int8 one takes a fourth, a matrix in 16 bits is widened."""
    sizes = {
        precision: Encoder(EncoderFolder.read(small), precision, tmp_path / "cache").memory_bytes
        for precision in ("fp32", "fp16", "int8")
    }
    weights = (small / "model.safetensors").stat().st_size
    assert 0.7 * weights < sizes["fp32"] < 1.05 * weights
    assert sizes["int8"] < sizes["fp16"] < sizes["fp32"]
