"""What the demo model's world is made of: scenes, their captions, and one-attribute changes.

A scene is `count` equal shapes of one colour and size on a plain background; where they lie is left
to chance and never said. One (colour, shape) combination of each shape is held out of training,
so that a test can tell whether the model has learnt the words or only pairs of words.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

Attribute: TypeAlias = Literal["shape", "colour", "size", "count", "background"]
Combinations: TypeAlias = Literal["seen", "unseen", "any"]

ATTRIBUTES: tuple[Attribute, ...] = get_args(Attribute)
SHAPES = ("circle", "square", "triangle", "cross", "ring", "crescent")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
SIZES = ("small", "large")
COUNTS = (1, 2, 3, 4)
BACKGROUNDS = ("white", "grey", "black", "brown", "blue", "green", "yellow", "pink")
VALUES: dict[Attribute, tuple[str, ...] | tuple[int, ...]] = {
    "shape": SHAPES,
    "colour": COLOURS,
    "size": SIZES,
    "count": COUNTS,
    "background": BACKGROUNDS,
}

HELD_OUT = frozenset((COLOURS[(3 * i + 1) % len(COLOURS)], shape) for i, shape in enumerate(SHAPES))
"""(colour, shape) combinations that training never shows nor names: one of each shape."""

_PLURALS = {"cross": "crosses"}
_COUNT_WORDS = {1: ("a", "one", "1"), 2: ("two", "2"), 3: ("three", "3"), 4: ("four", "4")}
_MANY = ("some", "several", "many")
_OPENINGS = (
    "",
    "",
    "",
    "a photo of ",
    "a picture of ",
    "an image of ",
    "a drawing of ",
    "a picture with ",
)
_WITH_BACKGROUND = (
    "{opening}{things} on a {background} background",
    "{opening}{things} on {background}",
    "{opening}{things} against a {background} background",
    "{opening}{things}, {background} background",
    "a {background} background with {things}",
    "a {background} picture with {things}",
)


@dataclass(frozen=True, slots=True)
class Scene:
    """What is in one picture, in the words of the lists above."""

    shape: str
    colour: str
    size: str
    count: int
    background: str

    @property
    def held_out(self) -> bool:
        """Whether training never shows this colour of this shape."""
        return (self.colour, self.shape) in HELD_OUT


def sample(rng: np.random.Generator, combinations: Combinations = "any") -> Scene:
    """Draw a scene: from the trained combinations of colour and shape, the others, or all."""
    while True:
        shape, colour, size, count, background = rng.integers(
            [len(SHAPES), len(COLOURS), len(SIZES), len(COUNTS), len(BACKGROUNDS)]
        )
        scene = Scene(
            SHAPES[shape], COLOURS[colour], SIZES[size], COUNTS[count], BACKGROUNDS[background]
        )
        if _fits(scene, combinations):
            return scene


def change(
    scene: Scene, attribute: Attribute, rng: np.random.Generator, combinations: Combinations = "any"
) -> Scene:
    """Return a scene that differs from `scene` in `attribute` and in nothing else."""
    values = VALUES[attribute]
    # asdict, since the types of `replace` cannot say that name and value belong together.
    others = (Scene(**{**asdict(scene), attribute: value}) for value in values)
    candidates = [s for s in others if s != scene and _fits(s, combinations)]
    return candidates[int(rng.integers(len(candidates)))]


def _fits(scene: Scene, combinations: Combinations) -> bool:
    if scene.colour == scene.background:
        return False
    return combinations == "any" or scene.held_out == (combinations == "unseen")


def caption(
    scene: Scene, rng: np.random.Generator, mention: Collection[Attribute] = ATTRIBUTES
) -> str:
    """Describe `scene` in words drawn from `rng`, naming the attributes in `mention`.

    The same state of `rng` gives the same wording for any scene of the same count. A single thing
    is always counted ("a circle"); more than one, uncounted, are "some", "several" or "many".
    """
    opening, layout, amount = (int(n) for n in rng.integers(1 << 30, size=3))
    plural = scene.count > 1
    noun = scene.shape if "shape" in mention else "shape"
    counts = _COUNT_WORDS[scene.count] if "count" in mention or not plural else _MANY
    words = [
        counts[amount % len(counts)],
        scene.size if "size" in mention else "",
        scene.colour if "colour" in mention else "",
        _PLURALS.get(noun, noun + "s") if plural else noun,
    ]
    things = " ".join(word for word in words if word)
    if things.startswith("a orange"):
        things = "an" + things[1:]
    text = {"opening": _OPENINGS[opening % len(_OPENINGS)], "things": things}
    if "background" not in mention:
        return "{opening}{things}".format(**text)
    template = _WITH_BACKGROUND[layout % len(_WITH_BACKGROUND)]
    return template.format(background=scene.background, **text)
