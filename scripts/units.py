"""Values as Grafana writes them, and the places where an axis has its lines."""

import math
from collections.abc import Sequence
from typing import Final, TypeAlias

from scripts.panels import Unit

Scale: TypeAlias = Sequence[tuple[float, str]]

_COUNT: Final[Scale] = ((1, ""), (1e3, " K"), (1e6, " Mil"))
_BYTES: Final[Scale] = ((1, " B"), (2**10, " KiB"), (2**20, " MiB"), (2**30, " GiB"))
_BYTES_A_SECOND: Final[Scale] = ((1, " B/s"), (1e3, " kB/s"), (1e6, " MB/s"))
_SECONDS: Final[Scale] = ((1e-3, " ms"), (1, " s"), (60, " min"), (3_600, " h"))

_DIGITS: Final = 3
_PARTS: Final = 4
"""Of an axis, at most."""
_STEPS: Final = (1, 2, 2.5, 5, 10)


def said(value: float, unit: Unit, part: float | None = None) -> str:
    """A value with its unit, to three digits.

    Args:
        value: any finite number.
        unit: as Grafana names it.
        part: how far values are apart that stand below each other, so that all of them have as
            many decimals as tell them apart; None for one by itself.
    """
    if unit == "percentunit":
        return f"{_plain(value * 100, part and part * 100)}%"
    if unit == "none":
        return _plain(value, part)
    scale = {"cps": _COUNT, "bytes": _BYTES, "Bps": _BYTES_A_SECOND, "s": _SECONDS}[unit]
    size, name = _fitting(scale, value)
    if not value and unit == "s":
        size, name = 1, " s"
    return f"{_plain(value / size, part and part / size)}{name}{' c/s' if unit == 'cps' else ''}"


def ticks(highest: float, unit: Unit) -> list[float]:
    """Where an axis has lines: from 0 to `highest` or above it; to 1 where that is not above 0."""
    highest = highest if highest > 0 else 1.0
    part = _part(highest, unit)
    parts = max(1, math.ceil(highest / part - 1e-9))
    return [part * number for number in range(parts + 1)]


def _part(highest: float, unit: Unit) -> float:
    """The least round number of which `_PARTS` reach up to `highest`."""
    base = 1.0
    if unit == "bytes":
        base, _ = _fitting(_BYTES, highest)
    elif unit == "s" and highest > 60 * _PARTS / 2:
        base = 3_600.0 if highest > 3_600 * _PARTS / 2 else 60.0
    least = highest / base / _PARTS
    power = 10.0 ** math.floor(math.log10(least))
    return base * next(power * step for step in _STEPS if power * step >= least * (1 - 1e-9))


def _fitting(scale: Scale, value: float) -> tuple[float, str]:
    found = [each for each in scale if each[0] <= abs(value) * (1 + 1e-9)]
    return found[-1] if found else scale[0]


def _plain(value: float, part: float | None) -> str:
    """As a decimal fraction, without zeros at its end."""
    if part:
        decimals = next((n for n in range(6) if math.isclose(round(part, n), part)), 6)
    elif value:
        decimals = max(0, _DIGITS - 1 - math.floor(math.log10(abs(value))))
    else:
        decimals = 0
    text = f"{value:.{min(decimals, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
