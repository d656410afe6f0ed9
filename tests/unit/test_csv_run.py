"""Scoring a file: every row once and in order, through crashes, to the same bytes."""

import csv
import gzip
import hashlib
import io
import itertools
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pairscore.csv_file import Plan, Summary, prepare, run
from pairscore.csv_file.ordered import MALFORMED_RUN, OrderedRows
from pairscore.csv_file.records import Record
from pairscore.errors import EnvironmentFault, InputError
from pairscore.pair import Failure, Outcome, Pair, Reason, Score

DATA = (
    b"\xef\xbb\xbfid,url,caption\r\n"
    b'1,http://a/1,"x, ""y""\r\nz"\r\n'
    b"2,http://a/2\r\n"
    b"\r\n"
    b"3,http://a/3,caf\xc3\xa9 \xf0\x9f\x90\x88\r\n"
    b'4,http://a/bad,c,surplus,"a\nb"\r\n'
    b'5,"http://a/bad",c\r\n'
    b"  \r\n"
    b"6,http://a/4,d"
)


class Crash(Exception):
    """What a test raises in the middle of a run."""


def score_one(pair: Pair) -> Outcome:
    """An outcome that depends on the pair alone."""
    if "bad" in pair.url:
        return Failure(Reason.HTTP_ERROR, '404, "gone"', attempts=3)
    digest = hashlib.sha256(f"{pair.url}\0{pair.caption}".encode()).hexdigest()
    value = int(digest[:4], 16) / 0xFFFF
    return Score(value * 100, value, "é" in pair.caption, digest, 1)


class Scorer:
    """Scores `ahead` pairs behind those it has read, and can be told to crash."""

    def __init__(self, ahead: int = 3, crash_after: int | None = None) -> None:
        self.ahead = ahead
        self.crash_after = crash_after
        self.seen: list[Pair] = []
        self.given = 0

    def __call__(self, pairs: Iterable[Pair]) -> Iterator[Outcome]:
        waiting: list[Pair] = []
        for pair in pairs:
            self.seen.append(pair)
            waiting.append(pair)
            if len(waiting) > self.ahead:
                yield self.give(waiting.pop(0))
        while waiting:
            yield self.give(waiting.pop(0))

    def give(self, pair: Pair) -> Outcome:
        if self.given == self.crash_after:
            raise Crash
        self.given += 1
        return score_one(pair)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.csv"
    path.write_bytes(DATA)
    return path


def score(source: Path, scorer: Scorer | None = None, model: str = "m", **options) -> Summary:
    return run(prepare(source, **options), scorer or Scorer(), fingerprint=model)


def beside(source: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in source.parent.iterdir() if p != source}


def parse(data: bytes, delimiter: str = ",") -> list[list[str]]:
    text = data.decode("utf-8-sig")
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))


def test_every_row_comes_out_once_with_its_bytes_and_an_outcome(source):
    summary = score(source)
    output = source.with_name("in_scored.csv")
    one, three, six = (
        f"{score_one(Pair(u, c)).similarity:.4f}"  # type: ignore[union-attr]
        for u, c in (
            ("http://a/1", 'x, "y"\r\nz'),
            ("http://a/3", "café 🐈"),
            ("http://a/4", "d"),
        )
    )
    assert output.read_bytes() == (
        b"\xef\xbb\xbfid,url,caption,similarity,error\r\n"
        b'1,http://a/1,"x, ""y""\r\nz",' + one.encode() + b",\r\n"
        b"2,http://a/2,,,malformed_row: 2 cells under 3 columns\r\n"
        b",,,,malformed_row: empty line\r\n"
        b"3,http://a/3,caf\xc3\xa9 \xf0\x9f\x90\x88," + three.encode() + b",\r\n"
        b'4,http://a/bad,c,,malformed_row: 5 cells under 3 columns,surplus,"a\nb"\r\n'
        b'5,"http://a/bad",c,,"http_error: 404, ""gone"""\r\n'
        b"  ,,,,malformed_row: 1 cell under 3 columns\r\n"
        b"6,http://a/4,d," + six.encode() + b",\r\n"
    )
    assert (summary.rows, summary.scored, summary.resumed_rows) == (8, 3, 0)
    assert summary.failed == {Reason.MALFORMED_ROW: 4, Reason.HTTP_ERROR: 1}
    assert summary.output == output
    assert summary.input_sha256 == hashlib.sha256(DATA).hexdigest()
    assert summary.output_sha256 == hashlib.sha256(output.read_bytes()).hexdigest()
    assert set(beside(source)) == {"in_scored.csv"}
    assert source.read_bytes() == DATA


