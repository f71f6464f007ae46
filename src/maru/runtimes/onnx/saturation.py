"""Whether this processor's 8-bit products are exact.

x86 processors without VNNI add two products of an unsigned and a signed byte in 16 bits, which saturate.
onnxruntime has slower kernels that do not, and a switch for them, `session.x64quantprecision`; but the switch
takes the exact and fast kernels from processors with VNNI too. So it is found out which kind this one is.
"""

from __future__ import annotations

import io

import numpy as np
import onnxruntime as ort
from onnx import TensorProto

from maru.runtimes.onnx.graph import MICROSOFT, Graph

INNER, OUTER = 32, 16


def products_saturate(options: ort.SessionOptions) -> bool:
    """Multiplies the largest values there are, and looks at the sums."""
    graph = Graph(io.BytesIO(), "")
    rows = graph.input("rows", TensorProto.UINT8, "n", "k")
    largest = graph.constant(np.full((INNER, OUTER), 127, np.int8))
    one, scales = graph.constant(1, np.float32), graph.constant(np.ones(OUTER), np.float32)
    zero = graph.constant(0, np.uint8)
    sums = graph.op("MatMulIntegerToFloat", rows, largest, one, scales, zero, domain=MICROSOFT)
    graph.output("sums", sums, "n", OUTER)
    session = ort.InferenceSession(graph.model().SerializeToString(), options)
    (found,) = session.run(None, {"rows": np.full((4, INNER), 255, np.uint8)})
    return bool((found != 255.0 * 127 * INNER).any())
