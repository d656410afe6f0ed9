"""Packing a whole result with gzip, and recognising one that has been packed."""

import gzip
import os
import shutil
import zlib
from pathlib import Path
from typing import Final

_CHUNK: Final = 1 << 20


def pack(plain: Path, packed: Path) -> None:
    """Write `packed`, gzip of `plain`, and put it on the disk; equal rows give equal bytes."""
    with plain.open("rb") as rows, packed.open("wb") as file:
        # Neither a name nor a time goes in.
        with gzip.GzipFile(
            filename="", fileobj=file, mode="wb", compresslevel=6, mtime=0
        ) as compressor:
            shutil.copyfileobj(rows, compressor, _CHUNK)
        file.flush()
        os.fsync(file.fileno())


def holds(packed: Path, plain: Path) -> bool:
    """Whether `packed` is gzip of exactly the bytes of `plain`."""
    with gzip.open(packed) as unpacked, plain.open("rb") as rows:
        try:
            while (part := unpacked.read(_CHUNK)) == rows.read(_CHUNK):
                if not part:
                    return True
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return False
    return False
