"""A CSV's rows are on `pairs` once each and as they are, whatever ended the runs before."""

import gzip
import threading

import pytest

from pairscore.csv_file.records import quote_cell
from pairscore.errors import InputError
from producer import publication as module
from producer.faults import TakenOver
from producer.publication import Published
from shared.messages import JobState, key_of
from tests.fetching import wait_until
from tests.producing import Place, place, text_of, write_set
from tests.publishing import NOW, Crash, Crashing, Run


@pytest.fixture
def here(kafka, topic_prefix) -> Place:
    return place(kafka.bootstrap_servers, topic_prefix)


ODD = (
    b"u,c\r\n"
    b'"u","c"\r\n'
    b'u,"a ""quoted"" c"\n'
    b'u,"two\r\nlines"\r\n'
    b'u,"ends"oddly\n'
    b" u , c \r"
    b"\r\n"
    b"   \n"
    b"u\n"
    b"u,c,more\n"
    b'""\n'
    b",\n"
    b"\xc3\xa9\xe2\x80\xa8,\xf0\x9f\x98\x80\x01\\\n"
    b"last,without an end"
)


@pytest.mark.parametrize("head", [b"url,caption\n", b'\xef\xbb\xbf"url",caption\r\n'])
@pytest.mark.parametrize("packed", [False, True])
def test_every_row_arrives_once_and_as_it_is(here, tmp_path, head, packed):
    source = tmp_path / ("in.csv.gz" if packed else "in.csv")
    source.write_bytes(gzip.compress(head + ODD) if packed else head + ODD)
    published = Run(here, source, transaction_rows=4).run()
    rows = here.pairs()
    assert [row.row for row in rows] == list(range(14))
    assert (published.rows, published.start) == (14, 0)
    assert [text_of(row, ",") for row in rows] == [
        "u,c",
        '"u","c"',
        'u,"a ""quoted"" c"',
        'u,"two\r\nlines"',
        'u,"ends"oddly',
        " u , c ",
        "",
        "   ",
        "u",
        "u,c,more",
        '""',
        ",",
        "é\u2028,\U0001f600\x01\\",
        "last,without an end",
    ]
    assert [(row.url, row.caption) for row in rows[3:10]] == [
        ("u", "two\r\nlines"),
        ("u", "endsoddly"),
        (" u ", " c "),
        ("", ""),
        ("   ", ""),
        ("u", ""),
        ("u", "c"),
    ]
    assert {(row.job, row.width, row.attempt) for row in rows} == {("a-job", 2, 1)}
    [job] = here.jobs().values()
    assert (job.state, job.rows, job.rows_published) == (JobState.CLOSED, 14, 14)
    assert job.csv is not None
    assert (job.csv.bom, job.csv.header_raw) == (
        (False, None) if head.startswith(b"url") else (True, '"url",caption')
    )
    assert job.csv.terminator == ("\n" if head.startswith(b"url") else "\r\n")


def test_rows_have_their_url_as_key_and_the_same_url_the_same_partition(here, tmp_path):
    source = tmp_path / "in.csv"
    source.write_text("url,caption\n" + "".join(f"u{row % 5},c\n" for row in range(50)))
    Run(here, source).run()
    found = here.records(here.topics.pairs)
    keys = {record.key() for record in found}
    assert keys == {key_of(f"u{number}") for number in range(5)}
    assert len({(record.key(), record.partition()) for record in found}) == 5
    assert {record.key() for record in here.records(here.topics.jobs)} == {b"a-job"}


def test_many_columns_and_huge_cells_arrive_as_they_are(here, tmp_path):
    source = tmp_path / "wide.csv"
    names = [f"column {number}" for number in range(98)] + ["url", "caption"]
    huge = 'a "huge" cell, ' * 50_000
    cells = [f"{number} " * number for number in range(98)] + ["u", huge]
    lines = [",".join(names), ",".join(quote_cell(cell, ",") for cell in cells)]
    source.write_text("\n".join(lines) + "\n")
    Run(here, source).run()
    [row] = here.pairs()
    assert list(row.columns) == cells
    assert (row.caption, row.width, text_of(row, ",")) == (huge, 100, lines[1])


