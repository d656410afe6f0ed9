"""Records become batches: what is a message, what is none, and which record is next."""

from shared.messages import Defect
from sink.intake import Intake
from tests.sinking import plain_job
from tests.spooling import TOPICS, Taken


def test_each_record_is_one_thing_and_moves_its_partition(tmp_path):
    job = plain_job("taken", 2, tmp_path)
    first, second = job.scores
    intake = Intake(TOPICS)
    intake.add(
        [
            Taken(TOPICS.scores, 0, 4, first.encode()),
            Taken(TOPICS.scores, 1, 9, b"{"),
            Taken(TOPICS.jobs, 0, 1, job.closed.encode()),
            Taken(TOPICS.scores, 0, 7, second.encode()),
            Taken(TOPICS.jobs, 0, 2, None),
        ]
    )
    batch = intake.batch
    assert [(s.partition, s.offset, s.message) for s in batch.scores] == [
        (0, 4, first),
        (0, 7, second),
    ]
    assert batch.jobs == [job.closed]
    assert [(r.topic, r.partition, r.offset, r.rejection.defect) for r in batch.rejected] == [
        (TOPICS.scores, 1, 9, Defect.UNDECODABLE),
    ]
    # The last but moves its partition: what was said of a job is taken back.
    assert batch.next_offsets == {
        (TOPICS.scores, 0): 8,
        (TOPICS.scores, 1): 10,
        (TOPICS.jobs, 0): 3,
    }
    assert (len(batch), batch.size) == (4, len(first.encode()) + len(second.encode()) + 1)


def test_what_was_taken_of_a_partition_can_be_forgotten(tmp_path):
    job = plain_job("taken", 2, tmp_path)
    first, second = job.scores
    intake = Intake(TOPICS)
    intake.add(
        [
            Taken(TOPICS.scores, 0, 4, first.encode()),
            Taken(TOPICS.scores, 1, 2, second.encode()),
            Taken(TOPICS.scores, 0, 5, b"{"),
            Taken(TOPICS.jobs, 0, 1, job.closed.encode()),
        ]
    )
    intake.forget({(TOPICS.scores, 0)})
    assert [s.message for s in intake.batch.scores] == [second]
    assert (intake.batch.rejected, intake.batch.jobs) == ([], [job.closed])
    assert intake.batch.next_offsets == {(TOPICS.scores, 1): 3, (TOPICS.jobs, 0): 2}
    assert intake.batch.size == len(second.encode())
    intake.forget({(TOPICS.jobs, 0)})
    assert intake.batch.jobs == []
