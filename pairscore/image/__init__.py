"""Images: from the bytes of a response to the pixels that the encoder takes, or a reason.

    pixels = decode(body, max_pixels=64_000_000)
    if not isinstance(pixels, Failure):
        planes = Preprocessor(resize=224, crop=(224, 224))(pixels)

Each thread that decodes calls `configure_thread` once before.
"""

from pairscore.image.decode import decode
from pairscore.image.format import Format, sniff
from pairscore.image.preprocess import Preprocessor, configure_thread

__all__ = ["Format", "Preprocessor", "configure_thread", "decode", "sniff"]