def test_details_are_added(source):
    score(source, details=True)
    header, first, second, *_ = parse(source.with_name("in_scored.csv").read_bytes())
    outcome = score_one(Pair(first[1], first[2]))
    assert isinstance(outcome, Score)
    assert header[3:] == [
        "similarity",
        "error",
        "cosine",
        "caption_truncated",
        "image_sha256",
        "attempts",
    ]
    assert first[5:] == [f"{outcome.cosine:.6f}", "false", outcome.image_sha256, "1"]
    assert second[5:] == ["", "", "", "0"]


def test_a_header_alone_gives_a_header_alone(source):
    source.write_bytes(b"url|caption")
    summary = score(source)
    assert source.with_name("in_scored.csv").read_bytes() == b"url|caption|similarity|error\n"
    assert (summary.rows, summary.failed, summary.rows_per_second) == (0, {}, 0.0)


def test_rows_per_second_counts_what_this_run_did():
    def after(seconds: float) -> Summary:
        return Summary(30, 30, {}, 10, seconds, Path("x"), "", "")

    assert after(4.0).rows_per_second == 5.0
    assert after(0.0).rows_per_second == 0.0


def test_progress_is_told_of_every_row_in_order(source):
    told: list[tuple[int, str]] = []
    run(
        prepare(source),
        Scorer(),
        fingerprint="m",
        progress=lambda rows, outcome: told.append((rows, type(outcome).__name__)),
    )
    kinds = ["Score", "Failure", "Failure", "Score", "Failure", "Failure", "Failure", "Score"]
    assert told == list(enumerate(kinds, 1))


def test_an_old_output_is_replaced_only_when_the_new_one_is_whole(source):
    output = source.with_name("in_scored.csv")
    output.write_text("old")
    with pytest.raises(Crash):
        score(source, Scorer(crash_after=2), overwrite=True)
    assert output.read_text() == "old"
    score(source, overwrite=True)
    assert len(parse(output.read_bytes())) == 9


def test_columns_of_an_earlier_run_are_replaced(source):
    source.write_bytes(b"id,url,caption\n1,http://a/1,c\n2,http://a/2,d\n")
    score(source)
    once = source.with_name("in_scored.csv")
    score(once, details=True, overwrite=True)
    twice = parse(source.with_name("in_scored_scored.csv").read_bytes())
    assert twice[0] == [
        *("id", "url", "caption", "similarity", "error"),
        *("cosine", "caption_truncated", "image_sha256", "attempts"),
    ]
    assert [row[3] for row in twice] == [row[3] for row in parse(once.read_bytes())]


@settings(deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.lists(st.text().map(lambda t: t.replace("\0", "")), max_size=5), st.integers(0, 3)
        )
    ),
    delimiter=st.sampled_from([",", "\t", ";", "|"]),
    terminator=st.sampled_from(["\n", "\r\n", "\r"]),
    bom=st.booleans(),
    packed=st.booleans(),
    last=st.booleans(),
    crash_after=st.integers(0, 5),
)
def test_any_file_comes_out_with_its_cells_and_resumes_to_the_same_bytes(
    tmp_path_factory, rows, delimiter, terminator, bom, packed, last, crash_after
):
    text = io.StringIO()
    text.write(delimiter.join(["url", "caption", "n"]) + terminator)
    for cells, quoting in rows:
        csv.writer(
            text, delimiter=delimiter, lineterminator=terminator, quoting=(0, 1, 2, 0)[quoting]
        ).writerow(cells)
    data = ("\ufeff" * bom + text.getvalue()).encode()
    if not last and parse(data[: -len(terminator)], delimiter) == parse(data, delimiter):
        data = data[: -len(terminator)]
    folder = tmp_path_factory.mktemp("any")
    source = folder / "in.csv"
    source.write_bytes(gzip.compress(data) if packed else data)
    score(source, output=folder / "whole.csv")
    output = (folder / "whole.csv").read_bytes()
    for before, after in itertools.zip_longest(parse(data, delimiter), parse(output, delimiter)):
        width = max(3, len(before))
        padded = before + [""] * (width - len(before))
        assert after[:3] + after[5:] == padded
        assert len(after) == width + 2
    try:
        score(source, Scorer(crash_after=crash_after), output=folder / "again.csv")
    except Crash:
        score(source, output=folder / "again.csv", resume=True)
    assert (folder / "again.csv").read_bytes() == output


