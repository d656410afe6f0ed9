"""What Docker's HEALTHCHECK runs, against the port of a service."""

import sys

import pytest

from deploy.local.ports import free_ports
from shared.settings import TelemetrySettings
from shared.telemetry.health import Health
from shared.telemetry.metrics import Metrics
from shared.telemetry.server import serving
from tests.commands import ROOT, run

# As in an image: of nothing but the standard library.
PROBE = [sys.executable, "-I", "-S", str(ROOT / "deploy" / "probe.py")]


def probe(port: int) -> tuple[int, str]:
    done = run(PROBE, {"PAIRSCORE_TELEMETRY__PORT": str(port)}, within=30)
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.mark.parametrize(("ready", "expected"), [(True, (0, "ready\n")), (False, (1, "loading\n"))])
def test_it_ends_as_the_service_says_that_it_is_ready(ready, expected):
    health = Health()
    health.ready(ready, "loading")
    with serving(TelemetrySettings(port=0), Metrics("sink"), health) as port:
        assert probe(port) == expected


def test_where_no_service_answers_it_says_so():
    [port] = free_ports(1)
    code, said = probe(port)
    assert code == 1
    assert "refused" in said
