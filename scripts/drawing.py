"""A dashboard as an SVG: its panels where Grafana has them, each with what was told of it."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeAlias
from xml.etree import ElementTree as ET

from scripts import svg
from scripts.panels import Dashboard, Panel
from scripts.svg import Box
from scripts.units import said, ticks

WIDTH: Final = 1000

_COLUMNS, _UNIT, _GAP = 24, 23, 6
_HEAD, _FOOT = 44, 26
_PAD, _TITLE, _AXIS, _TIMES = 10, 30, 58, 16
_LEGEND, _LEGEND_LINES, _LETTER = 15, 3, 6.6
_MANY: Final = 5
_COLOURS: Final = (
    *("#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#5fd0d0", "#e0a0c0"),
    *("#96d98d", "#ffee52", "#8ab8ff", "#ffb357", "#ff7383", "#ca95e5"),
)
_STYLE: Final = """
text{font:12px Inter,Helvetica,Arial,sans-serif;fill:#ccccdc}
.page{fill:#111217}.panel{fill:#181b1f;stroke:#2c3036}
.head{font-size:17px;font-weight:500}.row{font-size:14px;font-weight:500}.title{font-weight:500}
.small,.axis{font-size:11px;fill:#a4a4b2}.axis{text-anchor:end}.mid{text-anchor:middle}
.number{font-size:26px;font-weight:500;fill:#73bf69;text-anchor:middle}
.grid{stroke:#2c3036;fill:none}.area{fill-opacity:.3}
.line{fill:none;stroke-width:1.3;stroke-linecap:round;stroke-linejoin:round}
"""


@dataclass(frozen=True, slots=True)
class Window:
    """What is shown: from `start` to `end`, in seconds since the epoch, a point each `step` s."""

    start: float
    end: float
    step: float

    @property
    def points(self) -> int:
        """How many there are."""
        return math.floor((self.end - self.start) / self.step + 1e-6) + 1


@dataclass(frozen=True, slots=True)
class Series:
    """A curve: what the legend calls it, and a value for each point of the window, or None."""

    name: str
    values: Sequence[float | None]

    @property
    def last(self) -> float | None:
        """The last value that there is."""
        return next((value for value in reversed(self.values) if value is not None), None)

    @property
    def highest(self) -> float:
        """The highest value, 0 where there is none."""
        return max((value for value in self.values if value is not None), default=0.0)

    @property
    def total(self) -> float:
        """The sum of all."""
        return sum(value for value in self.values if value is not None)


Told: TypeAlias = Callable[[Panel], Sequence[Series]]


def draw(dashboard: Dashboard, told: Told, window: Window, note: str = "") -> str:
    """The SVG; `note` stands below it."""
    places = dashboard.model()["panels"]
    height = _HEAD + _FOOT + _UNIT * max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in places)
    page = ET.Element(
        "svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH} {height}", role="img"
    )
    ET.SubElement(page, "title").text = dashboard.title
    ET.SubElement(page, "style").text = _STYLE
    svg.rectangle(page, "page", Box(0, 0, WIDTH, height))
    svg.text(page, "head", _PAD, 28, dashboard.title)
    svg.text(page, "axis", WIDTH - _PAD, 28, _span(window))
    svg.text(page, "small", _PAD, height - 9, note)
    panels = iter(dashboard.panels)
    for place in places:
        box = _box(place["gridPos"])
        if place["type"] == "row":
            svg.text(page, "row", box.x + 4, box.y + 15, place["title"])
        else:
            panel = next(panels)
            _panel(page, panel, told(panel), window, box)
    ET.indent(page, " ")
    return ET.tostring(page, encoding="unicode") + "\n"


def _box(place: dict[str, int]) -> Box:
    column = (WIDTH - _GAP) / _COLUMNS
    return Box(
        _GAP + column * place["x"],
        _HEAD + _UNIT * place["y"],
        column * place["w"] - _GAP,
        _UNIT * place["h"] - _GAP,
    )


def _panel(
    page: ET.Element, panel: Panel, told: Sequence[Series], window: Window, box: Box
) -> None:
    group = ET.SubElement(page, "g", transform=f"translate({svg.px(box.x)} {svg.px(box.y)})")
    svg.rectangle(group, "panel", Box(0, 0, box.width, box.height))
    svg.text(group, "title", _PAD, 17, panel.title)
    series = [each for each in told if each.last is not None]
    if panel.stacked or len(series) > _MANY:
        # What there is most of is at the bottom, and in the legend.
        series.sort(key=lambda each: each.total, reverse=True)
    if not series:
        svg.text(group, "small mid", box.width / 2, box.height / 2 + 8, "No data")
    elif panel.is_number:
        _number(group, panel, series[0], box)
    else:
        _chart(group, panel, series, window, box)


def _number(group: ET.Element, panel: Panel, series: Series, box: Box) -> None:
    area = Box(1, box.height * 0.6, box.width - 2, box.height * 0.4 - 1)
    floor = [0.0] * len(series.values)
    curve = svg.pieces(series.values, floor, area, series.highest or 1.0)
    svg.area(group, curve, _COLOURS[0])
    value = said(series.last or 0.0, panel.unit)
    svg.text(group, "number", box.width / 2, box.height / 2 + 14, value)


def _chart(
    group: ET.Element, panel: Panel, series: Sequence[Series], window: Window, box: Box
) -> None:
    legend = _legend(panel, series, box.width - 2 * _PAD)
    below = _TIMES + _LEGEND * len(legend) + 8
    area = Box(_AXIS, _TITLE, box.width - _AXIS - 2 * _PAD, box.height - _TITLE - below)
    floors = list(_floors(panel, series))
    top = _axes(group, panel, _top(series, floors), window, area)
    # What is first in the legend is above the others.
    for each, floor, colour in reversed([*zip(series, floors, _colours(series), strict=True)]):
        curve = svg.pieces(each.values, floor, area, top)
        if panel.stacked and each.highest:
            svg.area(group, curve, colour)
        if each.highest or not panel.stacked:
            svg.line(group, curve, colour)
    for number, line in enumerate(legend):
        y = area.bottom + _TIMES + 13 + _LEGEND * number
        for x, text, colour in line:
            if colour:
                svg.rectangle(group, "", Box(x, y - 5, 9, 3), fill=colour)
            svg.text(group, "small", x + 13, y, text)


def _colours(series: Sequence[Series]) -> list[str]:
    return [_COLOURS[at % len(_COLOURS)] for at in range(len(series))]


def _floors(panel: Panel, series: Sequence[Series]) -> Iterator[list[float]]:
    """What each stands upon."""
    floor = [0.0] * len(series[0].values)
    for each in series:
        yield floor
        if panel.stacked:
            floor = [low + (value or 0.0) for low, value in zip(floor, each.values, strict=True)]


def _top(series: Sequence[Series], floors: Sequence[Sequence[float]]) -> float:
    return max(
        low + value
        for each, floor in zip(series, floors, strict=True)
        for low, value in zip(floor, each.values, strict=True)
        if value is not None
    )


def _axes(group: ET.Element, panel: Panel, top: float, window: Window, area: Box) -> float:
    """Draws both; the value at the upper end of the left one."""
    values = ticks(top, panel.unit)
    ys = [area.up(value / values[-1]) for value in values]
    for value, y in zip(values, ys, strict=True):
        svg.text(group, "axis", area.x - 6, y + 4, said(value, panel.unit, values[1]))
    length = window.end - window.start
    times = list(_clock(window))
    xs = [area.x + area.width * (time - window.start) / length for time in times]
    for time, x in zip(times, xs, strict=True):
        clock = datetime.fromtimestamp(time, UTC).strftime("%H:%M")
        svg.text(group, "small mid", x, area.bottom + 14, clock)
    svg.grid(group, area, xs, ys)
    return values[-1]


def _clock(window: Window) -> Iterator[float]:
    """Full minutes, five or six."""
    minutes = (window.end - window.start) / 60
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 240, 720)
    every = 60 * next((step for step in steps if minutes / step <= 5), 1440)
    time = math.ceil(window.start / every) * every
    while time <= window.end:
        yield time
        time += every


def _legend(
    panel: Panel, series: Sequence[Series], width: float
) -> list[list[tuple[float, str, str]]]:
    """Lines of x, text and colour; what does not fit in is counted."""
    texts = [
        (_entry(each, panel, width), colour)
        for each, colour in zip(series, _colours(series), strict=True)
    ]
    counts = range(len(texts), 0, -1)
    tries = (_flowed([*texts[:n], *_more(len(texts) - n)], width) for n in counts)
    return next(lines for lines in tries if len(lines) <= _LEGEND_LINES)


def _entry(series: Series, panel: Panel, width: float) -> str:
    value = said(series.last or 0.0, panel.unit)
    room = int((width - 13) / _LETTER) - len(value) - 2
    cut = len(series.name) > room
    return f"{series.name[: room - 1] + '…' if cut else series.name}  {value}"


def _more(count: int) -> list[tuple[str, str]]:
    return [(f"and {count} more", "")] if count else []


def _flowed(texts: Sequence[tuple[str, str]], width: float) -> list[list[tuple[float, str, str]]]:
    lines: list[list[tuple[float, str, str]]] = []
    x = math.inf
    for text, colour in texts:
        long = 13 + len(text) * _LETTER
        if x + long > _PAD + width:
            lines.append([])
            x = _PAD
        lines[-1].append((x, text, colour))
        x += long + 12
    return lines


def _span(window: Window) -> str:
    start, end = (datetime.fromtimestamp(at, UTC) for at in (window.start, window.end))
    return f"{start:%Y-%m-%d %H:%M} to {end:%H:%M} UTC"
