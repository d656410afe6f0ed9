"""Preprocessing is that of transformers' `CLIPImageProcessor`, bit for bit."""

import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import interpolate
from transformers import CLIPImageProcessor

from pairscore.image import Preprocessor, configure_thread, decode
from pairscore.image.windowed import Window
from pairscore.pair import Failure
from pairscore.threads import use_one_core
from tests.unit.image_samples import encode, photo, samples

CLIP = Preprocessor(224, (224, 224))
SAMPLES = samples()


def reference(image: Image.Image, preprocessor: Preprocessor = CLIP) -> NDArray[np.uint8]:
    """Run the processor that transformers uses for CLIP, without its arithmetic on the result."""
    height, width = preprocessor.crop
    processor = CLIPImageProcessor(
        size={"shortest_edge": preprocessor.resize},
        crop_size={"height": height, "width": width},
        do_rescale=False,
        do_normalize=False,
    )
    assert processor.backend == "torchvision"
    values: NDArray[np.uint8] = processor(image, return_tensors="np")["pixel_values"][0]
    assert values.dtype == np.uint8
    return values


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", SAMPLES)
def test_every_mode_and_format_gives_the_processors_input(name: str) -> None:
    decoded = decode(SAMPLES[name], max_pixels=1_000_000)
    assert not isinstance(decoded, Failure)
    with Image.open(BytesIO(SAMPLES[name])) as image:
        image.info.pop("transparency", None)
        expected = reference(image.convert("RGB"))

    np.testing.assert_array_equal(CLIP(decoded), expected)


@pytest.mark.parametrize(
    "size",
    [
        *[(1, 1), (1, 2), (3, 1), (2, 15), (7, 7), (100, 224), (223, 224), (224, 224), (224, 225)],
        *[(225, 224), (224, 500), (480, 640), (640, 480), (641, 427), (333, 999), (1024, 1024)],
        *[(1777, 1181), (2000, 150), (97, 1500), (448, 448), (449, 671)],
    ],
)
def test_images_of_any_size_are_resized_and_cropped_alike(size: tuple[int, int]) -> None:
    pixels = noise(*size)

    result = CLIP(pixels)

    assert result.shape == (3, 224, 224)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, reference(Image.fromarray(pixels)))


@pytest.mark.parametrize(
    "preprocessor",
    [
        Preprocessor(72, (72, 72)),
        Preprocessor(336, (336, 336)),
        Preprocessor(256, (224, 224)),
        Preprocessor(225, (224, 100)),
        Preprocessor(100, (224, 224)),
        Preprocessor(101, (224, 120)),
        Preprocessor(64, (63, 301)),
        Preprocessor(2, (5, 4)),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(90, 61), (61, 90), (300, 300), (50, 431)])
def test_any_resize_and_crop_is_done_alike_and_padded_where_it_must(
    preprocessor: Preprocessor, size: tuple[int, int]
) -> None:
    pixels = noise(*size)

    expected = reference(Image.fromarray(pixels), preprocessor)

    np.testing.assert_array_equal(preprocessor(pixels), expected)


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 700), width=st.integers(1, 700), seed=st.integers(0, 99))
def test_random_sizes_are_resized_alike(height: int, width: int, seed: int) -> None:
    preprocessor = Preprocessor(48, (48, 48))
    pixels = noise(height, width, seed)

    expected = reference(Image.fromarray(pixels), preprocessor)

    np.testing.assert_array_equal(preprocessor(pixels), expected)


@pytest.mark.parametrize("size", [(1, 17), (2, 61), (3, 120), (40, 1800), (224, 4000), (300, 5201)])
@pytest.mark.parametrize("upright", [False, True])
def test_long_images_are_resized_alike_though_only_their_centre_is(
    size: tuple[int, int], upright: bool
) -> None:
    pixels = noise(*size)
    if upright:
        pixels = np.ascontiguousarray(pixels.swapaxes(0, 1))

    np.testing.assert_array_equal(CLIP(pixels), reference(Image.fromarray(pixels)))


@settings(max_examples=200, deadline=None)
@given(data=st.data(), length=st.integers(1, 400), size=st.integers(1, 1200))
def test_a_window_of_an_axis_is_what_torch_gives_there(
    data: st.DataObject, length: int, size: int
) -> None:
    first = data.draw(st.integers(0, size - 1))
    count = data.draw(st.integers(1, min(size - first, 60)))
    # Extremes overshoot, which is where rounding and clipping show.
    pixels = np.random.default_rng(length).choice(
        np.array([0, 1, 128, 254, 255], dtype=np.uint8), (length, 2, 3)
    )
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    whole = interpolate(image, size=(size, 2), mode="bicubic", antialias=True)[0]

    window = Window.of(length, size, first, count)

    np.testing.assert_array_equal(
        window.resize(pixels[window.inputs]),
        whole.permute(1, 2, 0).numpy()[first : first + count],
    )


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (5_000_000, 1), (2, 5_000_000)])
def test_extremely_long_images_take_little_memory(size: tuple[int, int]) -> None:
    pixels = np.full((*size, 3), (10, 200, 77), dtype=np.uint8)
    tracemalloc.start()
    try:
        result = CLIP(pixels)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (result == np.array([10, 200, 77])[:, None, None]).all()
    assert peak < 20_000_000


def test_the_centre_of_an_extremely_long_image_is_what_is_kept() -> None:
    pixels = np.zeros((1, 1_000_001, 3), dtype=np.uint8)
    pixels[:, 499_999:500_002] = 255

    # One pixel of the image makes 224 of the result, and its neighbours shade into none of them.
    assert (CLIP(pixels) == 255).all()
    pixels[:, 500_000] = 0
    assert (CLIP(pixels)[:, :, 112] == 0).all()


def test_memory_that_is_read_only_or_not_contiguous_is_taken() -> None:
    pixels = noise(300, 400)
    expected = CLIP(pixels)
    mirrored = np.ascontiguousarray(pixels[:, ::-1])[:, ::-1]
    pixels.setflags(write=False)

    np.testing.assert_array_equal(CLIP(pixels), expected)
    np.testing.assert_array_equal(CLIP(mirrored), expected)


def test_threads_preprocess_alike() -> None:
    images = [noise(*size) for size in [(480, 640), (30, 900), (640, 333), (7, 7)]]
    expected = [CLIP(image).tobytes() for image in images]

    with ThreadPoolExecutor(8, initializer=configure_thread) as pool:
        for results in pool.map(lambda _: [CLIP(image).tobytes() for image in images], range(32)):
            assert results == expected


def test_jpeg_to_processors_input_without_detours() -> None:
    image = photo(640, 480)
    data = encode(image, "JPEG", quality=85)

    decoded = decode(data, max_pixels=1_000_000)

    assert not isinstance(decoded, Failure)
    with Image.open(BytesIO(data)) as opened:
        np.testing.assert_array_equal(CLIP(decoded), reference(opened.convert("RGB")))


@pytest.fixture
def three_torch_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_torch_threads")
def test_a_thread_kept_to_one_core_leaves_the_others_theirs() -> None:
    ready = threading.Barrier(8)

    def kept() -> int:
        ready.wait(10)
        use_one_core()
        return torch.get_num_threads()

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(kept) for _ in range(8)]
        assert [future.result() for future in futures] == [1] * 8
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 3
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three_torch_threads")
def test_configuring_a_decoding_thread_leaves_the_encoders_threads_alone() -> None:
    decoding = threading.Thread(target=configure_thread)
    decoding.start()
    decoding.join()

    assert torch.get_num_threads() == 3
