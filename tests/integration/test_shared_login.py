"""Brokers that want TLS, a login or both, and the one line where they do not get it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from tests.postgres_sinks import database
from tests.producing import place
from tests.refusing import run, run_all, services
from tests.strict_broker import USER, Strict, login

SECONDS = 60.0
LOGIN = login()
REFUSED = "setting PAIRSCORE_KAFKA__PROPERTIES: Kafka at {} refused the connection ("
SILENT = (
    "setting PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS: what listens at {} does not answer as Kafka does; "
)


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strict]:
    broker = Strict(tmp_path_factory.mktemp("keys"), closed=False)
    with broker.running():
        yield broker


def attempt(strict: Strict, listener: str, properties: Mapping[str, str]) -> tuple[int, str, float]:
    """`python -m shared.topics list`: its exit code, all that it says, and how long it took."""
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "shared.topics", "list"],
        env={
            **os.environ,
            "PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS": strict.address(listener),
            "PAIRSCORE_KAFKA__PROPERTIES": json.dumps(properties),
        },
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    return ended.returncode, ended.stdout + ended.stderr, time.monotonic() - began


def tls(strict: Strict, **more: str) -> dict[str, str]:
    return {"security.protocol": "SSL", "ssl.ca.location": str(strict.authority), **more}


def test_properties_open_every_listener(strict):
    both = {**LOGIN, **tls(strict), "security.protocol": "SASL_SSL"}
    for listener, properties in (
        ("plain", {}),
        ("login", LOGIN),
        ("tls", tls(strict)),
        ("both", both),
    ):
        code, said, _ = attempt(strict, listener, properties)
        assert code == 0, said
        assert "pairs: missing" in said


@pytest.mark.parametrize(
    ("listener", "changes", "why"),
    [
        ("login", {"sasl.password": "wrong-and-secret"}, "Authentication failed"),
        ("login", {"sasl.username": "nobody"}, "Authentication failed"),
        ("login", {"sasl.mechanism": "SCRAM-SHA-256"}, "Unsupported SASL mechanism"),
        ("plain", {}, "SASL PLAIN mechanism handshake failed"),
    ],
)
def test_a_refused_login_is_one_line_at_once(strict, listener, changes, why):
    code, said, seconds = attempt(strict, listener, {**LOGIN, **changes})
    assert (code, said.count("\n")) == (3, 1)
    assert said.startswith("topics: " + REFUSED.format(strict.address(listener)))
    assert why in said
    assert said.endswith("); check security.protocol, the user and the password in it\n")
    assert "secret" not in said
    assert seconds < 10


def test_a_refused_login_is_one_line_of_every_service(
    strict, topic_prefix, tmp_path, postgres_service
):
    there = place(strict.address("plain"), topic_prefix)
    with database(postgres_service.url) as url:
        environment = there.environment(
            PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS=strict.address("login"),
            PAIRSCORE_KAFKA__PROPERTIES=json.dumps({**LOGIN, "sasl.password": "wrong-and-secret"}),
            PAIRSCORE_POSTGRES_URL=url,
        )
        found = run_all(services(tmp_path), environment)
    for ended in found:
        assert ended.code == 3
        assert ended.line.startswith(REFUSED.format(strict.address("login")))
        assert ended.line.endswith("); check security.protocol, the user and the password in it")
        assert "secret" not in ended.line


def test_a_worker_that_may_use_no_transactional_id_says_whose_right_is_missing(
    strict, topic_prefix, tmp_path
):
    there = place(strict.address("plain"), topic_prefix)
    none = AclBinding(
        ResourceType.TRANSACTIONAL_ID,
        f"{topic_prefix}worker.",
        ResourcePatternType.PREFIXED,
        f"User:{USER}",
        "*",
        AclOperation.ALL,
        AclPermissionType.DENY,
    )
    for made in there.admin.create_acls([none]).values():
        made.result(20)
    environment = there.environment(
        PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS=strict.address("login"),
        PAIRSCORE_KAFKA__PROPERTIES=json.dumps(LOGIN),
    )
    ended = run("worker", services(tmp_path)["worker"], environment)
    assert ended.code == 3
    last = ended.said.splitlines()[-1]
    assert last.startswith("worker: transactions cannot be begun: ")
    assert "Transactional Id authorization failed" in last
    assert "let the worker's user Describe and Write the transactional ids that begin" in last


def test_a_certificate_of_a_stranger_is_one_line_at_once(strict):
    properties = tls(strict, **{"ssl.ca.location": str(strict.stranger)})
    code, said, seconds = attempt(strict, "tls", properties)
    assert (code, said.count("\n")) == (3, 1)
    assert said.startswith("topics: " + REFUSED.format(strict.address("tls")))
    assert "certificate could not be verified" in said
    assert seconds < 10


def test_a_login_without_its_password_is_one_line(strict):
    properties = {name: value for name, value in LOGIN.items() if name != "sasl.password"}
    code, said, _ = attempt(strict, "login", properties)
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith("topics: setting PAIRSCORE_KAFKA__PROPERTIES: ")
    assert "sasl.username and sasl.password must be set" in said


def test_the_wrong_protocol_is_one_line(strict):
    cases: tuple[tuple[str, Mapping[str, str], str], ...] = (
        ("login", {}, SILENT),
        ("tls", {}, SILENT),
        ("tls", LOGIN, SILENT),
        ("plain", tls(strict), REFUSED),
    )
    with ThreadPoolExecutor() as pool:
        attempts = pool.map(lambda case: attempt(strict, case[0], case[1]), cases)
        for (listener, _, expected), (code, said, seconds) in zip(cases, attempts, strict=True):
            assert (code, said.count("\n")) == (3, 1), said
            assert said.startswith("topics: " + expected.format(strict.address(listener)))
            assert "PAIRSCORE_KAFKA__PROPERTIES" in said
            assert seconds < 30
