"""Rows of the demo data, ordinary ones and odd ones, with the files that they point to."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from pairscore.demo.drawing import photo_size, render, to_jpeg
from pairscore.demo.odd_pictures import Encode, broken_bodies, formats
from pairscore.demo.scenes import ATTRIBUTES, Scene, caption, change, sample
from pairscore.pair import Reason

HEADER = ("id", "url", "caption", "source")
ORDINARY = {
    "right caption": 0.68,
    "one attribute wrong": 0.08,
    "wholly wrong caption": 0.05,
    "the same URL and caption again": 0.07,
    "the same URL with another caption": 0.06,
    "the same picture under another URL": 0.04,
    "dead link": 0.02,
}
"""The kinds of rows that recur, and their shares."""

_SOURCES = ("catalogue", "crawl", "user upload")
_IMAGES = "images"
_MAX_PICTURES = 1000


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the CSV: its cells, the reason it fails for or None, and what is odd about it.

    A malformed row has more or fewer cells than `HEADER`; an empty line has none. `fits` is whether
    the caption is true of the picture, None where that is not asked.
    """

    cells: tuple[str, ...]
    expected: Reason | None
    note: str
    fits: bool | None = None


@dataclass(frozen=True, slots=True)
class _Picture:
    url: str
    scene: Scene
    jpeg: bytes


