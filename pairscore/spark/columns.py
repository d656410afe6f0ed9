"""The driver's side: what is to be scored, as columns; nothing is scored before Spark wants it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import pandas as pd
from pyspark.sql import functions
from pyspark.sql.pandas.functions import pandas_udf
from pyspark.sql.types import DoubleType, StringType, StructField, StructType

from pairscore.errors import InputError
from pairscore.settings import Settings, load_settings

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame
    from pyspark.sql._typing import UserDefinedFunctionLike

OUTCOME: Final = StructType(
    [
        StructField("similarity", DoubleType()),
        StructField("cosine", DoubleType()),
        StructField("error", StringType()),
        StructField("error_detail", StringType()),
    ]
)
"""A score has the first two, a failure the reason and, where there is one, its detail."""

_WHOLE: Final = "_pairscore_outcome"


def make_score_udf(settings: Settings | None = None) -> "UserDefinedFunctionLike":
    """A function of two string columns, (url, caption), that gives an `OUTCOME`.

    To be registered for SQL: `spark.udf.register("pairscore", make_score_udf())`. A NULL counts as
    an empty text: `invalid_url` or `empty_caption`.

    Args:
        settings: those of every executor; from the driver's environment (`PAIRSCORE_*`) if None.
            They travel with the query, passwords included.

    Raises:
        SettingsError: a setting cannot be used.
    """
    told = settings or load_settings()

    def pairscore(batches: Iterator[tuple[pd.Series, pd.Series]]) -> Iterator[pd.DataFrame]:
        from pairscore.spark.executor import score_batches

        return score_batches(batches, told)

    made = pandas_udf(pairscore, returnType=OUTCOME)  # type: ignore[call-overload]
    # Else Spark may score a row once for each field of its outcome, and anew for a filter.
    found: UserDefinedFunctionLike = made.asNondeterministic()
    return found


def score_udf(
    url: "Column | str", caption: "Column | str", *, settings: Settings | None = None
) -> "Column":
    """A column of outcomes, struct<similarity, cosine, error, error_detail>, of two string columns.

    Args:
        url: of images, a column or its name.
        caption: the same of captions.
        settings: as in `make_score_udf`.

    Raises:
        SettingsError: a setting cannot be used.
    """
    # One text that is not UTF-8 would end the whole query, before it comes to the function.
    texts = [functions.make_valid_utf8(each) for each in (url, caption)]
    return make_score_udf(settings)(*texts)


def score_dataframe(
    df: "DataFrame",
    *,
    url: str = "url",
    caption: str = "caption",
    settings: Settings | None = None,
    overwrite: bool = False,
) -> "DataFrame":
    """The rows of `df`, each with its outcome: similarity, cosine, error, error_detail.

    Rows of the same image are cheapest where they meet in one partition (`df.repartition(url)`).

    Args:
        df: with at least the two columns.
        url: name of the column of image URLs, strings.
        caption: name of the column of captions, strings.
        settings: as in `make_score_udf`.
        overwrite: leave out columns of `df` that have the name of a new one.

    Raises:
        InputError: a column is missing, is not of strings, or has the name of a new one.
        SettingsError: a setting cannot be used.
    """
    for name in (url, caption):
        _check_text(df, name)
    new = OUTCOME.fieldNames()
    taken = [name for name in df.columns if name.lower() in new]
    if taken and not overwrite:
        raise InputError(
            f"the DataFrame has {_listed(taken)} already; rename or drop what it has, or leave it "
            "out with overwrite=True"
        )
    outcome = score_udf(_column(url), _column(caption), settings=settings)
    # Not one select: what is named twice there would be scored twice. Nor by name: joins have
    # columns of the same name.
    whole = df.select("*", outcome.alias(_WHOLE)).drop(*taken)
    return whole.select("*", f"{_WHOLE}.*").drop(_WHOLE)


def _check_text(df: "DataFrame", name: str) -> None:
    found = [field for field in df.schema.fields if field.name.lower() == name.lower()]
    if len(found) != 1:
        have = _listed(df.columns) or "no column"
        what = "is more than once" if found else "is no column"
        raise InputError(f"{name!r} {what} of the DataFrame, which has {have}")
    if not isinstance(found[0].dataType, StringType):
        kind = found[0].dataType.simpleString()
        raise InputError(f"column {name!r} is of {kind}, and has to be of strings")


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _column(name: str) -> "Column":
    # Quoted, as a dot in it would mean a field.
    return functions.col("`{}`".format(name.replace("`", "``")))
