"""The options of the fault scenarios, and their counts at the end of a run, good or bad.

A pytest plugin of all tests: where these run in several processes, the one that reports collects
none of them, and would not read the conftest of this folder.
"""

from collections.abc import Callable
from typing import Final

import pytest

_TOLD: Final = "told"
"""Name of the user properties of a test's report that are to be shown."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--long-faults", action="store_true", help="every fault as often as promised")
    group.addoption("--faults-seed", type=int, help="of a run that is to be repeated")


def teller(request: pytest.FixtureRequest) -> Callable[[object], None]:
    """What shows a line of a test's at the end of the run."""
    name = request.node.name.removeprefix("test_").replace("_", " ")
    return lambda what: request.node.user_properties.append((_TOLD, f"{name}: {what}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    # From the reports, which come from the processes that ran the tests.
    told = [
        str(value)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in report.user_properties
        if name == _TOLD
    ]
    if told:
        terminalreporter.section("faults")
    for line in told:
        terminalreporter.write_line(line)
