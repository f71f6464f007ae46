"""Building one ONNX graph, node by node."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
from onnx import GraphProto, ModelProto, StringStringEntryProto, TensorProto, helper, numpy_helper

MICROSOFT = "com.microsoft"
"""The domain of onnxruntime's own operators."""

EXTERNAL_BYTES = 1024
"""Larger constants are stored beside the graph."""

ALIGNMENT = 64


class Graph:
    """A graph under construction. Values are known by their names.

    Larger constants go straight to `data`, the file called `location` beside the graph, so that a model need
    never be in memory whole, and a session maps them instead of reading them.
    """

    def __init__(self, data: BinaryIO, location: str) -> None:
        self._graph = GraphProto(name="maru")
        self._data = data
        self._location = location
        self._offset = 0
        self._small: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._count = 0
        self.resident_bytes = 0
        """What the constants take in a session's memory."""

    def input(self, name: str, dtype: int, *shape: str) -> str:
        """Declare an input; `shape` names its dimensions."""
        self._graph.input.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, name: str, value: str, *shape: str | int) -> None:
        """Declare a float32 output that is `value`."""
        self._graph.node.append(helper.make_node("Identity", [value], [name]))
        self._graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def constant(self, array: Any, dtype: Any = None) -> str:
        """A constant value. Equal small ones are stored once."""
        array = np.ascontiguousarray(array, dtype).reshape(np.shape(array))
        self.resident_bytes += array.nbytes
        if array.nbytes > EXTERNAL_BYTES:
            return self._external(array)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._small:
            self._small[key] = self._name()
            self._graph.initializer.append(numpy_helper.from_array(array, self._small[key]))
        return self._small[key]

    def ints(self, *values: int) -> str:
        """A constant vector of int64, as shapes and axes are given."""
        return self.constant(values, np.int64)

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output, which is returned. An input left out is ''."""
        return self.ops(kind, 1, *inputs, domain=domain, **attributes)[0]

    def ops(self, kind: str, outputs: int, *inputs: str, domain: str = "", **attributes: Any) -> list[str]:
        """Add a node with several outputs."""
        names = [self._name() for _ in range(outputs)]
        self._graph.node.append(helper.make_node(kind, inputs, names, domain=domain, **attributes))
        return names

    def model(self, **metadata: object) -> ModelProto:
        """The finished model; what `metadata` says can be read from a session."""
        versions = [helper.make_opsetid("", 21), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(self._graph, opset_imports=versions, ir_version=10, producer_name="maru")
        helper.set_model_props(model, {key: str(value) for key, value in metadata.items()})
        return model

    def _external(self, array: np.ndarray[Any, Any]) -> str:
        self._offset += self._data.write(b"\0" * (-self._offset % ALIGNMENT))
        place = {"location": self._location, "offset": str(self._offset), "length": str(array.nbytes)}
        self._offset += self._data.write(array.reshape(-1).view(np.uint8).data)
        name = self._name()
        self._graph.initializer.append(
            TensorProto(
                name=name,
                dims=array.shape,
                data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
                data_location=TensorProto.EXTERNAL,
                external_data=[StringStringEntryProto(key=key, value=value) for key, value in place.items()],
            )
        )
        return name

    def _name(self) -> str:
        self._count += 1
        return f"v{self._count}"