def interrupted(source: Path, scorer: Scorer, **options) -> tuple[bytes, bytes]:
    """Crash a run of `source`; its partial and sidecar."""
    with pytest.raises(Crash):
        score(source, scorer, **options)
    (partial,) = source.parent.glob("*.partial")
    return partial.read_bytes(), partial.with_name(partial.name + ".json").read_bytes()


@pytest.mark.parametrize("details", [False, True])
def test_a_run_resumes_from_a_partial_cut_at_any_byte(source, details):
    _, sidecar = interrupted(source, Scorer(crash_after=3), details=details)
    score(source, details=details, overwrite=True)
    output = source.with_name("in_scored.csv")
    whole = output.read_bytes()
    boundaries = [len(whole) - len(rest) for rest in _rests(whole)]
    for size in range(len(whole) + 1):
        output.unlink(missing_ok=True)
        source.with_name("in_scored.csv.partial").write_bytes(whole[:size])
        source.with_name("in_scored.csv.partial.json").write_bytes(sidecar)
        scorer = Scorer()
        summary = score(source, scorer, details=details, resume=True)
        assert output.read_bytes() == whole
        assert summary.resumed_rows == max(0, sum(end <= size for end in boundaries) - 1)
        assert (summary.rows, summary.scored) == (8, 3)
        assert summary.failed == {Reason.MALFORMED_ROW: 4, Reason.HTTP_ERROR: 1}
        assert set(beside(source)) == {"in_scored.csv"}


def _rests(whole: bytes) -> Iterator[bytes]:
    """What follows each record, found by parsing prefixes strictly."""
    for size in range(1, len(whole) + 1):
        if whole[:size].endswith(b"\r\n"):
            try:
                list(csv.reader(io.StringIO(whole[:size].decode(), newline=""), strict=True))
            except csv.Error:
                continue
            yield whole[size:]


@pytest.mark.parametrize("tail", [b"\0" * 600, b"\xff\xfe", b"7,http://a/9,x,1.0000,\r\n", b'"'])
@pytest.mark.parametrize("rows", [0, 3])
def test_what_a_power_cut_leaves_at_the_end_is_cut_off(source, tail, rows):
    _, sidecar = interrupted(source, Scorer(crash_after=1))
    score(source, overwrite=True)
    output = source.with_name("in_scored.csv")
    whole = output.read_bytes()
    output.unlink()
    kept = len(whole) - len(list(_rests(whole))[rows])
    source.with_name("in_scored.csv.partial").write_bytes(whole[:kept] + tail)
    source.with_name("in_scored.csv.partial.json").write_bytes(sidecar)
    assert score(source, resume=True).resumed_rows == rows
    assert output.read_bytes() == whole


def test_more_rows_than_the_input_has_are_cut_off(source):
    _, sidecar = interrupted(source, Scorer(crash_after=1))
    score(source, overwrite=True)
    output = source.with_name("in_scored.csv")
    whole = output.read_bytes()
    output.rename(source.with_name("in_scored.csv.partial")).write_bytes(whole + whole)
    source.with_name("in_scored.csv.partial.json").write_bytes(sidecar)
    assert score(source, resume=True).resumed_rows == 8
    assert output.read_bytes() == whole


@pytest.mark.parametrize("crash_after", range(4))
def test_only_what_is_not_finished_is_scored_again(source, crash_after):
    first, second = Scorer(crash_after=crash_after), Scorer()
    interrupted(source, first)
    summary = score(source, second, resume=True)
    assert [p.url for p in second.seen] == ["http://a/1", "http://a/3", "http://a/bad",
                                            "http://a/4"][crash_after:]  # fmt: skip
    assert summary.resumed_rows == [0, 3, 5, 7][crash_after]


@pytest.mark.parametrize("error", [KeyboardInterrupt, Crash])
def test_an_interrupt_leaves_every_finished_row_in_the_partial(source, error):
    def interrupt(rows: int, outcome: Outcome) -> None:
        if rows == 5:
            raise error

    with pytest.raises(error):
        run(prepare(source), Scorer(), fingerprint="m", progress=interrupt)
    left = beside(source)
    assert set(left) == {"in_scored.csv.partial", "in_scored.csv.partial.json"}
    assert len(parse(left["in_scored.csv.partial"])) == 1 + 5
    assert score(source, resume=True).resumed_rows == 5


