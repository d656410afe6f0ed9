"""Every check that needs no model: `prepare` makes them, and writes nothing."""

from dataclasses import dataclass
from pathlib import Path

from pairscore.csv_file.columns import Column
from pairscore.csv_file.dialect import Dialect
from pairscore.csv_file.layout import Layout
from pairscore.csv_file.output import Output
from pairscore.csv_file.sidecar import Sidecar
from pairscore.csv_file.survey import check_input, survey_input

_SET_NAME = "challenge_set"
_SCORED_NAME = "challenge"


@dataclass(frozen=True, slots=True)
class Plan:
    """An input that can be scored as it is, and where its result goes.

    `rows` counts the input's rows without its header. `begun` is what an interrupted run that is
    to be continued was begun with. `notes` are lines for the user: what was guessed, and what will
    happen to files and columns that are there already.
    """

    input: Path
    output: Path
    dialect: Dialect
    header: tuple[str, ...]
    url: Column
    caption: Column
    layout: Layout
    rows: int
    input_sha256: str
    input_stamp: tuple[int, int]
    resume: bool
    overwrite: bool
    begun: Sidecar | None
    notes: tuple[str, ...]

    def sidecar(self, fingerprint: str) -> Sidecar:
        """What a run of this plan with the model of that fingerprint is begun with."""
        return Sidecar(
            input_sha256=self.input_sha256,
            url_column=self.url.name,
            caption_column=self.caption.name,
            delimiter=self.dialect.delimiter,
            details=self.layout.details,
            overwrite=self.overwrite,
            fingerprint=fingerprint,
        )


def prepare(
    input: Path,  # noqa: A002 - the word for it, as in score_csv
    output: Path | None = None,
    *,
    url_column: str | None = None,
    caption_column: str | None = None,
    delimiter: str | None = None,
    details: bool = False,
    resume: bool = False,
    overwrite: bool = False,
) -> Plan:
    """Read the whole input once, in constant memory, and check every condition of scoring it.

    Args:
        input: CSV in UTF-8 with a header, plain or gzip.
        output: where the result goes; `default_output(input)` if None; gzip if it ends in `.gz`.
        url_column: name of the column of image URLs; guessed if None.
        caption_column: name of the column of captions; guessed if None.
        delimiter: one character; sniffed if None.
        details: also add the columns cosine, caption_truncated, image_sha256 and attempts.
        resume: continue an interrupted run if there is one.
        overwrite: replace an output, discard an interrupted run (unless `resume`), and leave out
            columns of the input that have the name of a new one.

    Raises:
        InputError: the first condition that is not met.
    """
    check_input(input)
    place = Output(_resolved(output if output is not None else default_output(input)))
    place.check_place(input)
    with place.locked():
        begun = place.check_leftovers(resume=resume, overwrite=overwrite)
    allowed = overwrite or (begun is not None and begun.overwrite)
    survey = survey_input(
        input,
        url_column=url_column,
        caption_column=caption_column,
        delimiter=delimiter,
        details=details,
        overwrite=allowed,
    )
    plan = Plan(
        input=input,
        output=place.path,
        dialect=survey.dialect,
        header=tuple(survey.header.cells),
        url=survey.url,
        caption=survey.caption,
        layout=survey.layout,
        rows=survey.rows,
        input_sha256=survey.sha256,
        input_stamp=survey.stamp,
        resume=resume,
        overwrite=allowed,
        begun=begun,
        notes=survey.notes + _notes(place, resume=resume, begun=begun),
    )
    if begun is not None:
        begun.check_same(plan.sidecar(begun.fingerprint), place.partial)
    return plan


def default_output(input: Path) -> Path:  # noqa: A002 - as in prepare
    """`challenge_set.csv` -> `challenge_scored.csv`; else `X.csv` -> `X_scored.csv`; gzip alike."""
    suffixes = ".csv.gz" if input.suffix == ".gz" else input.suffix
    name = input.stem
    if input.suffix == ".gz" and (inner := Path(name).suffix):
        suffixes, name = f"{inner}.gz", Path(name).stem
    base = _SCORED_NAME if name == _SET_NAME else name
    return input.with_name(f"{base}_scored{suffixes}")


def _resolved(output: Path) -> Path:
    # A link is written through: replacing it would leave the file it names as it was.
    return output.resolve() if output.is_symlink() else output


def _notes(place: Output, *, resume: bool, begun: Sidecar | None) -> tuple[str, ...]:
    if begun is not None:
        return (f"continuing from {place.partial}",)
    if resume:
        return (f"there is no {place.partial} to continue from: starting at the first row",)
    return ()
