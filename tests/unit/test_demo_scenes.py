"""Scenes change in one attribute, captions say what they are told to, drawings show it."""

import io
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from pairscore.demo.drawing import photo_size, render, to_jpeg
from pairscore.demo.scenes import (
    ATTRIBUTES,
    COLOURS,
    HELD_OUT,
    SHAPES,
    VALUES,
    Attribute,
    Combinations,
    Scene,
    caption,
    change,
    sample,
)

SCENE = Scene("circle", "red", "small", 2, "blue")


def test_one_combination_of_each_shape_is_held_out_and_no_colour_twice() -> None:
    assert sorted(shape for _, shape in HELD_OUT) == sorted(SHAPES)
    assert len({colour for colour, _ in HELD_OUT} & set(COLOURS)) == len(SHAPES)


@pytest.mark.parametrize(("kind", "held_out"), [("seen", {False}), ("unseen", {True})])
def test_samples_come_from_the_asked_combinations(kind: Combinations, held_out: set[bool]) -> None:
    rng = np.random.default_rng(0)
    assert {sample(rng, kind).held_out for _ in range(200)} == held_out


def test_samples_reach_every_value_and_never_hide_things_in_their_background() -> None:
    rng = np.random.default_rng(0)
    scenes = [sample(rng) for _ in range(500)]
    for attribute in ATTRIBUTES:
        assert {getattr(scene, attribute) for scene in scenes} == set(VALUES[attribute])
    assert all(scene.colour != scene.background for scene in scenes)


@pytest.mark.parametrize("attribute", ATTRIBUTES)
@pytest.mark.parametrize("kind", ["any", "seen"])
def test_a_change_touches_that_attribute_and_no_other(
    attribute: Attribute, kind: Combinations
) -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        scene = sample(rng, kind)
        changed = change(scene, attribute, rng, kind)
        differing = [a for a in ATTRIBUTES if getattr(scene, a) != getattr(changed, a)]
        assert differing == [attribute]
        assert changed.colour != changed.background
        assert kind == "any" or not changed.held_out


def test_a_full_caption_names_every_attribute() -> None:
    for seed in range(100):
        words = set(caption(SCENE, np.random.default_rng(seed)).replace(",", "").split())
        assert {"small", "red", "circles", "blue"} <= words
        assert {"two", "2"} & words


def test_a_sparse_caption_names_only_what_it_is_told_to() -> None:
    for size in range(len(ATTRIBUTES)):
        for mention in combinations(ATTRIBUTES, size):
            words = set(caption(SCENE, np.random.default_rng(size), mention).split())
            said = {
                "shape": "circles" in words,
                "colour": "red" in words,
                "size": "small" in words,
                "count": bool({"two", "2"} & words),
                "background": "blue" in words,
            }
            assert {a for a, here in said.items() if here} == set(mention)


def test_the_same_wording_is_had_for_another_scene_from_the_same_state() -> None:
    other = Scene("square", "pink", "large", 2, "white")
    for seed in range(20):
        text = caption(SCENE, np.random.default_rng(seed))
        for old, new in (("blue", "white"), ("red", "pink"), ("small", "large")):
            text = text.replace(old, new)
        expected = text.replace("circle", "square")
        assert caption(other, np.random.default_rng(seed)) == expected


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 4])
def test_things_lie_whole_apart_and_within_the_centre_crop(shape: str, count: int) -> None:
    scene = Scene(shape, "red", "large", count, "white")
    for seed in range(5):
        image = render(scene, np.random.default_rng(seed), 300, 160)
        pixels = np.asarray(image).astype(int)
        red = pixels[..., 0] - pixels[..., 1] > 90
        assert red[:, 70:230].sum() == red.sum() > 0
        assert blobs(red) == count


def blobs(mask: np.ndarray) -> int:
    """The number of 4-connected parts of at least 20 pixels."""
    left = mask.copy()
    found = 0
    while left.any():
        stack = [tuple(np.argwhere(left)[0])]
        size = 0
        left[stack[0]] = False
        while stack:
            y, x = stack.pop()
            size += 1
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                inside = 0 <= near[0] < left.shape[0] and 0 <= near[1] < left.shape[1]
                if inside and left[near]:
                    left[near] = False
                    stack.append(near)
        found += size >= 20
    return found


def test_large_things_cover_more_than_twice_what_small_ones_do() -> None:
    def covered(size: str) -> int:
        scene = Scene("circle", "red", size, 1, "white")
        pixels = np.asarray(render(scene, np.random.default_rng(3), 200, 200)).astype(int)
        return int((pixels[..., 0] - pixels[..., 1] > 90).sum())

    assert covered("large") > 2 * covered("small")


def test_pictures_are_of_the_asked_size_and_survive_jpeg() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        width, height = photo_size(rng)
        assert 96 <= min(width, height) <= max(width, height) <= min(400, 2 * min(width, height))
        image = render(SCENE, rng, width, height)
        with Image.open(io.BytesIO(to_jpeg(image, rng))) as read:
            assert (read.format, read.mode, read.size) == ("JPEG", "RGB", (width, height))
            assert np.abs(np.asarray(read).astype(int) - np.asarray(image)).mean() < 12