def test_a_killed_run_resumes_to_the_same_bytes(source):
    source.write_bytes(b"url,caption\n" + b"".join(b"http://a/%d,c\n" % i for i in range(50)))
    whole = score(source, output=source.with_name("whole.csv"))
    code = (
        "import itertools, os, signal, sys; from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_csv_run import Scorer, prepare, run\n"
        "def kill(rows, outcome):\n"
        "    if rows == 30: os.kill(os.getpid(), signal.SIGKILL)\n"
        "clock = itertools.count().__next__\n"  # a second passes at each look: all rows are flushed
        f"plan = prepare(Path({str(source)!r}))\n"
        "run(plan, Scorer(), fingerprint='m', progress=kill, clock=clock)"
    )
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -signal.SIGKILL
    summary = score(source, resume=True)
    assert summary.resumed_rows == 30
    assert summary.output.read_bytes() == whole.output.read_bytes()


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_line_and_the_run_resumes(source):
    source.write_bytes(b"url,caption\n" + b"".join(b"http://a/%d,c\n" % i for i in range(100)))
    whole = score(source, output=source.with_name("whole.csv"))
    plan = prepare(source)
    with (
        disk_of(1000),
        pytest.raises(EnvironmentFault, match=r"partial: cannot be written: .*--resume"),
    ):
        run(plan, Scorer(), fingerprint="m")
    summary = score(source, resume=True)
    assert 0 < summary.resumed_rows < 100
    assert summary.output.read_bytes() == whole.output.read_bytes()


def test_gzip_out_is_packed_the_same_after_a_resume(source):
    outputs = [source.with_name(name) for name in ("a.csv.gz", "b.csv.gz")]
    summary = score(source, output=outputs[0])
    interrupted(source, Scorer(crash_after=2), output=outputs[1])
    score(source, output=outputs[1], resume=True)
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    assert summary.output_sha256 == hashlib.sha256(outputs[0].read_bytes()).hexdigest()
    assert len(parse(gzip.decompress(outputs[0].read_bytes()))) == 9
    assert set(beside(source)) == {"a.csv.gz", "b.csv.gz"}


def killed_while_tidying_up(source: Path, output: Path) -> bytes:
    """Leave the result, and beside it what `finish` would have removed next; give the result."""
    interrupted(source, Scorer(crash_after=2), output=output)
    left = {p: p.read_bytes() for p in output.parent.glob(f"{output.name}.partial*")}
    score(source, output=output, resume=True)
    rows = gzip.decompress(output.read_bytes())
    for path, data in left.items():
        path.write_bytes(data if path.suffix == ".json" else rows)
    return output.read_bytes()


def test_a_run_that_was_killed_between_packing_and_tidying_up_is_resumed(source):
    output = source.with_name("out.csv.gz")
    result = killed_while_tidying_up(source, output)
    scorer = Scorer()
    summary = score(source, scorer, output=output, resume=True)
    assert (summary.rows, summary.resumed_rows, scorer.seen) == (8, 8, [])
    assert beside(source) == {"out.csv.gz": result}


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:-9], lambda _: gzip.compress(b"a"), lambda _: b"text"]
)
def test_another_output_is_not_taken_for_the_packed_one(source, spoil):
    output = source.with_name("out.csv.gz")
    other = spoil(killed_while_tidying_up(source, output))
    output.write_bytes(other)
    with pytest.raises(InputError, match="the output exists already"):
        score(source, output=output, resume=True)
    assert output.read_bytes() == other


@pytest.mark.parametrize(
    ("options", "model", "difference"),
    [
        ({"details": True}, "m", "details was False and is True"),
        ({"caption_column": "id"}, "m", "caption_column was 'caption' and is 'id'"),
        ({"url_column": "id"}, "m", "url_column was 'url' and is 'id'"),
        ({}, "other", "fingerprint was 'm' and is 'other'"),
    ],
)
def test_a_run_is_resumed_only_with_what_it_was_begun_with(source, options, model, difference):
    interrupted(source, Scorer(crash_after=2))
    before = beside(source)
    with pytest.raises(InputError, match=f"cannot be continued, because {difference}; .*overwrite"):
        score(source, model=model, resume=True, **options)
    assert beside(source) == before


def test_a_run_is_not_resumed_with_another_input(source):
    interrupted(source, Scorer(crash_after=2))
    source.write_bytes(DATA + b"\r\n7,http://a/7,d")
    with pytest.raises(InputError, match=r"because input_sha256 was '.*' and is '.*'; "):
        score(source, resume=True)


