"""CLIP's two encoders as ONNX graphs, made from the checkpoint without torch.

What they save: rescaling and normalising are part of the patch embedding's weights; the last layer
computes only the token that is pooled (its keys and values still take all of them); embeddings come
out with length 1. Equal to transformers' CLIPModel but for rounding (Radford et al. 2021,
arXiv:2103.00020).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from pairscore.clip.architecture import Architecture, Tower
from pairscore.clip.onnx_nodes import CONTRIB, Graph, Int8Linear, Linear, float_linear
from pairscore.clip.preprocessing import Preprocessing
from pairscore.clip.weights import Weights

ACTIVATIONS: Final = {
    "quick_gelu": ("QuickGelu", CONTRIB, {"alpha": 1.702}),
    "gelu": ("Gelu", CONTRIB, {}),
    "gelu_new": ("FastGelu", CONTRIB, {}),
    "gelu_pytorch_tanh": ("FastGelu", CONTRIB, {}),
    "relu": ("Relu", "", {}),
}


def write_vision(
    folder: Path,
    weights: Weights,
    architecture: Architecture,
    preprocessing: Preprocessing,
    quantised: Int8Linear | None,
) -> None:
    """Write `vision.onnx`: `pixels` uint8 [n, 3, height, width] to `embeddings` float32 [n, d]."""
    with (folder / "vision.bin").open("wb") as file:
        graph = Graph(file, "vision.bin")
        linear = quantised or float_linear
        builder = _Builder(graph, weights, architecture.vision, "vision_model", linear)
        x = _patches(builder, architecture, preprocessing, quantised)
        x = builder.encoder(builder.norm(x, "pre_layrnorm"), _first_token)
        x = builder.norm(x, "post_layernorm")
        output, width = _project(graph, x, weights.get("visual_projection.weight"))
        size = architecture.image_size
        inputs = {"pixels": (TensorProto.UINT8, ("n", 3, size, size))}
        graph.save(folder / "vision.onnx", inputs, output, width)


def write_text(
    folder: Path, weights: Weights, architecture: Architecture, quantised: Int8Linear | None
) -> None:
    """Write `text.onnx`: `ids` int64 [n, tokens] and `lengths` int32 [n] to `embeddings`.

    A caption's length is the number of its tokens up to and with the one that is pooled; what comes
    after that has no effect.
    """
    with (folder / "text.bin").open("wb") as file:
        graph = Graph(file, "text.bin")
        linear = quantised or float_linear
        builder = _Builder(graph, weights, architecture.text, "text_model", linear)
        tokens = graph.weight(builder.tensor("embeddings.token_embedding.weight"))
        positions = graph.weight(builder.tensor("embeddings.position_embedding.weight"))
        count = graph.op("Shape", "ids", start=1, end=2)
        positions = graph.op("Slice", positions, graph.integers(0), count)
        x = graph.op("Add", graph.op("Gather", tokens, "ids"), positions)
        x = builder.encoder(x, _last_token, lengths="lengths")
        x = builder.norm(x, "final_layer_norm")
        output, width = _project(graph, x, weights.get("text_projection.weight"))
        inputs = {
            "ids": (TensorProto.INT64, ("n", "tokens")),
            "lengths": (TensorProto.INT32, ("n",)),
        }
        graph.save(folder / "text.onnx", inputs, output, width)


@dataclass(frozen=True, slots=True)
class _Builder:
    """A tower's layers, made from the tensors whose names start with `prefix`."""

    graph: Graph
    weights: Weights
    tower: Tower
    prefix: str
    linear: Linear

    def tensor(self, name: str) -> NDArray[np.float32]:
        return self.weights.get(f"{self.prefix}.{name}")

    def norm(self, x: str, name: str) -> str:
        scale = self.graph.weight(self.tensor(f"{name}.weight"))
        bias = self.graph.weight(self.tensor(f"{name}.bias"))
        epsilon = self.tower.epsilon
        return self.graph.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=epsilon)

    def dense(self, x: str, *names: str, bias: bool = True) -> list[str]:
        weights = [self.tensor(f"{name}.weight").T for name in names]
        biases = [self.tensor(f"{name}.bias") if bias else None for name in names]
        return self.linear(self.graph, x, weights, biases)

    def encoder(self, x: str, pool: Callable[[Graph, str], str], lengths: str = "") -> str:
        """All layers on [n, tokens, width]; out comes the pooled token, [n, 1, width]."""
        kind, domain, attributes = ACTIVATIONS[self.tower.activation]
        for number in range(self.tower.layers):
            layer = f"encoder.layers.{number}"
            normed = self.norm(x, f"{layer}.layer_norm1")
            if number < self.tower.layers - 1:
                mixed = self.attention(layer, normed, causal=bool(lengths))
            else:
                x = pool(self.graph, x)
                mixed = self.pooled_attention(layer, normed, pool(self.graph, normed), lengths)
            x = self.graph.op("Add", mixed, x)
            (hidden,) = self.dense(self.norm(x, f"{layer}.layer_norm2"), f"{layer}.mlp.fc1")
            hidden = self.graph.op(kind, hidden, domain=domain, **attributes)
            x = self.graph.op("Add", *self.dense(hidden, f"{layer}.mlp.fc2"), x)
        return x

    def attention(self, layer: str, x: str, *, causal: bool) -> str:
        names = [f"{layer}.self_attn.{letter}_proj" for letter in "qkv"]
        projected = self.dense(x, *names, bias=False)
        return self.heads(layer, projected, unidirectional=int(causal))

    def pooled_attention(self, layer: str, x: str, pooled: str, lengths: str) -> str:
        """Attention of one token to those before it (to all of them where `lengths` is empty)."""
        query, key, value = (f"{layer}.self_attn.{letter}_proj" for letter in "qkv")
        projected = [
            *self.dense(pooled, query, bias=False),
            *self.dense(x, key, value, bias=False),
        ]
        return self.heads(layer, projected, lengths)

    def heads(self, layer: str, projected: list[str], lengths: str = "", **attributes: int) -> str:
        biases = [self.tensor(f"{layer}.self_attn.{letter}_proj.bias") for letter in "qkv"]
        mixed = self.graph.op(
            "MultiHeadAttention",
            *projected,
            self.graph.weight(np.concatenate(biases)),
            *([lengths] if lengths else []),
            domain=CONTRIB,
            num_heads=self.tower.heads,
            **attributes,
        )
        return self.dense(mixed, f"{layer}.self_attn.out_proj")[0]


