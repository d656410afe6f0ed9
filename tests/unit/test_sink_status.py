"""`python -m sink status` shows jobs as they are, for people and for programs."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pairscore.errors import InputError
from pairscore.pair import Reason
from shared.results import make_status
from shared.settings import StoreSettings
from sink.cli import main
from sink.status import as_dict, describe, missing, show_status
from tests.sinking import plain_job
from tests.spooling import batch_of, spool_in

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

STATUS = make_status(
    [("", "m", 1_000), ("timeout", "m", 3), ("dns_error", "m", 5), ("timeout", "n", 2)],
    job="sunday",
    source="challenge_set.csv",
    state="closed",
    rows_published=1_020,
    rows=1_020,
    result=None,
    created_at=BEGAN,
    updated_at=BEGAN + timedelta(seconds=101),
)


def test_rows_in_are_scored_and_failed_and_missing():
    assert (STATUS.scored, STATUS.done, missing(STATUS), STATUS.lag) == (1_000, 1_010, 10, 10)
    assert STATUS.failed == {Reason.TIMEOUT: 5, Reason.DNS_ERROR: 5}
    assert STATUS.models == {"m": 1_008, "n": 2}
    assert STATUS.rows_per_second == 10.0


def test_a_job_that_is_open_misses_what_is_published():
    opened = replace(STATUS, state="open", rows=None, rows_published=2_000)
    assert missing(opened) == opened.lag == 990
    early = replace(opened, rows_published=0)
    assert missing(early) == early.lag == 0


def test_a_rate_needs_rows_and_time():
    assert replace(STATUS, updated_at=BEGAN).rows_per_second is None
    assert replace(STATUS, scored=0, failed={}).rows_per_second is None
    assert STATUS.rate_until(BEGAN + timedelta(seconds=202)) == 5.0


def test_a_job_is_described_with_its_reasons_and_models():
    assert describe(STATUS).splitlines() == [
        "job sunday: closed, 10 outcomes are still to come",
        "rows in                        1,020",
        "published                      1,020",
        "scored                         1,000",
        "failed                            10",
        "  dns_error                        5",
        "  timeout                          5",
        "missing                           10",
        "rows/s                          10.0",
        "source                  challenge_set.csv",
        "model                   m (1,008 rows)",
        "model                   n (2 rows)",
        "begun                   2026-01-02 03:04:05 UTC",
        "last stored             2026-01-02 03:05:46 UTC",
        "result                  not yet",
    ]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (replace(STATUS, state="open", rows=None), "open, rows are still being published"),
        (replace(STATUS, rows=1_011), "closed, 1 outcome is still to come"),
        (
            replace(STATUS, rows=1_010),
            "closed, every outcome is stored, the result is about to be written",
        ),
        (replace(STATUS, state="complete", rows=1_010, result="here"), "complete"),
    ],
)
def test_a_job_says_what_it_waits_for(status, said):
    assert describe(status).splitlines()[0] == f"job sunday: {said}"


def test_a_job_for_programs_has_everything():
    assert as_dict(STATUS) == {
        "job": "sunday",
        "source": "challenge_set.csv",
        "state": "closed",
        "rows": 1_020,
        "rows_published": 1_020,
        "scored": 1_000,
        "failed": {"dns_error": 5, "timeout": 5},
        "missing": 10,
        "rows_per_second": 10.0,
        "models": {"m": 1_008, "n": 2},
        "result": None,
        "created_at": "2026-01-02T03:04:05+00:00",
        "updated_at": "2026-01-02T03:05:46+00:00",
    }


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    with spool_in(folder) as spool:
        first, second = (plain_job(name, 10, tmp_path / "in") for name in ("first", "second"))
        spool.store(batch_of([first.closed, *first.scores, *first.scores[:2]]))
        spool.store(batch_of([second.begun, *second.scores[:3]]))
    return folder


def test_the_table_has_a_line_for_each_job(results):
    head, *lines = show_status(
        StoreSettings(results=str(results)), None, as_json=False
    ).splitlines()
    assert head.split() == [
        *("JOB", "STATE", "ROWS", "PUBLISHED", "SCORED", "FAILED", "MISSING", "ROWS/S", "RESULT")
    ]
    cells = {line.split()[0]: line.split() for line in lines[:2]}
    assert cells["first"][:7] == ["first", "closed", "10", "10", "9", "1", "0"]
    assert cells["second"][:7] == ["second", "open", "?", "0", "3", "0", "0"]
    assert lines[2:] == ["2 outcomes came again for rows that had one and were left out"]
    assert len({line.index("closed" if "closed" in line else "open") for line in lines[:2]}) == 1


def test_a_terminal_gets_the_columns_that_it_has_room_for(results):
    def shown(width: int) -> list[str]:
        text = show_status(StoreSettings(results=str(results)), None, as_json=False, width=width)
        return text.splitlines()

    head, *lines = shown(63)
    assert head.split() == ["JOB", "STATE", "ROWS", "PUBLISHED", "SCORED", "FAILED", "MISSING"]
    assert max(map(len, [head, *lines[:2]])) <= 63
    assert lines[2] == "no room for RESULT, ROWS/S: `python -m sink status JOB` shows them"
    narrowest = shown(10)[0].split()
    assert narrowest == ["JOB", "STATE", "ROWS", "SCORED", "FAILED", "MISSING"]
    assert shown(200)[0].endswith("RESULT")
    assert not any("no room" in line for line in shown(200))


def test_the_command_prints_json(results, capsys):
    assert main(["status", "--json", "--results", str(results)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["store"], shown["duplicates"], shown["rejected"]) == (str(results), 2, 0)
    assert {job["job"]: job["scored"] for job in shown["jobs"]} == {"first": 9, "second": 3}
    assert main(["status", "first", "--json", "--results", str(results)]) == 0
    assert json.loads(capsys.readouterr().out)["failed"] == {"http_error": 1}


def test_the_folder_that_was_named_is_shown(results, capsys, monkeypatch):
    monkeypatch.setenv("PAIRSCORE_POSTGRES_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    assert main(["status", "first", "--results", str(results)]) == 0
    assert capsys.readouterr().out.startswith("job first: closed, every outcome")


def test_an_empty_store_says_so(tmp_path, capsys):
    assert main(["status", "--results", str(tmp_path / "none")]) == 0
    assert capsys.readouterr().out == (
        f"no jobs in {tmp_path / 'none'}: no sink has stored anything there yet\n"
    )


def test_an_unknown_job_is_an_error(results):
    with pytest.raises(InputError, match="there is no job 'third'"):
        show_status(StoreSettings(results=str(results)), "third", as_json=True)


def test_the_latest_begun_job_comes_first(tmp_path):
    with spool_in(tmp_path / "results") as spool:
        for day, name in ((2, "b"), (3, "c"), (1, "a")):
            job = plain_job(name, 1, tmp_path / "in")
            begun = job.begun.model_copy(update={"created_at": BEGAN.replace(day=day)})
            spool.store(batch_of([begun]))
    shown = json.loads(
        show_status(StoreSettings(results=str(tmp_path / "results")), None, as_json=True)
    )
    assert [job["job"] for job in shown["jobs"]] == ["c", "b", "a"]
