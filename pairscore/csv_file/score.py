"""The one call that scores a CSV file."""

from pathlib import Path

from pairscore.csv_file.plan import prepare
from pairscore.csv_file.run import Progress, Summary, run
from pairscore.settings import Settings, load_settings


def score_csv(
    input: str | Path,  # noqa: A002 - the word for it
    output: str | Path | None = None,
    *,
    settings: Settings | None = None,
    url_column: str | None = None,
    caption_column: str | None = None,
    delimiter: str | None = None,
    details: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Score a CSV of image URLs and captions: the same CSV, and columns `similarity` and `error`.

    The input's cells come out byte for byte as they went in, in order, one row per row. A row that
    cannot be scored has a reason in `error` and never ends the run. Memory does not grow with the
    file.

    Args:
        input: CSV in UTF-8 with a header, plain or gzip.
        output: `X_scored.csv` beside `X.csv` if None; gzip if it ends in `.gz`.
        settings: from the environment if None.
        url_column: name of the column of image URLs; guessed if None.
        caption_column: name of the column of captions; guessed if None.
        delimiter: one character; sniffed if None.
        details: also add the columns cosine, caption_truncated, image_sha256 and attempts.
        resume: continue an interrupted run if there is one.
        overwrite: replace an output, discard an interrupted run (unless `resume`), and leave out
            columns of the input that have the name of a new one.
        progress: called after each row with the number of rows written and the row's outcome.

    Raises:
        InputError: the file, a column or the output cannot be used; found before a model is loaded.
        SettingsError: a setting cannot be used.
        ModelError: the model cannot be had.
        EnvironmentFault: this machine lacks something, or the output cannot be written.
    """
    if settings is None:
        settings = load_settings()
    plan = prepare(
        Path(input),
        None if output is None else Path(output),
        url_column=url_column,
        caption_column=caption_column,
        delimiter=delimiter,
        details=details,
        resume=resume,
        overwrite=overwrite,
    )
    # Only now, so that a file that cannot be used costs neither torch nor a model.
    from pairscore.scorer import Scorer

    with Scorer(settings) as scorer:
        return run(plan, scorer.score_pairs, fingerprint=scorer.fingerprint, progress=progress)
