"""Brokers that want TLS, a login or both, and the one line where they do not get it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trustme
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from deploy.local import kafka as kafka_context
from deploy.local.broker import listeners
from deploy.local.ports import free_ports
from tests.postgres_sinks import database
from tests.producing import place
from tests.refusing import run, run_all, services
from tests.services import had

SECONDS = 60.0
PASSWORD = "right-and-secret"
LOGIN = {
    "security.protocol": "SASL_PLAINTEXT",
    "sasl.mechanism": "PLAIN",
    "sasl.username": "fleet",
    "sasl.password": PASSWORD,
}
REFUSED = "setting PAIRSCORE_KAFKA__PROPERTIES: Kafka at {} refused the connection ("
SILENT = (
    "setting PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS: what listens at {} does not answer as Kafka does; "
)


class Strict:
    """A broker with listeners of each kind: `plain`, `login`, `tls` and `both`."""

    def __init__(self, folder: Path) -> None:
        self.ports = dict(zip(("login", "tls", "both"), free_ports(3), strict=True))
        self.authority = folder / "ca.pem"
        self.stranger = folder / "stranger.pem"
        self._keys = folder / "server.pem"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.authority)
        trustme.CA().cert_pem.write_to_path(self.stranger)
        issued = authority.issue_cert("127.0.0.1")
        # Kafka reads keys in PKCS #8 alone.
        key = load_pem_private_key(issued.private_key_pem.bytes(), None)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self._keys.write_bytes(pem + b"".join(each.bytes() for each in issued.cert_chain_pems))

    def address(self, listener: str) -> str:
        return f"127.0.0.1:{self.ports[listener]}"

    def listeners(self, *given: Any, **options: Any) -> Mapping[str, str]:
        """What `deploy.local` gives a broker, and the strict listeners beside it."""
        found = dict(listeners(*given, **options))
        for name, port in self.ports.items():
            for which in ("listeners", "advertised.listeners"):
                found[which] += f",{name.upper()}://127.0.0.1:{port}"
        found["listener.security.protocol.map"] += ",LOGIN:SASL_PLAINTEXT,TLS:SSL,BOTH:SASL_SSL"
        found["sasl.enabled.mechanisms"] = "PLAIN"
        found["authorizer.class.name"] = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
        found["allow.everyone.if.no.acl.found"] = "true"
        found["super.users"] = "User:ANONYMOUS"
        for name in ("login", "both"):
            found[f"listener.name.{name}.plain.sasl.jaas.config"] = (
                "org.apache.kafka.common.security.plain.PlainLoginModule required "
                f'user_fleet="{PASSWORD}";'
            )
        for name in ("tls", "both"):
            found[f"listener.name.{name}.ssl.keystore.type"] = "PEM"
            found[f"listener.name.{name}.ssl.keystore.location"] = str(self._keys)
        return found


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strict]:
    broker = Strict(tmp_path_factory.mktemp("keys"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deploy.local.native_kafka.listeners", broker.listeners)
        with had(kafka_context(native=True)) as kafka:
            broker.ports["plain"] = int(kafka.bootstrap_servers.rpartition(":")[2])
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
        "User:fleet",
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
