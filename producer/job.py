"""What is said of a job on `jobs`, and where publishing it goes on."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Self, TypeVar

from pydantic import Field

from pairscore.csv_file import Survey, default_output
from pairscore.errors import InputError
from producer.encoding import exact_text
from shared.messages import API, MAX_FILE_NAME_BYTES, CsvFormat, JobMessage, JobState, check_job

_DIGEST_CHARS: Final = 12
_NAME_CHARS: Final = 128 - _DIGEST_CHARS - 1


class OwnJob(JobMessage):
    """The message of a job that is published here."""

    def published(self, rows: int) -> Self:
        """The message of this job once that many rows are published and more will be."""
        return self.model_copy(update={"rows_published": rows})

    def closed(self, rows: int) -> Self:
        """The message of this job once all its rows are published."""
        return self.model_copy(
            update={"rows_published": rows, "rows": rows, "state": JobState.CLOSED}
        )

    def deciding(self) -> dict[str, Any]:
        """All that decides what the rows are, in words that people know."""
        return {"the content's sha256": self.source_sha256}


def api_job(
    name: str, client: str | None, sha256: str | None = None, deadline: datetime | None = None
) -> OwnJob:
    """The message that begins a job of pairs which come over HTTP: no row is published yet.

    `sha256` is the hex digest of its content, where it can be sent again.
    """
    return OwnJob(
        job=name,
        source=API,
        source_sha256=sha256,
        client=client,
        rows_published=0,
        state=JobState.OPEN,
        created_at=datetime.now(UTC),
        deadline=deadline,
    )


AnyJob = TypeVar("AnyJob", bound=OwnJob)


class CsvJob(OwnJob):
    """The message of a CSV's job, with what else decides what its rows are like.

    These fields are the producer's own, to tell whether a job it finds is the one it has.
    """

    url_column: Annotated[int, Field(ge=0)]
    caption_column: Annotated[int, Field(ge=0)]

    def deciding(self) -> dict[str, Any]:
        """All that decides what the rows are, and what the result is like but for its name."""
        form = self.csv.model_dump(exclude={"output_name"}) if self.csv is not None else {}
        return {
            "the file's sha256": self.source_sha256,
            "the header": list(self.header),
            "the column of image URLs": self.url_column,
            "the column of captions": self.caption_column,
            **form,
        }


def name_job(given: str | None, survey: Survey) -> str:
    """The job's name: the one given, else of the file's name and its content.

    The same content under the same name has the same job, so that a command that is run again goes
    on with it.

    Raises:
        InputError: the name that was given cannot be a job's.
    """
    if given is not None:
        return check_name(given)
    stem = survey.path.name.removesuffix(".gz").rsplit(".", 1)[0]
    legal = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip("._-")[:_NAME_CHARS] or "job"
    return check_job(f"{legal}-{survey.sha256[:_DIGEST_CHARS]}")


def check_name(given: str, option: str = "--job") -> str:
    """Return the name if a job may have it; `option` is where it was given.

    Raises:
        InputError: it may not.
    """
    try:
        return check_job(given)
    except ValueError as error:
        raise InputError(f"{option}: {error}") from None


def describe_job(
    name: str, survey: Survey, created_at: datetime, deadline: datetime | None = None
) -> CsvJob:
    """The message that begins a job: no row is published yet."""
    dialect, layout, header = survey.dialect, survey.layout, survey.header
    return CsvJob(
        job=name,
        source=_text(survey.path.name),
        source_sha256=survey.sha256,
        header=tuple(header.cells),
        csv=CsvFormat.model_validate(
            {
                "delimiter": dialect.delimiter,
                "terminator": dialect.terminator,
                "bom": dialect.bom,
                "header_raw": exact_text(header, dialect.delimiter),
                "dropped": tuple(sorted(layout.dropped)),
                "details": layout.details,
                "output_name": _output_name(survey.path),
            }
        ),
        rows_published=0,
        state=JobState.OPEN,
        created_at=created_at,
        deadline=deadline,
        url_column=survey.url.index,
        caption_column=survey.caption.index,
    )


def continue_job(found: AnyJob | None, wanted: AnyJob) -> AnyJob:
    """The job to go on with: the one that `jobs` has, if it is the same, else the one wanted.

    Raises:
        InputError: a job of that name is there, of other content or options.
    """
    if found is None:
        return wanted
    differences = _differences(found.deciding(), wanted.deciding())
    if differences:
        raise InputError(
            f"job {wanted.job} has been published from something else ({'; '.join(differences)}); "
            "choose another name with --job, or the file and options it was begun with"
        )
    if wanted.deadline is None or found.deadline is not None or found.state is JobState.CLOSED:
        return found
    return found.model_copy(update={"deadline": wanted.deadline})


def read_deadline(given: str, now: datetime) -> datetime:
    """When `--deadline` means, in UTC: `06:00` is the next time that the clock here says so.

    Raises:
        InputError: it is no time.
    """
    try:
        if re.fullmatch(r"\d{1,2}:\d{2}", given):
            wanted = time.fromisoformat(given.zfill(5))
            local = now.astimezone()
            found = datetime.combine(local.date(), wanted).astimezone()
            if found <= local:
                found = datetime.combine(local.date() + timedelta(days=1), wanted).astimezone()
        else:
            found = datetime.fromisoformat(given).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InputError(
            f"--deadline: {given!r} is no time; write 06:00, or 2026-12-24T06:00, with +00:00 or "
            "the like for another time zone than this machine's"
        ) from None
    return found.astimezone(UTC)


def refuse_stranger(name: str, why: str) -> InputError:
    """What to say of a job that was not begun from a CSV by this version."""
    return InputError(f"job {name} is there already and {why}; choose another name with --job")


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    content = next(iter(now))
    if before.get(content) != now[content]:
        # What follows from other content need not be listed too.
        now = {content: now[content]}
    return [
        f"{key} was {before.get(key)!r} and is {value!r}"
        for key, value in now.items()
        if before.get(key) != value
    ]


def _output_name(source: Path) -> str:
    name = _text(default_output(source).name)
    if len(name.encode()) <= MAX_FILE_NAME_BYTES:
        return name
    return "scored.csv.gz" if source.suffix == ".gz" else "scored.csv"


def _text(name: str) -> str:
    """A file's name without the bytes that are no text."""
    return name.encode(errors="backslashreplace").decode()
