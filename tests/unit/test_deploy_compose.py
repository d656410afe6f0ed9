"""docker-compose.yml is what the documentation says of it, without an engine."""

import re
from typing import Any

import pytest

from deploy.local.broker import behaviour
from shared.settings import SERVICES
from shared.variables import names_of, refuse_unknown
from tests.commands import ROOT
from tests.monitoring import document

COMPOSE = document(ROOT / "docker-compose.yml")
SERVICES_THERE: dict[str, Any] = COMPOSE["services"]
OURS = sorted(
    name for name, each in SERVICES_THERE.items() if each["image"].startswith("pairscore-")
)
_DEFAULT = re.compile(r"\$\{\w+:-([^}]*)\}")


def staying(name: str) -> bool:
    """Whether it is to run until it is asked to end."""
    return bool(SERVICES_THERE[name].get("restart") != "no")


def test_kafka_is_told_what_brokers_are_told_elsewhere():
    given = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): str(value)
        for name, value in SERVICES_THERE["kafka"]["environment"].items()
    }
    wanted = behaviour(1)
    named = (ROOT / "docs" / "operations.md").read_text().partition("## What Kafka has to be told")
    table = named[2].partition("## ")[0]
    documented = {name for name in wanted if f"`{name}`" in table}
    assert len(documented) >= 9
    assert {name: given.get(name) for name in documented} == {
        name: wanted[name] for name in documented
    }


@pytest.mark.parametrize("name", sorted(SERVICES_THERE))
def test_a_service_has_a_limit_and_starts_again_and_its_ports_are_of_this_machine(name):
    service = SERVICES_THERE[name]
    assert "memory" in service["deploy"]["resources"]["limits"]
    assert service["restart"] in {"unless-stopped", "no"}
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")


@pytest.mark.parametrize("name", OURS)
def test_what_is_ours_may_do_nothing_that_it_need_not(name):
    service = SERVICES_THERE[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    # Who is root only gives a folder away, or writes one that nobody else has.
    assert (service.get("user") == "root") == (name in {"results", "demo"})


@pytest.mark.parametrize("name", OURS)
def test_variables_are_those_of_settings(name):
    given = SERVICES_THERE[name].get("environment", {})
    refuse_unknown({key: "x" for key in given if key.startswith("PAIRSCORE_")}, SERVICES)


# What the file itself decides for each service that has it, and paths and names in one container.
NOT_PASSED_ON = {
    f"PAIRSCORE_{name}"
    for name in (
        *("MODEL", "CACHE_DIR", "CACHE__FOLDER", "REDIS__URL", "POSTGRES_URL", "RESULTS"),
        *("API__HOST", "API__PORT", "API__OPEN", "API__SPOOL", "API__KEYS", "API__ID"),
        *("TELEMETRY__HOST", "TELEMETRY__PORT", "KAFKA__REPLICATION", "FETCH__CA_FILE"),
        *("WORKER__ID", "WORKER__SHUTDOWN_SECONDS"),
    )
}


@pytest.mark.parametrize("name", [name for name in OURS if name not in {"demo", "results"}])
def test_every_setting_is_passed_on_that_the_file_does_not_decide(name):
    known = {each for kind in SERVICES for each in names_of(kind)}
    assert known > NOT_PASSED_ON
    given = SERVICES_THERE[name]["environment"]
    assert known - given.keys() <= NOT_PASSED_ON
    assert {each for each, value in given.items() if value is None} <= known - NOT_PASSED_ON


@pytest.mark.parametrize("name", [name for name in OURS if staying(name) and name != "demo"])
def test_whoever_needs_topics_waits_until_they_are_made(name):
    assert SERVICES_THERE[name]["depends_on"]["topics"] == {
        "condition": "service_completed_successfully"
    }


def test_the_demo_needs_no_network_and_no_more_than_its_own_file_of_variables():
    text = (ROOT / "deploy" / "demo.env").read_text()
    given = dict(line.split("=", 1) for line in text.splitlines() if re.match(r"[A-Z]", line))
    assert given["PAIRSCORE_MODEL"] == "demo"
    (subnet,) = COMPOSE["networks"]["default"]["ipam"]["config"]
    assert given["PAIRSCORE_FETCH__ALLOW_NETWORKS"] == _DEFAULT.sub(r"\1", subnet["subnet"])
    taken = (ROOT / "docker-compose.yml").read_text()
    passed_on = SERVICES_THERE["worker"]["environment"]
    for variable in given:
        assert f"${{{variable}:-" in taken or passed_on[variable] is None


def test_a_worker_has_as_long_to_end_as_it_may_take():
    from shared.settings import WorkerOptions
    from worker.loop import LAST_SECONDS

    least = WorkerOptions().shutdown_seconds + LAST_SECONDS
    for name in ("worker", "worker-gpu"):
        assert float(SERVICES_THERE[name]["stop_grace_period"].removesuffix("s")) > least
