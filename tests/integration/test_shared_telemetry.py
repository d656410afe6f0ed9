"""/metrics, /livez and /readyz over HTTP, and the port that they are on."""

import logging
import re
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from pairscore.errors import EnvironmentFault
from shared.settings import TelemetrySettings
from shared.telemetry.health import Health
from shared.telemetry.metrics import SINK_DUPLICATES, Metrics
from shared.telemetry.server import DEFAULT_PORT, serving
from tests.fetching import wait_until

SECONDS = 10.0


def ask(
    port: int, path: str, method: str = "GET", host: str = "127.0.0.1", **options
) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False  # no proxy of the developer's
        return session.request(method, f"http://{host}:{port}{path}", timeout=SECONDS, **options)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Served:
    """A service's port, and what it shows."""

    def __init__(self, port: int, metrics: Metrics, health: Health, clock: Clock) -> None:
        self.port = port
        self.metrics = metrics
        self.health = health
        self.clock = clock

    def get(self, path: str, **options) -> requests.Response:
        return ask(self.port, path, **options)

    def says(self, path: str) -> tuple[int, str]:
        response = self.get(path)
        assert response.text.endswith("\n")
        assert response.text.count("\n") == 1
        return response.status_code, response.text.rstrip("\n")


def any_port(**settings) -> TelemetrySettings:
    return TelemetrySettings(**{"port": 0, **settings})


@pytest.fixture
def served() -> Iterator[Served]:
    clock, metrics = Clock(), Metrics("sink")
    health = Health(60.0, clock)
    with serving(any_port(), metrics, health) as port:
        yield Served(port, metrics, health, clock)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_metrics_are_those_of_this_moment(served):
    for expected in (1.0, 2.0):
        served.metrics.inc(SINK_DUPLICATES)
        response = served.get("/metrics")
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        found = {
            sample.name: sample.value
            for family in text_string_to_metric_families(response.text)
            for sample in family.samples
        }
        assert found["pairscore_sink_duplicates_total"] == expected
        assert found["process_cpu_seconds_total"] > 0


def test_metrics_can_be_had_as_openmetrics(served):
    response = served.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert response.headers["Content-Type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")


def test_metrics_say_whether_it_is_ready(served):
    assert "\npairscore_ready 0.0\n" in served.get("/metrics").text
    served.health.ready(True)
    assert "\npairscore_ready 1.0\n" in served.get("/metrics").text


def test_a_loop_that_stands_still_is_not_alive(served):
    assert served.says("/livez") == (200, "alive")
    served.health.beat()
    served.clock.now += 59
    assert served.says("/livez") == (200, "alive")
    served.clock.now += 13
    assert served.says("/livez") == (503, "the loop stands still for 72 s")
    served.health.beat()
    assert served.says("/livez") == (200, "alive")


def test_what_cannot_work_is_not_ready_and_says_why(served):
    assert served.says("/readyz") == (503, "starting")
    served.health.ready(True)
    assert served.says("/readyz") == (200, "ready")
    served.health.ready(False, "no room in résults: \ud800")
    assert served.says("/readyz") == (503, "no room in résults: ?")


def test_other_paths_are_not_there(served):
    assert served.says("/") == (404, "try /metrics, /livez or /readyz")
    assert served.get("/livez?probe=1").status_code == 200


def test_a_probe_may_ask_for_the_head_alone(served):
    response = ask(served.port, "/readyz", "HEAD")
    assert (response.status_code, response.text) == (503, "")
    assert int(response.headers["Content-Length"]) == len("starting\n")


def test_nothing_can_be_changed_from_outside(served):
    for method in ("POST", "PUT", "DELETE"):
        response = ask(served.port, "/", method)
        assert response.status_code == 501


def test_a_client_that_says_nothing_keeps_no_other_waiting(served):
    with socket.create_connection(("127.0.0.1", served.port), timeout=SECONDS):
        assert served.says("/livez") == (200, "alive")


def test_too_many_clients_at_once_are_refused_and_the_rest_is_served(served):
    before = threading.active_count()
    silent = [
        socket.create_connection(("127.0.0.1", served.port), timeout=SECONDS) for _ in range(200)
    ]
    try:
        wait_until(lambda: sum(closed(each) for each in silent) >= 136)
        assert threading.active_count() <= before + 64
    finally:
        for each in silent:
            each.close()
    wait_until(lambda: threading.active_count() == before)
    assert served.says("/livez") == (200, "alive")


def closed(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_a_defect_in_an_answer_is_logged_and_the_next_one_is_given(served, caplog, monkeypatch):
    monkeypatch.setattr(served.metrics.registry, "collect", lambda: 1 / 0)
    with pytest.raises(requests.ConnectionError):
        served.get("/metrics")
    wait_until(lambda: "ZeroDivisionError" in caplog.text)
    assert served.says("/livez") == (200, "alive")


def test_a_client_that_goes_away_is_no_defect(served, caplog):
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", served.port), timeout=SECONDS) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    assert served.says("/livez") == (200, "alive")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_nothing_is_left_when_the_block_is():
    before = threading.active_count()
    with serving(any_port(), Metrics("sink"), Health()) as port:
        hanging = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        with hanging:
            wait_until(lambda: threading.active_count() == before + 2)
            hanging.sendall(b"GET /liv")
            assert listens(port)
    assert not listens(port)
    assert threading.active_count() == before


def test_a_client_that_hangs_does_not_hold_up_the_end():
    before = threading.active_count()
    with socket.socket() as hanging:
        with serving(any_port(), Metrics("sink"), Health()) as port:
            hanging.settimeout(SECONDS)
            hanging.connect(("127.0.0.1", port))
            wait_until(lambda: threading.active_count() == before + 2)
        assert threading.active_count() == before
        assert hanging.recv(1) == b""


def test_the_port_is_free_again_at_once():
    with serving(any_port(), Metrics("sink"), Health()) as port:
        ask(port, "/livez")
    with serving(any_port(port=port), Metrics("sink"), Health()) as again:
        assert again == port


def test_a_service_beside_another_takes_another_port(caplog):
    caplog.set_level(logging.INFO)
    settings = TelemetrySettings()
    with (
        serving(settings, Metrics("sink"), Health()) as first,
        serving(settings, Metrics("worker"), Health()) as second,
    ):
        assert first != second != DEFAULT_PORT
        for port, metric in ((first, "pairscore_sink_"), (second, "pairscore_worker_")):
            assert metric in ask(port, "/metrics").text
            assert f"metrics are at http://127.0.0.1:{port}/metrics" in caplog.text


def test_a_port_that_is_set_and_taken_is_a_fault():
    with serving(any_port(), Metrics("sink"), Health()) as port:
        with (
            pytest.raises(EnvironmentFault) as error,
            serving(any_port(port=port), Metrics("sink"), Health()),
        ):
            pass
        assert re.fullmatch(
            rf"setting PAIRSCORE_TELEMETRY__PORT: port {port} at 127.0.0.1 is taken; .*",
            str(error.value),
        )


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_of_another_machine_is_a_fault(host):
    with (
        pytest.raises(EnvironmentFault, match=rf"PAIRSCORE_TELEMETRY__HOST: .* {host} "),
        serving(any_port(host=host), Metrics("sink"), Health()),
    ):
        pass


@pytest.mark.parametrize("host", ["::1", "localhost", "0.0.0.0"])
def test_the_address_may_be_any_of_this_machine(host):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            pytest.skip(f"this machine has no {host}")
    with serving(any_port(host=host), Metrics("sink"), Health()) as port:
        name = "[::1]" if ":" in host else "localhost"
        assert ask(port, "/livez", host=name).text == "alive\n"
