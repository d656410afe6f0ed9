"""Bicubic resizing of a window of one axis, for images so long that most of it is cropped away.

A 1x20000 image resized to a shortest edge of 224 has 4.5 million rows, of which the centre crop
keeps 224. The arithmetic here is that of torch's antialiased uint8 kernel, bit for bit, on the rows
wanted: weights in double precision, rounded to 16-bit integers with the greatest precision that the
largest of them allows (pytorch, aten/src/ATen/native/cpu/UpSampleKernel.cpp,
`_compute_index_ranges_int16_weights`; the scheme is Pillow-SIMD's; the filter is Keys 1981 with a =
-0.5).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_RADIUS = 2.0
_INT16_LIMIT = 1 << 15
_MAX_PRECISION = 22
# When enlarging, the kernels that an end cuts are those of the outputs that lie within this many
# inputs of it.
_EDGE_INPUTS = 3


@dataclass(frozen=True, slots=True)
class Window:
    """Some neighbouring outputs of a resized axis, and the inputs that they are made from.

    `inputs` are the positions they need; output i is the sum of `weights[i]` (int32 [outputs,
    taps], with `precision` fractional bits) times the inputs from `starts[i]`, counted from the
    first one needed.
    """

    inputs: slice
    starts: NDArray[np.int64]
    weights: NDArray[np.int32]
    precision: int

    @classmethod
    def of(cls, length: int, size: int, first: int, count: int) -> "Window":
        """Find `count` outputs from `first` on of an axis resized from `length` to `size`."""
        start, used, values = _kernels(np.arange(first, first + count), length, size)
        largest = max(float(values.max()), _largest_weight(length, size))
        precision = _precision(largest)
        scaled = values * (1 << precision)
        weights = np.where(scaled < 0, scaled - 0.5, scaled + 0.5).astype(np.int32)
        low, high = int(start[0]), int((start + used).max())
        return cls(slice(low, high), start - low, weights, precision)

    def resize(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize the needed inputs, uint8 [inputs, ...], to uint8 [outputs, ...]."""
        resized = np.empty((len(self.starts), *pixels.shape[1:]), dtype=np.uint8)
        half = 1 << self.precision >> 1
        for row, (start, weights) in enumerate(zip(self.starts, self.weights, strict=True)):
            source = pixels[start : start + len(weights)].astype(np.int32)
            total = np.tensordot(weights[: len(source)], source, axes=1)
            resized[row] = np.clip(total + half >> self.precision, 0, 255)
        return resized


def _kernels(
    outputs: NDArray[np.int64], length: int, size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Compute each output's first input, count of inputs, and weights (float64 [outputs, taps])."""
    scale = length / size
    stretch = max(scale, 1.0)
    support = _RADIUS * stretch
    taps = int(np.ceil(support)) * 2 + 1
    centre = scale * (outputs + 0.5)
    # Casting truncates toward zero, as the kernel's casts do.
    start = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    used = np.clip(np.minimum((centre + support + 0.5).astype(np.int64), length) - start, 0, taps)
    tap = np.arange(taps)
    distance = (tap + start[:, None] - centre[:, None] + 0.5) * (1.0 / stretch)
    values = np.where(tap < used[:, None], _bicubic(distance), 0.0)
    # The kernel sums from left to right; numpy's pairwise sum would round differently.
    values /= np.cumsum(values, axis=1)[:, -1:]
    return start, used, values


def _bicubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    x = np.abs(distance)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((x - 5.0) * x + 8.0) * x - 4.0
    return np.where(x < 1.0, near, np.where(x < 2.0, -0.5 * far, 0.0))


def _largest_weight(length: int, size: int) -> float:
    """Find the largest weight of any output, which sets the precision of all.

    When enlarging, whole kernels sum to 1 and weigh no input more than 1, while the first output,
    whose kernel is cut, weighs its nearest input by 1 or more: the ends are all that needs looking
    at, however many outputs there are. When shrinking there are fewer outputs than inputs, so all
    are looked at.
    """
    if length >= size:
        return float(_kernels(np.arange(size), length, size)[2].max())
    edge = min(size, -(-size // length) * _EDGE_INPUTS)
    ends = np.unique(np.concatenate([np.arange(edge), np.arange(size - edge, size)]))
    return float(_kernels(ends, length, size)[2].max())


def _precision(largest: float) -> int:
    for precision in range(_MAX_PRECISION):
        if int(0.5 + largest * (1 << precision + 1)) >= _INT16_LIMIT:
            return precision
    return _MAX_PRECISION
