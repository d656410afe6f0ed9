"""Damaged images are reasons, never crashes; what Pillow still accepts has Pillow's pixels."""

from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pairscore.image import Format, decode
from pairscore.pair import Failure, Reason
from tests.unit.image_samples import as_pillow_gives, mutants, samples

MUTANTS = 200
CAP = 1_000_000


def pillow_or_none(data: bytes) -> NDArray[np.uint8] | None:
    try:
        return as_pillow_gives(data)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, RuntimeError):
        return None
    except Image.DecompressionBombError:
        return None


@pytest.mark.parametrize("format_name", list(Format))
def test_mutated_images_give_pillows_pixels_or_a_reason(format_name: Format) -> None:
    seeds = [data for name, data in samples().items() if name.startswith(format_name.value)]
    reasons = {Reason.NOT_AN_IMAGE, Reason.CORRUPT_IMAGE, Reason.TOO_MANY_PIXELS}
    decoded = refused = 0

    for data in mutants(seeds, MUTANTS, seed=len(format_name)):
        outcome = decode(data, max_pixels=CAP)
        if isinstance(outcome, Failure):
            refused += 1
            assert outcome.reason in reasons
            assert 0 < len(outcome.detail) <= 120
            assert outcome.detail.isprintable()
            assert " at 0x" not in outcome.detail
            if outcome.reason is not Reason.TOO_MANY_PIXELS:
                assert pillow_or_none(data) is None, outcome.error
        else:
            decoded += 1
            expected = pillow_or_none(data)
            # Pillow checks more of a JPEG's metadata than decoding needs.
            if expected is not None or format_name is not Format.JPEG:
                np.testing.assert_array_equal(outcome, expected)

    assert decoded + refused == MUTANTS
    assert refused > MUTANTS // 10


@pytest.mark.parametrize("format_name", list(Format))
def test_an_image_cut_anywhere_is_a_reason_or_whole(format_name: Format) -> None:
    name = next(name for name in samples() if name.startswith(format_name.value))
    data = samples()[name]

    for length in range(0, len(data), max(1, len(data) // 60)):
        outcome = decode(data[:length], max_pixels=CAP)
        if isinstance(outcome, Failure):
            assert outcome.reason in (Reason.NOT_AN_IMAGE, Reason.CORRUPT_IMAGE)
        else:
            with Image.open(BytesIO(data[:length])) as image:
                np.testing.assert_array_equal(outcome, np.array(image.convert("RGB")))
