"""The store of the CSV sink: a spool, and what makes results of it."""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime

from shared.telemetry.metrics import SINK_SPOOL_BYTES, Metrics
from sink.csv.finish import Finisher
from sink.csv.spool import Spool
from sink.intake import Batch, Place, Stored
from sink.loop import Due, Finished
from sink.topics import Found

_log = logging.getLogger(__name__)


class CsvStore:
    """What the loop stores to."""

    def __init__(self, spool: Spool, finisher: Finisher, metrics: Metrics) -> None:
        self._spool = spool
        self._finisher = finisher
        self._metrics = metrics

    def see_topics(self, found: Mapping[str, Found]) -> None:
        """Take note of the topics that are read; offsets of earlier ones are forgotten, aloud."""
        for name in self._spool.see_topics({name: topic.id for name, topic in found.items()}):
            _log.error(
                "topic %s was deleted and made anew since the sink read it; what was not stored by "
                "then is lost, and the new one is read from its beginning",
                name,
            )

    def offsets(self) -> Mapping[Place, int]:
        """The next offset of every partition of which something is stored."""
        return self._spool.offsets()

    def store(self, batch: Batch) -> Stored:
        """Store everything of a batch and its offsets in one transaction."""
        stored = self._spool.store(batch)
        self._metrics.set(SINK_SPOOL_BYTES, self._spool.bytes_on_disk)
        return stored

    def due(self, most: int, after: datetime) -> Sequence[Due]:
        """The jobs with the soonest deadlines after a moment."""
        return self._spool.soonest(most, after)

    def finish_jobs(self) -> Finished:
        """Do a little of what complete jobs need."""
        return self._finisher.step()
