"""What a partial output was begun with: kept beside it, and compared before it is continued."""

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

from pairscore.errors import InputError

VERSION = 1


@dataclass(frozen=True, slots=True)
class Sidecar:
    """Everything that decides what a row of the output looks like.

    `overwrite` is the permission the run was begun with: it holds for those that continue it.
    """

    input_sha256: str
    url_column: str
    caption_column: str
    delimiter: str
    details: bool
    overwrite: bool
    fingerprint: str
    version: int = VERSION

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read it back.

        Raises:
            InputError: it is missing, damaged, or written by another version.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            found = cls(**values)
        except (OSError, ValueError, TypeError) as error:
            problem = f"cannot be read ({error})"
        else:
            if found.version == VERSION and all(
                type(getattr(found, f.name)) is f.type for f in fields(cls)
            ):
                return found
            problem = "was written by another version of pairscore"
        raise InputError(
            f"{path}: this file, which says how the interrupted run was begun, {problem}; "
            "discard that run with --overwrite (without --resume)"
        )

    def write(self, path: Path) -> None:
        """Write it whole or not at all."""
        draft = path.with_suffix(".new")
        with draft.open("w", encoding="utf-8") as file:
            json.dump(asdict(self), file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)

    def check_same(self, now: "Sidecar", partial: Path) -> None:
        """Make sure that continuing gives what going through would have given.

        Raises:
            InputError: something differs; says what, and both values.
        """
        differences = [
            f"{field.name} was {before!r} and is {after!r}"
            for field in fields(self)
            if field.name != "overwrite"
            and (before := getattr(self, field.name)) != (after := getattr(now, field.name))
        ]
        if differences:
            raise InputError(
                f"{partial}: cannot be continued, because {'; '.join(differences)}; use the input "
                "and options it was begun with, or discard it with --overwrite (without --resume)"
            )
