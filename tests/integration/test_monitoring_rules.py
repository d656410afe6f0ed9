"""Prometheus' own tool takes the rules, and sees each alert fire and be silent."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.monitoring import FOLDER, alerts, document, program
from tests.services import had

TESTS = sorted((FOLDER / "tests").glob("*.yml"))


@pytest.fixture(scope="module")
def promtool() -> Iterator[str]:
    with had(program("promtool")) as found:
        yield found


def run(promtool: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [promtool, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def test_the_configuration_and_its_rules_are_taken(promtool):
    done = run(promtool, "check", "config", FOLDER / "prometheus.yml")
    assert done.returncode == 0, done.stderr
    assert f"{len(list((FOLDER / 'rules').glob('*.yml')))} rule files found" in done.stdout


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_not_when_they_should_not(promtool, path):
    done = run(promtool, "test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


def seen(alert: str) -> Iterator[bool]:
    """Whether it fires, wherever a test looks at it."""
    for path in TESTS:
        for test in document(path)["tests"]:
            for look in test["promql_expr_test"]:
                if alert in test["name"] and "ALERTS" in look["expr"]:
                    said = str(look["exp_samples"])
                    yield f'"{alert}"' in said


@pytest.mark.parametrize("alert", sorted(alerts()))
def test_every_alert_is_seen_to_fire_and_to_be_silent(alert):
    assert set(seen(alert)) == {True, False}