def test_resuming_keeps_the_permission_to_overwrite(source):
    output = source.with_name("in_scored.csv")
    output.write_text("old")
    interrupted(source, Scorer(crash_after=2), overwrite=True)
    assert score(source, resume=True).resumed_rows == 5
    assert len(parse(output.read_bytes())) == 9


def test_overwriting_discards_an_interrupted_run(source):
    interrupted(source, Scorer(crash_after=2))
    summary = score(source, model="other", overwrite=True)
    assert (summary.rows, summary.resumed_rows) == (8, 0)


def test_resuming_and_overwriting_continues_and_replaces(source):
    interrupted(source, Scorer(crash_after=2))
    output = source.with_name("in_scored.csv")
    output.write_text("old")
    assert score(source, resume=True, overwrite=True).resumed_rows == 5
    assert len(parse(output.read_bytes())) == 9


def test_resuming_where_there_is_nothing_starts_at_the_first_row(source):
    assert score(source, resume=True).resumed_rows == 0


def refused(plan: Plan, match: str) -> None:
    scorer = Scorer()
    with pytest.raises(InputError, match=match):
        run(plan, scorer, fingerprint="m")
    assert scorer.seen == []


def test_what_changed_since_the_plan_was_made_is_found_before_scoring(source):
    plan = prepare(source)
    source.write_bytes(DATA + b"\r\n")
    refused(plan, "the file has changed since it was checked")
    plan = prepare(source)
    plan.output.write_text("another's")
    refused(plan, "the output exists already")
    plan.output.unlink()
    interrupted(source, Scorer(crash_after=2))
    refused(plan, "an earlier run was interrupted")
    plan = prepare(source, resume=True)
    score(source, resume=True)
    plan.output.unlink()
    refused(plan, "another run has changed it")


def test_an_input_that_changes_while_it_is_scored_gives_no_output(source):
    source.write_bytes(b"url,caption\n" + b"http://a/1,c\n" * 300_000)
    plan = prepare(source)

    def change(rows: int, outcome: Outcome) -> None:
        if rows == 1:
            with source.open("r+b") as file:
                file.seek(-3, os.SEEK_END)
                file.write(b"d")

    with pytest.raises(InputError, match="changed while it was being scored"):
        run(plan, Scorer(), fingerprint="m", progress=change)
    assert not plan.output.exists()


def test_malformed_rows_never_reach_the_scorer_and_are_not_hoarded():
    count = 3 * MALFORMED_RUN
    read = 0

    def rows() -> Iterator[Record]:
        nonlocal read
        for text in itertools.chain(["a,b"], itertools.repeat("", count), ["c,d"]):
            read += 1
            yield Record(read, text.split(",") if text else [], text, "\n")

    scorer = Scorer(ahead=100)
    ordered = OrderedRows(rows(), width=2, url=0, caption=1, score=scorer)
    most = done = 0
    for record, outcome in ordered.outcomes():
        done += 1
        assert record.line == done
        assert isinstance(outcome, Failure) == (record.raw == "")
        most = max(most, read - done)
    assert done == count + 2
    assert most <= MALFORMED_RUN + 1
    assert scorer.seen == [Pair("a", "b"), Pair("c", "d")]


def test_malformed_rows_between_pairs_are_not_hoarded_either():
    pairs, between, ahead = 300, 200, 100
    read = 0

    def rows() -> Iterator[Record]:
        nonlocal read
        for number in range(pairs * (between + 1)):
            read += 1
            cells = [] if number % (between + 1) else [str(number), "b"]
            yield Record(read, cells, ",".join(cells), "\n")

    scorer = Scorer(ahead=ahead)
    ordered = OrderedRows(rows(), width=2, url=0, caption=1, score=scorer)
    lines, most = [], 0
    for record, _ in ordered.outcomes():
        lines.append(record.line)
        most = max(most, read - len(lines))
    assert lines == list(range(1, pairs * (between + 1) + 1))
    assert len(scorer.seen) == pairs
    assert most <= MALFORMED_RUN + ahead


@pytest.mark.parametrize(
    ("scorer", "match"),
    [
        (lambda pairs: (score_one(p) for p in itertools.islice(pairs, 1)), "fewer outcomes"),
        (lambda pairs: iter([score_one(p) for p in pairs][:-1]), "fewer outcomes"),
        (lambda pairs: iter([score_one(p) for p in pairs] * 2), "more outcomes"),
    ],
)
def test_a_scorer_that_loses_count_is_a_defect(source, scorer, match):
    with pytest.raises(RuntimeError, match=match):
        run(prepare(source), scorer, fingerprint="m")
    assert not source.with_name("in_scored.csv").exists()