def test_a_file_without_rows_is_a_closed_job_without_rows(here, tmp_path):
    source = tmp_path / "in.csv"
    source.write_text("url,caption\n")
    assert Run(here, source).run().rows == 0
    assert here.pairs() == []
    assert here.jobs()["a-job"].rows == 0
    assert Run(here, source).run().was_closed


def test_a_transaction_ends_after_so_many_rows(here, tmp_path):
    run = Run(here, write_set(tmp_path / "in.csv", 25), transaction_rows=10)
    run.run()
    assert run.told == [10, 20, 25]


def test_a_number_of_rows_that_fills_its_transactions_is_closed_in_one_of_its_own(here, tmp_path):
    run = Run(here, write_set(tmp_path / "in.csv", 20), transaction_rows=10)
    run.run()
    assert run.told == [10, 20, 20]
    assert here.jobs()["a-job"].rows == 20


def test_a_transaction_ends_after_so_many_bytes(here, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 2_000)
    source = tmp_path / "in.csv"
    source.write_text("url,caption\n" + f"u,{'x' * 2_000}\n" * 3)
    run = Run(here, source)
    run.run()
    assert run.told == [1, 2, 3, 3]


def test_rows_can_be_seen_after_so_many_seconds_however_slow_they_come(here, tmp_path):
    source = write_set(tmp_path / "in.csv", 30)
    run = Run(here, source, limit_rate=20.0, transaction_seconds=0.2)
    run.run()
    steps = [after - before for before, after in zip([0, *run.told], run.told, strict=False)]
    assert max(steps) <= 6
    assert sum(steps) == 30


def test_a_rate_is_kept_to(here, tmp_path):
    source = write_set(tmp_path / "in.csv", 200)
    Run(here, source, limit_rate=100.0, transaction_seconds=0.1).run()
    stamps = sorted(record.timestamp()[1] for record in here.records(here.topics.pairs))
    assert stamps[-1] - stamps[0] >= 1_700
    for first, then in zip(stamps, stamps[130:], strict=False):
        assert then - first >= 900


@pytest.mark.parametrize("after", [1, 3])
def test_a_run_that_crashed_after_a_commit_is_gone_on_with(here, tmp_path, after):
    source = write_set(tmp_path / "in.csv", 50)
    with pytest.raises(Crash):
        Crashing(here, source, transaction_rows=10, after=after).run()
    run = Run(here, source, transaction_rows=7)
    assert run.run() == Published("a-job", 50, 10 * after, NOW, was_closed=False)
    assert run.start == 10 * after
    assert [row.row for row in here.pairs()] == list(range(50))


def test_a_run_that_crashed_after_the_last_commit_published_all(here, tmp_path):
    source = write_set(tmp_path / "in.csv", 25)
    with pytest.raises(Crash):
        Crashing(here, source, transaction_rows=10, after=3).run()
    run = Run(here, source)
    assert run.run().was_closed
    assert run.told == []
    assert len(here.pairs()) == 25


def test_a_run_that_crashed_before_it_closed_the_job_is_gone_on_with(here, tmp_path):
    source = write_set(tmp_path / "in.csv", 20)
    with pytest.raises(Crash):
        Crashing(here, source, transaction_rows=10, after=2).run()
    assert here.jobs()["a-job"].state is JobState.OPEN
    assert Run(here, source).run().start == 20
    assert len(here.pairs()) == 20
    assert here.jobs()["a-job"].rows == 20


