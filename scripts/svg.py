"""Shapes of an SVG, in pixels with one decimal."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias
from xml.etree import ElementTree as ET

Place: TypeAlias = tuple[float, float, float]
"""Of a curve: x, y, and the y of what it stands upon."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Where it ends."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """Where it ends."""
        return self.y + self.height

    def up(self, part: float) -> float:
        """The y of a part of the height, from the bottom; what is below 0 is at the bottom."""
        return self.bottom - self.height * max(0.0, part)


def rectangle(parent: ET.Element, name: str, box: Box, **more: str) -> None:
    """A box of the class `name`."""
    at = {"x": box.x, "y": box.y, "width": box.width, "height": box.height}
    ET.SubElement(parent, "rect", {"class": name, **{k: px(v) for k, v in at.items()}, **more})


def text(parent: ET.Element, name: str, x: float, y: float, content: str) -> None:
    """A text of the class `name`; `y` is its base line."""
    ET.SubElement(parent, "text", {"class": name, "x": px(x), "y": px(y)}).text = content


def grid(parent: ET.Element, box: Box, xs: Sequence[float], ys: Sequence[float]) -> None:
    """Lines through the box."""
    drawn = [f"M{px(box.x)} {px(y)}h{px(box.width)}" for y in ys]
    drawn += [f"M{px(x)} {px(box.y)}v{px(box.height)}" for x in xs]
    ET.SubElement(parent, "path", {"class": "grid", "d": "".join(drawn)})


def pieces(
    values: Sequence[float | None], floor: Sequence[float], box: Box, top: float
) -> list[list[Place]]:
    """Values spread over a box whose height is `top`, each upon its floor; None parts them."""
    across = box.width / max(1, len(values) - 1)
    places = [
        None
        if value is None
        else (box.x + across * at, box.up((low + value) / top), box.up(low / top))
        for at, (value, low) in enumerate(zip(values, floor, strict=True))
    ]
    grouped = groupby(places, key=lambda place: place is not None)
    return [[place for place in piece if place] for there, piece in grouped if there]


def line(parent: ET.Element, curve: Sequence[Sequence[Place]], colour: str) -> None:
    """A curve; a place by itself is a dot, which is a line of no length with round ends."""
    drawn = "".join(
        f"M{_path([(x, y) for x, y, _ in piece])}{'h0' if len(piece) == 1 else ''}"
        for piece in curve
    )
    ET.SubElement(parent, "path", {"class": "line", "stroke": colour, "d": drawn})


def area(parent: ET.Element, curve: Sequence[Sequence[Place]], colour: str) -> None:
    """What is below a curve, down to what it stands upon."""
    drawn = "".join(
        f"M{_path([(x, y) for x, y, _ in piece])}"
        f"L{_path([(x, low) for x, _, low in reversed(piece)])}z"
        for piece in curve
    )
    ET.SubElement(parent, "path", {"class": "area", "fill": colour, "d": drawn})


def _path(places: Sequence[tuple[float, float]]) -> str:
    """Through all places, less those in the midst of a level stretch."""
    levels = [px(y) for _, y in places]
    kept = [
        f"{px(x)} {levels[at]}"
        for at, (x, _) in enumerate(places)
        if at in {0, len(places) - 1} or len({*levels[at - 1 : at + 2]}) > 1
    ]
    return "L".join(kept)


def px(value: float) -> str:
    """A length."""
    return f"{value:.1f}".removesuffix(".0")