class RowMaker:
    """Makes rows, and the files they need; remembers pictures, for later rows to take up again."""

    def __init__(self, folder: Path, base_url: str, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self._folder = folder
        self._base_url = base_url
        self._files = 0
        self._rows = 0
        self._pictures: list[_Picture] = []
        self._scored: list[tuple[str, str]] = []
        (folder / _IMAGES).mkdir(parents=True, exist_ok=True)

    def ordinary(self, kind: str) -> Row:
        """A row of one of the kinds in `ORDINARY`."""
        if kind == "dead link":
            url = f"{self._base_url}/status/404/{self._rows:05}.jpg"
            return self._failing(kind, url, Reason.HTTP_ERROR)
        if kind == "the same URL and caption again":
            url, text = self._scored[int(self.rng.integers(len(self._scored)))]
            return self._row(url, text, note=kind, fits=True)
        if kind in {"the same URL with another caption", "the same picture under another URL"}:
            picture = self._pictures[int(self.rng.integers(len(self._pictures)))]
        else:
            picture = self._picture()
        url, scene, fits = picture.url, picture.scene, True
        if kind == "the same picture under another URL":
            url = self._store(".jpg", picture.jpeg)
        elif kind == "one attribute wrong":
            attribute = ATTRIBUTES[int(self.rng.integers(len(ATTRIBUTES)))]
            scene, fits = change(scene, attribute, self.rng), False
            kind = f"{kind}: {attribute}"
        elif kind == "wholly wrong caption":
            scene, fits = self._opposite(scene), False
        text = caption(scene, self.rng)
        if fits:
            self._scored.append((url, text))
        return self._row(url, text, note=kind, fits=fits)

    def oddities(self) -> list[Callable[[], Row]]:
        """Every odd row, each kind in turn, so that any first few are a fair sample."""
        kinds = (
            self._odd_urls(),
            self._odd_bodies(),
            self._odd_captions(),
            self._malformed(),
            self._odd_formats(),
        )
        return [make for make in chain.from_iterable(zip_longest(*kinds)) if make is not None]

    def _odd_urls(self) -> list[Callable[[], Row]]:
        host = urlsplit(self._base_url).hostname
        base = self._base_url
        fails = {
            "picture not found": (f"{base}/status/404/gone.jpg", Reason.HTTP_ERROR),
            "no such host": ("http://nowhere.invalid/x.jpg", Reason.DNS_ERROR),
            "no URL": ("", Reason.INVALID_URL),
            "refused connection": (f"http://{host}:1/x.jpg", Reason.CONNECT_ERROR),
            "redirect loop": (f"{base}/loop/x.jpg", Reason.TOO_MANY_REDIRECTS),
            "private address": ("http://10.255.255.1/x.jpg", Reason.BLOCKED_ADDRESS),
            "redirect to a private address": (f"{base}/private/x.jpg", Reason.BLOCKED_ADDRESS),
            "over 20 MB, as announced": (f"{base}/big/declared/x.jpg", Reason.TOO_LARGE),
            "silent server": (f"{base}/slow/60/x.jpg", Reason.TIMEOUT),
            "scheme not http": ("ftp://ftp.example.org/x.jpg", Reason.INVALID_URL),
            "over 20 MB, unannounced": (f"{base}/big/chunked/x.jpg", Reason.TOO_LARGE),
            "cloud metadata address": ("http://169.254.169.254/latest/", Reason.BLOCKED_ADDRESS),
            "no file of that name": (f"{base}/{_IMAGES}/never.jpg", Reason.HTTP_ERROR),
            "picture removed for good": (f"{base}/status/410/gone.jpg", Reason.HTTP_ERROR),
            "server that always fails": (f"{base}/status/500/x.jpg", Reason.HTTP_ERROR),
            "words instead of a URL": ("see attachment", Reason.INVALID_URL),
        }
        made: list[Callable[[], Row]] = [
            partial(self._failing, note, url, reason) for note, (url, reason) in fails.items()
        ]
        made.insert(3, partial(self._detour, "redirect", "redirect"))
        made.insert(6, partial(self._detour, "server that fails at first", "flaky"))
        silent = "server that falls silent half way"
        made.insert(9, partial(self._detour, silent, "stall", Reason.TIMEOUT))
        return made

    def _failing(self, note: str, url: str, reason: Reason) -> Row:
        return self._row(url, caption(sample(self.rng), self.rng), reason, note)

    def _detour(self, note: str, path: str, expected: Reason | None = None) -> Row:
        picture = self._picture()
        url = picture.url.replace(self._base_url, f"{self._base_url}/{path}")
        fits = True if expected is None else None
        return self._row(url, caption(picture.scene, self.rng), expected, note, fits)

    def _odd_bodies(self) -> list[Callable[[], Row]]:
        bodies = broken_bodies(self._draw(sample(self.rng))[1])
        return [partial(self._broken, note, *body) for note, body in bodies.items()]

    def _broken(self, note: str, suffix: str, body: bytes, reason: Reason) -> Row:
        return self._row(
            self._store(suffix, body), caption(sample(self.rng), self.rng), reason, note
        )

    def _odd_captions(self) -> list[Callable[[], Row]]:
        texts: dict[str, Callable[[str], str]] = {
            "commas and quotes": lambda text: f'"{text}", as seen, "again"',
            "no caption": lambda _: "",
            "caption of several lines": lambda text: text.replace(" ", "\n", 2),
            "caption over 77 tokens": lambda text: text + ", and nothing else at all" * 20,
            "emoji": lambda text: f"{text} \N{SPARKLES}\N{ARTIST PALETTE}",
            "blanks around the caption": lambda text: f"   {text}  ",
            "blank caption": lambda _: " \t ",
            "capitals": str.upper,
            "caption like a formula": lambda text: f"={text}",
            "not English": lambda _: "deux petits cercles rouges — 两个红色小圆",
        }
        return [partial(self._spoilt_caption, note, spoil) for note, spoil in texts.items()]

    def _spoilt_caption(self, note: str, spoil: Callable[[str], str]) -> Row:
        picture = self._picture()
        text = spoil(caption(picture.scene, self.rng))
        return self._row(picture.url, text, None if text.strip() else Reason.EMPTY_CAPTION, note)

    def _malformed(self) -> list[Callable[[], Row]]:
        return [
            partial(self._miscut, "row too short", 2),
            partial(self._miscut, "empty line", 0),
            partial(self._miscut, "row too long", 4, ("see", "below")),
        ]

    def _miscut(self, note: str, keep: int, more: tuple[str, ...] = ()) -> Row:
        cells = self.ordinary("right caption").cells
        return Row(cells[:keep] + more, Reason.MALFORMED_ROW, note)

    def _odd_formats(self) -> list[Callable[[], Row]]:
        return [partial(self._encoded, note, encode) for note, encode in formats().items()]

    def _encoded(self, note: str, encode: Encode) -> Row:
        scene = sample(self.rng)
        suffix, save = encode
        url = self._store(suffix, save(self._draw(scene)[0]))
        return self._row(url, caption(scene, self.rng), note=note)

    def _picture(self) -> _Picture:
        if len(self._pictures) >= _MAX_PICTURES:
            return self._pictures[int(self.rng.integers(len(self._pictures)))]
        scene = sample(self.rng)
        jpeg = self._draw(scene)[1]
        self._pictures.append(_Picture(self._store(".jpg", jpeg), scene, jpeg))
        return self._pictures[-1]

    def _draw(self, scene: Scene) -> tuple[Image.Image, bytes]:
        image = render(scene, self.rng, *photo_size(self.rng))
        return image, to_jpeg(image, self.rng)

    def _opposite(self, scene: Scene) -> Scene:
        while True:
            other = sample(self.rng)
            if all(getattr(other, name) != getattr(scene, name) for name in ATTRIBUTES):
                return other

    def _store(self, suffix: str, body: bytes) -> str:
        self._files += 1
        name = f"{_IMAGES}/{self._files:05}{suffix}"
        (self._folder / name).write_bytes(body)
        return f"{self._base_url}/{name}"

    def _row(
        self,
        url: str,
        text: str,
        expected: Reason | None = None,
        note: str = "",
        fits: bool | None = None,
    ) -> Row:
        self._rows += 1
        source = _SOURCES[self._rows % len(_SOURCES)]
        return Row((f"r{self._rows:06}", url, text, source), expected, note, fits)