def test_a_run_that_was_asked_to_end_leaves_whole_transactions(here, tmp_path):
    source = write_set(tmp_path / "in.csv", 1000)

    class Asked(Run):
        def reached(self, rows: int) -> None:
            super().reached(rows)
            self.stop.ask()

    asked = Asked(here, source, transaction_rows=100)
    with pytest.raises(KeyboardInterrupt):
        asked.run()
    assert "100 of 1,000 rows of job a-job are published" in asked.publication.progress
    wait_until(lambda: not here.left_open(), within=5)
    assert Run(here, source).run().start == 100
    assert [row.row for row in here.pairs()] == list(range(1000))


def test_a_second_run_takes_the_job_over_and_no_row_is_lost_or_doubled(here, tmp_path):
    source = write_set(tmp_path / "in.csv", 1000)
    begun = threading.Event()

    class First(Run):
        def reached(self, rows: int) -> None:
            super().reached(rows)
            begun.set()

    first = First(here, source, limit_rate=100.0, transaction_seconds=0.2)
    raised: list[BaseException] = []

    def publish() -> None:
        try:
            first.run()
        except TakenOver as error:
            raised.append(error)

    thread = threading.Thread(target=publish)
    thread.start()
    assert begun.wait(30)
    second = Run(here, source)
    published = second.run()
    thread.join(30)
    assert [str(error) for error in raised] == [str(TakenOver())]
    assert published.start >= first.told[-1]
    assert [row.row for row in here.pairs()] == list(range(1000))


def test_other_content_under_the_same_name_is_refused_open_or_closed(here, tmp_path):
    source = write_set(tmp_path / "in.csv", 30)
    with pytest.raises(Crash):
        Crashing(here, source, transaction_rows=10, after=1).run()
    other = write_set(tmp_path / "other.csv", 31)
    with pytest.raises(InputError, match=r"published from something else .*sha256.*--job"):
        Run(here, other).run()
    Run(here, source).run()
    with pytest.raises(InputError, match="published from something else"):
        Run(here, other).run()
    with pytest.raises(InputError, match="details was False and is True"):
        Run(here, source, details=True).run()
    assert len(here.pairs()) == 30
    assert Run(here, other, job="another-job").run().rows == 31


def test_other_content_under_the_name_of_a_job_does_not_end_whoever_publishes_it(here, tmp_path):
    source = write_set(tmp_path / "in.csv", 30)
    other = write_set(tmp_path / "other.csv", 31)
    refused: list[str] = []

    class Disturbed(Run):
        def reached(self, rows: int) -> None:
            super().reached(rows)
            if not refused:
                with pytest.raises(InputError, match="published from something else") as error:
                    Run(here, other).run()
                refused.append(str(error.value))

    assert Disturbed(here, source, transaction_rows=10).run().rows == 30
    assert refused
    assert [row.row for row in here.pairs()] == list(range(30))


def test_a_file_that_changed_after_it_was_checked_publishes_nothing(here, tmp_path):
    run = Run(here, write_set(tmp_path / "in.csv", 10))
    write_set(tmp_path / "in.csv", 11)
    with pytest.raises(InputError, match=r"in.csv: the file has changed since it was checked"):
        run.run()
    assert here.jobs() == {}


@pytest.mark.parametrize("rows", [20_000, 50_000, 60_000])
def test_a_file_that_changes_meanwhile_never_closes_its_job(here, tmp_path, rows):
    source = write_set(tmp_path / "in.csv", 50_000)

    class Changed(Run):
        def reached(self, rows_published: int) -> None:
            super().reached(rows_published)
            if rows_published == 1000:
                # The same file, as a program would see it that writes it anew in place.
                write_set(
                    source,
                    rows,
                    words={row: f"A caption of some words {row}" for row in range(rows)},
                )

    run = Changed(here, source, transaction_rows=1000)
    with pytest.raises(InputError, match=r"changed while it was being published; .*--job"):
        run.run()
    assert here.jobs()["a-job"].state is JobState.OPEN
    wait_until(lambda: not here.left_open(), within=5)
    assert len(here.pairs()) == run.told[-1]
