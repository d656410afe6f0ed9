"""Bodies of uploads: each can be opened as often as it has to be sent, in constant memory."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Final, TypeAlias

from pairscore.errors import EnvironmentFault, InputError
from pairscore.pair import Pair

NDJSON: Final = "application/x-ndjson"
CSV: Final = "text/csv"

AnyPair: TypeAlias = Pair | tuple[str, str]
"""A pair, or its URL and caption."""

_NDJSON_SUFFIXES: Final = (".ndjson", ".jsonl")
_IN_MEMORY_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Body:
    """What is to be sent: its media type, and its bytes, each time from the first on."""

    media_type: str
    source: Path | IO[bytes]

    def open(self) -> AbstractContextManager[IO[bytes]]:
        """The bytes.

        Raises:
            InputError: the file cannot be read.
        """
        if isinstance(self.source, Path):
            try:
                return self.source.open("rb")
            except OSError as error:
                raise InputError(
                    f"{self.source}: cannot be read: {error.strerror or error}"
                ) from None
        self.source.seek(0)
        return nullcontext(self.source)


@contextmanager
def body_of(source: str | os.PathLike[str] | Iterable[AnyPair]) -> Iterator[Body]:
    """The body of a file, or of pairs, which go into a temporary file until the block ends.

    `.ndjson` and `.jsonl` are NDJSON, everything else is CSV; either may be gzip.

    Raises:
        InputError: a pair is none.
        EnvironmentFault: there is no room for a temporary file.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        plain = path.name.lower().removesuffix(".gz")
        yield Body(NDJSON if plain.endswith(_NDJSON_SUFFIXES) else CSV, path)
        return
    with SpooledTemporaryFile(_IN_MEMORY_BYTES, prefix="pairscore-") as spool:
        for row, pair in enumerate(source):
            line = json.dumps(fields_of(pair, row), ensure_ascii=False) + "\n"
            try:
                encoded = line.encode()
            except UnicodeEncodeError:
                raise InputError(f"row {row}: the text has half of a surrogate pair") from None
            try:
                spool.write(encoded)
            except OSError as error:
                raise EnvironmentFault(
                    f"the folder of temporary files has no room: {error.strerror or error}"
                ) from None
        yield Body(NDJSON, spool)


def fields_of(pair: object, row: int) -> dict[str, str]:
    """A pair as the API takes it.

    Raises:
        InputError: it is none.
    """
    if isinstance(pair, Pair):
        found: tuple[object, object] = (pair.url, pair.caption)
    elif isinstance(pair, tuple | list) and len(pair) == 2:
        found = (pair[0], pair[1])
    else:
        raise InputError(f"row {row}: it is a {type(pair).__name__}, not a URL and a caption")
    url, caption = found
    if not (isinstance(url, str) and isinstance(caption, str)):
        raise InputError(f"row {row}: its URL and its caption have to be texts")
    return {"url": url, "caption": caption}