def _patches(
    builder: _Builder,
    architecture: Architecture,
    preprocessing: Preprocessing,
    quantised: Int8Linear | None,
) -> str:
    """Pixels to [n, 1 + patches, width], the class token first, positions added.

    With s = rescale / std: ((p * rescale - mean) / std) @ w = p @ (s w) - (mean / std) @ w.
    """
    graph, size = builder.graph, architecture.patch_size
    grid, width = architecture.image_size // size, architecture.vision.width
    kernel = builder.tensor("embeddings.patch_embedding.weight").astype(np.float64)
    std = np.asarray(preprocessing.std)[:, None, None]
    mean = np.asarray(preprocessing.mean)[:, None, None]
    weight = (kernel * (preprocessing.rescale / std)).reshape(width, -1).T
    bias = -(kernel * (mean / std)).sum(axis=(1, 2, 3)).astype(np.float32)
    rows, used = "pixels", grid * size
    if used < architecture.image_size:
        # A convolution leaves out what fills no patch.
        start, end = graph.integers(0, 0), graph.integers(used, used)
        rows = graph.op("Slice", rows, start, end, graph.integers(2, 3))
    rows = graph.op("Reshape", rows, graph.integers(0, 3, grid, size, grid, size))
    rows = graph.op("Transpose", rows, perm=[0, 2, 4, 1, 3, 5])
    rows = graph.op("Reshape", rows, graph.integers(0, grid * grid, 3 * size * size))
    if quantised is None:
        rows = graph.op("Cast", rows, to=TensorProto.FLOAT)
        rows = graph.op("MatMul", rows, graph.weight(weight.astype(np.float32)))
    else:
        one, zero = graph.weight(np.array(1, np.float32)), graph.weight(np.array(0, np.uint8))
        rows = quantised.layer(graph, rows, one, zero, weight.astype(np.float32), None)
    positions = builder.tensor("embeddings.position_embedding.weight")
    rows = graph.op("Add", rows, graph.weight(positions[None, 1:] + bias))
    first = builder.tensor("embeddings.class_embedding") + positions[0]
    images = graph.op("Shape", "pixels", start=0, end=1)
    shape = graph.op("Concat", images, graph.integers(1, width), axis=0)
    first = graph.op("Expand", graph.weight(first[None, None]), shape)
    return graph.op("Concat", first, rows, axis=1)


def _project(graph: Graph, x: str, weight: NDArray[np.float32]) -> tuple[str, int]:
    width, inputs = weight.shape
    x = graph.op("Reshape", x, graph.integers(-1, inputs))
    x = graph.op("MatMul", x, graph.weight(weight.T))
    return graph.op("LpNormalization", x, axis=-1, p=2), width


def _first_token(graph: Graph, x: str) -> str:
    return graph.op("Slice", x, graph.integers(0), graph.integers(1), graph.integers(1))


def _last_token(graph: Graph, x: str) -> str:
    last = graph.op("Cast", "lengths", to=TensorProto.INT64)
    last = graph.op("Sub", last, graph.integers(1))
    last = graph.op("Unsqueeze", last, graph.integers(-1))
    return graph.op("Unsqueeze", graph.op("GatherND", x, last, batch_dims=1), graph.integers(1))
