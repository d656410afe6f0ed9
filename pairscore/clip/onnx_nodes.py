"""Builds an ONNX graph node by node, writing its weights to a file beside it as they come."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

CONTRIB = "com.microsoft"
_OPSET = 18
_IR_VERSION = 10
_ALIGNMENT = 4096
_EXTERNAL = 1024

Biases: TypeAlias = Sequence[NDArray[np.float32] | None]


class Graph:
    """Nodes in the order of their making; a name is an edge, as in ONNX.

    Weights of 1 KiB and more are appended to `weights`, so that only one is in memory at a time.
    """

    def __init__(self, weights: BinaryIO, location: str) -> None:
        self._weights = weights
        self._location = location
        self._numbers = itertools.count()
        self._nodes: list[onnx.NodeProto] = []
        self._tensors: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:  # noqa: ANN401  # ONNX's
        """Add a node with one output and give its name."""
        return self.ops(1, kind, *inputs, domain=domain, **attributes)[0]

    def ops(
        self,
        count: int,
        kind: str,
        *inputs: str,
        domain: str = "",
        **attributes: Any,  # noqa: ANN401  # whatever ONNX has
    ) -> list[str]:
        """Add a node with `count` outputs and give their names."""
        number = next(self._numbers)
        outputs = [f"{kind}_{number}_{i}" for i in range(count)]
        node = helper.make_node(
            kind, inputs, outputs, name=f"{kind}_{number}", domain=domain, **attributes
        )
        self._nodes.append(node)
        return outputs

    def weight(self, array: NDArray[Any]) -> str:
        """Add a constant and give its name."""
        array = np.ascontiguousarray(array)
        name = f"weight_{next(self._numbers)}"
        if array.nbytes < _EXTERNAL:
            self._tensors.append(onnx.numpy_helper.from_array(array, name))
            return name
        self._weights.write(b"\0" * (-self._weights.tell() % _ALIGNMENT))
        tensor = TensorProto(
            name=name,
            data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
            dims=array.shape,
            data_location=TensorProto.EXTERNAL,
        )
        place = {
            "location": self._location,
            "offset": str(self._weights.tell()),
            "length": str(array.nbytes),
        }
        for key, value in place.items():
            tensor.external_data.add(key=key, value=value)
        self._weights.write(array.data)
        self._tensors.append(tensor)
        return name

    def integers(self, *values: int) -> str:
        """Add an int64 constant of one dimension and give its name."""
        return self.weight(np.array(values, dtype=np.int64))

    def save(
        self,
        file: Path,
        inputs: Mapping[str, tuple[int, Sequence[str | int]]],
        output: str,
        width: int,
    ) -> None:
        """Write the graph; its one output, float32 [n, width], is called `embeddings`.

        Args:
            file: where the graph goes, in the folder of its weights.
            inputs: element type and shape of each.
            output: the edge to put out.
            width: of an embedding.
        """
        self._nodes.append(helper.make_node("Identity", [output], ["embeddings"]))
        graph = helper.make_graph(
            self._nodes,
            file.stem,
            [helper.make_tensor_value_info(name, *value) for name, value in inputs.items()],
            [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["n", width])],
            self._tensors,
        )
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(CONTRIB, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
        file.write_bytes(model.SerializeToString())


class Linear(Protocol):
    """How `x @ weight + bias` is computed: `x` is [..., inputs], `weight` [inputs, outputs]."""

    def __call__(
        self,
        graph: Graph,
        x: str,
        weights: list[NDArray[np.float32]],
        biases: Biases,
    ) -> list[str]:
        """Apply several layers to the same input; a bias may be None."""
        ...


def float_linear(
    graph: Graph,
    x: str,
    weights: list[NDArray[np.float32]],
    biases: Biases,
) -> list[str]:
    """The layers in fp32."""
    outputs = []
    for weight, bias in zip(weights, biases, strict=True):
        y = graph.op("MatMul", x, graph.weight(weight))
        outputs.append(y if bias is None else graph.op("Add", y, graph.weight(bias)))
    return outputs


class Int8Linear:
    """The layers in int8: weights per output channel, the input as a whole as it comes (uint8).

    `limit` is the greatest weight, 127 or, where the CPU would overflow adding two products in 16
    bits (x86 without VNNI), 63.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def __call__(
        self,
        graph: Graph,
        x: str,
        weights: list[NDArray[np.float32]],
        biases: Biases,
    ) -> list[str]:
        """Quantise `x` once for all the layers."""
        x, scale, zero = graph.ops(3, "DynamicQuantizeLinear", x)
        layers = zip(weights, biases, strict=True)
        return [self.layer(graph, x, scale, zero, weight, bias) for weight, bias in layers]

    def layer(
        self,
        graph: Graph,
        x: str,
        scale: str,
        zero: str,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32] | None,
    ) -> str:
        """One layer of an input that is uint8 already."""
        quantised, scales = self._quantise(weight)
        inputs = [x, graph.weight(quantised), scale, graph.weight(scales), zero]
        if bias is not None:
            inputs += ["", graph.weight(bias)]
        return graph.op("MatMulIntegerToFloat", *inputs, domain=CONTRIB)

    def _quantise(
        self, weight: NDArray[np.float32]
    ) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """Round [inputs, outputs] to int8 with one scale per output."""
        largest = np.abs(weight).max(axis=0)
        scales = np.where(largest > 0, largest / self._limit, 1.0).astype(np.float32)
        return np.rint(weight / scales).astype(np.int8), scales
