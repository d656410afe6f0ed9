"""The rows of a CSV that was surveyed, to be published."""

from collections.abc import Iterator
from contextlib import contextmanager

from pairscore.csv_file import Survey, check_input, open_source
from pairscore.csv_file.records import Record
from pairscore.errors import InputError
from producer.encoding import RowEncoder
from producer.publication import FileChanged, RowsChanged


class CsvRows:
    """Reads a CSV anew, and makes sure that it is what was surveyed."""

    def __init__(self, job: str, survey: Survey) -> None:
        self._survey = survey
        self._encoder = RowEncoder(job, survey)
        self.encode = self._encoder.encode

    @property
    def name(self) -> str:
        """The file's path."""
        return str(self._survey.path)

    @property
    def count(self) -> int:
        """How many rows it has, without the header."""
        return self._survey.rows

    @contextmanager
    def open(self) -> Iterator[Iterator[Record]]:
        """Its rows in order.

        Raises:
            RowsChanged: upon opening, or at the end, if it is another file by now.
            FileChanged: it cannot be read any more.
        """
        survey = self._survey
        try:
            stamp = check_input(survey.path)
        except InputError as error:
            raise FileChanged(str(error)) from None
        if stamp != survey.stamp:
            raise RowsChanged
        with open_source(survey.path) as source:

            def rows() -> Iterator[Record]:
                records = source.records(survey.dialect.delimiter)
                next(records, None)
                yield from records
                if source.sha256 != survey.sha256:
                    raise RowsChanged

            yield rows()
