"""The command line: what it costs to start, and what it says of wrong usage."""

import subprocess
import sys

import pytest

from pairscore.errors import InputError
from producer.cli import run


def test_a_producer_needs_no_torch_and_no_database_driver():
    code = (
        "import sys, producer.__main__, producer.cli, producer.csv_command;"
        "import producer.cancel_command;"
        "sys.exit(str([name for name in ('torch', 'transformers', 'onnxruntime', 'psycopg')"
        " if name in sys.modules] or ''))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.stderr.strip() == ""


def test_help_names_every_option_and_the_exit_codes(capsys):
    assert run(["csv", "--help"]) == 0
    shown = capsys.readouterr().out
    for option in (
        "--job",
        "--wait",
        "--limit-rate",
        "--url-column",
        "--caption-column",
        "--delimiter",
        "--details",
        "--overwrite",
    ):
        assert option in shown
    for arguments in (["--help"], []):
        assert run(arguments) == 0
        assert "Exit codes: 0" in capsys.readouterr().out


def test_help_of_cancelling_says_what_a_producer_does_meanwhile(capsys):
    assert run(["cancel", "--help"]) == 0
    assert "A producer that still publishes the job goes on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cancel"], "JOB"),
        (["cvs"], "cvs"),
        (["csv"], "INPUT"),
        (["csv", "in.csv", "--limit"], "--limit"),
        (["csv", "in.csv", "--limit-rate", "fast"], "--limit-rate"),
    ],
)
def test_wrong_usage_is_one_line_that_leads_to_help(arguments, said):
    with pytest.raises(InputError, match=r"\(see python -m producer --help\)$") as caught:
        run(arguments)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
