"""Resize and crop as the model's own Hugging Face processor does, bit for bit.

That processor (`CLIPImageProcessor` in transformers 5) resizes with torchvision, hence with torch's
antialiased bicubic kernel for uint8. Pillow's kernel differs by up to 2 levels in some 2 % of the
values, and takes seven times as long.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from pairscore.image.windowed import Window
from pairscore.threads import use_one_core

# Above this many times the crop, the long axis is resized only where the crop looks.
_LONG = 16

# Builds of torch whose kernel for uint8 runs in the calling thread.
_SINGLE_CORE = frozenset({"AVX2", "AVX512"})


@dataclass(frozen=True, slots=True)
class Preprocessor:
    """The steps before rescaling and normalising, which are the encoder's first layer.

    `resize` is the length in pixels that the shortest edge gets, `crop` the (height, width) that is
    cut from the centre; what the image lacks is filled with black.
    """

    resize: int
    crop: tuple[int, int]

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize and crop.

        Args:
            pixels: uint8 [height, width, 3], RGB, of any size from 1x1.

        Returns:
            uint8 [3, crop height, crop width], contiguous.
        """
        height, width = self._resized(*pixels.shape[:2])
        if max(height, width) > _LONG * max(self.resize, *self.crop):
            return self._crop(self._resize_long(pixels, height, width))
        return self._crop(_resize(pixels, height, width))

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        # The order of operations matters: transformers' get_resize_output_image_size multiplies
        # first.
        if width <= height:
            return int(self.resize * height / width), self.resize
        return self.resize, int(self.resize * width / height)

    def _resize_long(self, pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
        """Resize to `height` x `width`, keeping only the long axis's centre.

        Torch's kernel resizes the width first and rounds to uint8 before the height; so does this.
        """
        crop_height, crop_width = self.crop
        if width > height:
            window = Window.of(pixels.shape[1], width, _centre(width, crop_width), crop_width)
            columns = window.resize(pixels[:, window.inputs].swapaxes(0, 1))
            return _resize(columns.swapaxes(0, 1), height, crop_width)
        window = Window.of(pixels.shape[0], height, _centre(height, crop_height), crop_height)
        part = pixels[window.inputs]
        planes = _resize(part, part.shape[0], width)
        return window.resize(planes.swapaxes(0, 1)).swapaxes(0, 1)

    def _crop(self, planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Cut or pad `planes`, uint8 [3, height, width], to the crop."""
        (height, width), (crop_height, crop_width) = planes.shape[1:], self.crop
        if height < crop_height or width < crop_width:
            down, right = max(crop_height - height, 0), max(crop_width - width, 0)
            margins = ((0, 0), (down // 2, down - down // 2), (right // 2, right - right // 2))
            planes = np.pad(planes, margins)
            height, width = planes.shape[1:]
        top, left = _centre(height, crop_height), _centre(width, crop_width)
        return np.ascontiguousarray(planes[:, top : top + crop_height, left : left + crop_width])


def configure_thread() -> None:
    """Keep torch to one core in the calling thread and no other; call it once per decoding thread.

    On x86 torch's kernel for uint8 uses one core anyway, and nothing is done. Elsewhere it starts a
    team of threads per caller.
    """
    if torch.backends.cpu.get_cpu_capability() not in _SINGLE_CORE:
        use_one_core()


def _resize(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize uint8 [h, w, 3] to uint8 [3, height, width]."""
    old_height, old_width, channels = pixels.shape
    if (old_height, old_width) == (height, width):
        return pixels.transpose(2, 0, 1)
    # Torch refuses to take read-only memory without a warning.
    pixels = np.require(pixels, requirements=("C", "W"))
    # The stride of the batch axis, which has no meaning for one image, is what tells torch that
    # this is channels-last, and so to keep its result that way instead of rearranging it first.
    strides = (pixels.size, 1, old_width * channels, channels)
    image = torch.from_numpy(pixels).as_strided((1, channels, old_height, old_width), strides)
    resized = interpolate(image, size=(height, width), mode="bicubic", antialias=True)
    planes: NDArray[np.uint8] = resized[0].numpy()
    return planes


def _centre(length: int, crop: int) -> int:
    return int((length - crop) / 2.0)
