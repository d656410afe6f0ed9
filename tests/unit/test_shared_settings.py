"""Settings of the services: what they may be, and the one line about what they may not."""

import json
import logging
from collections.abc import Mapping
from typing import Any

import pytest
from confluent_kafka import Producer
from hypothesis import given
from hypothesis import strategies as st

from pairscore.errors import SettingsError
from shared.clients import REDISCOVERY, make_admin, make_consumer, make_producer
from shared.connection import Connection
from shared.settings import (
    RESERVED,
    SERVICES,
    KafkaSettings,
    ProducerSettings,
    ServiceSettings,
    SinkSettings,
    WorkerSettings,
    read_service_settings,
)
from shared.topics import Topics
from tests.fetching import wait_until

PROPERTIES = "PAIRSCORE_KAFKA__PROPERTIES"
SECRET = "hunter2-and-more"


def read(monkeypatch, kind=ServiceSettings, **environment: str):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return read_service_settings(kind)


def complaint(monkeypatch, kind=ServiceSettings, **environment: str) -> str:
    with pytest.raises(SettingsError) as error:
        read(monkeypatch, kind, **environment)
    line = str(error.value)
    assert line.isprintable()
    assert error.value.exit_code == 2
    return line


@pytest.mark.parametrize("kind", SERVICES)
def test_every_service_can_do_without_any_setting(kind):
    assert read_service_settings(kind).kafka.bootstrap_servers == "localhost:9092"


def test_what_is_set_arrives(monkeypatch):
    settings = read(
        monkeypatch,
        WorkerSettings,
        PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS="a:1,b:2",
        PAIRSCORE_KAFKA__PARTITIONS="48",
        PAIRSCORE_TELEMETRY__PORT="0",
        PAIRSCORE_WORKER__ID="gpu-7",
        PAIRSCORE_MODEL="demo",
    )
    assert settings.kafka.bootstrap_servers == "a:1,b:2"
    assert settings.kafka.partitions == 48
    assert settings.telemetry.port == 0
    assert settings.worker.id == "gpu-7"
    assert settings.model == "demo"


def test_an_override_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("PAIRSCORE_KAFKA__PARTITIONS", "48")
    settings = read_service_settings(SinkSettings, {"kafka": {"partitions": 3}})
    assert settings.kafka.partitions == 3


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("PAIRSCORE_KAFKA_BOOTSTRAP_SERVERS", "KAFKA__BOOTSTRAP_SERVERS"),
        ("PAIRSCORE_TELEMETRY_PORT", "TELEMETRY__PORT"),
        ("PAIRSCORE_BROKERS", ""),
        ("pairscore_kafak__partitions", "KAFKA__PARTITIONS"),
        ("PAIRSCORE_KAFKA__BOOTSTRAP", "KAFKA__BOOTSTRAP_SERVERS"),
        ("PAIRSCORE_FETCH__TIMOUT", "FETCH__TIMEOUT"),
        ("PAIRSCORE_WORKER__IN_FLIHGT", "WORKER__IN_FLIGHT"),
        ("PAIRSCORE_SINK__COMMIT_ROW", "SINK__COMMIT_ROWS"),
        ("PAIRSCORE_PRODUCER__LIMITRATE", "PRODUCER__LIMIT_RATE"),
        ("PAIRSCORE_REDIS__URI", "REDIS__URL"),
        ("PAIRSCORE_IMAGE__X", ""),
        ("PAIRSCORE_MODELS", "MODEL"),
        ("PAIRSCORE_MODEL__NAME", ""),
        ("PAIRSCORE_", ""),
    ],
)
@pytest.mark.parametrize("kind", [ServiceSettings, *SERVICES])
def test_a_variable_that_no_service_knows_is_named_with_the_nearest(
    monkeypatch, kind, name, nearest
):
    near = f"; the nearest is PAIRSCORE_{nearest}" if nearest else ""
    assert complaint(monkeypatch, kind, **{name: SECRET}) == (
        f"setting {name}: there is no such setting{near}; docs/reference.md has them all"
    )


@pytest.mark.parametrize("kind", SERVICES)
def test_a_key_that_no_service_knows_is_named_in_json_too(monkeypatch, kind):
    line = complaint(monkeypatch, kind, PAIRSCORE_FETCH=json.dumps({"timeout": 5, "atempts": 2}))
    assert line == (
        "setting PAIRSCORE_FETCH__atempts: there is no such setting; the nearest is "
        "PAIRSCORE_FETCH__ATTEMPTS; docs/reference.md has them all"
    )


def test_all_that_no_service_knows_is_in_one_line(monkeypatch):
    line = complaint(monkeypatch, PAIRSCORE_FETCH__X="1", PAIRSCORE_QWERTY="1")
    for name in ("PAIRSCORE_FETCH__X", "PAIRSCORE_QWERTY"):
        assert f"setting {name}: there is no such setting" in line


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (ProducerSettings, "PAIRSCORE_MODEL", "demo"),
        (ProducerSettings, "PAIRSCORE_WORKER__ID", "a"),
        (WorkerSettings, "PAIRSCORE_RESULTS", "out"),
        (SinkSettings, "PAIRSCORE_FETCH__TIMEOUT", "5"),
        (SinkSettings, "PAIRSCORE_FETCH", '{"timeout": 5}'),
        (SinkSettings, "pairscore_worker__id", "a"),
        (SinkSettings, "PAIRSCORE_REDIS__URL", "redis://localhost"),
    ],
)
def test_a_variable_of_another_service_is_no_mistake(monkeypatch, kind, name, value):
    assert read(monkeypatch, kind, **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PAIRSCORE_PORT", "tcp://10.0.0.7:9464"),
        ("PAIRSCORE_PORT_9464_TCP", "tcp://10.0.0.7:9464"),
        ("PAIRSCORE_PORT_9464_TCP_ADDR", "10.0.0.7"),
        ("PAIRSCORE_SERVICE_HOST", "10.0.0.7"),
        ("PAIRSCORE_SINK_SERVICE_PORT", "9464"),
        ("PAIRSCORE_SINK_SERVICE_PORT_METRICS", "9464"),
        ("PAIRSCORE_SINK_PORT", "tcp://10.0.0.7:9464"),
    ],
)
def test_what_kubernetes_says_of_a_service_is_no_mistake(monkeypatch, name, value):
    assert read(monkeypatch, **{name: value})


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("PAIRSCORE_KAFKA__PARTITIONS", "0", "greater than or equal to 1"),
        ("PAIRSCORE_KAFKA__PARTITIONS", "many", "valid integer"),
        ("PAIRSCORE_KAFKA__GROUP_PROTOCOL", "newest", "'consumer' or 'classic'"),
        ("PAIRSCORE_KAFKA__TOPIC_PREFIX", "a b", "pattern"),
        ("PAIRSCORE_KAFKA__TOPIC_PREFIX", "a/", "pattern"),
        ("PAIRSCORE_TELEMETRY__PORT", "65536", "65535"),
        ("PAIRSCORE_TELEMETRY__LOG_LEVEL", "loud", "'debug'"),
        ("PAIRSCORE_WORKER__ID", "a b", "pattern"),
        ("PAIRSCORE_WORKER__COMMIT_INTERVAL", "0", "greater than 0"),
        ("PAIRSCORE_KAFKA__RETRY_DELAYS", "5,x", "whole seconds"),
    ],
)
def test_a_value_that_cannot_be_is_named(monkeypatch, name, value, why):
    line = complaint(monkeypatch, WorkerSettings, **{name: value})
    assert line.startswith(f"setting {name}: ")
    assert why in line
    assert value in line


@pytest.mark.parametrize(
    ("text", "delays"),
    [("5,60,600", (5, 60, 600)), (" 1 , 2 ,", (1, 2)), ("30", (30,)), ("none", ())],
)
def test_delays_are_seconds_with_commas(monkeypatch, text, delays):
    settings = read(monkeypatch, PAIRSCORE_KAFKA__RETRY_DELAYS=text).kafka
    assert settings.retry_delays == delays
    retries = Topics.of(settings).retries
    assert [tier.topic for tier in retries] == [f"pairs.retry.{delay}s" for delay in delays]


@pytest.mark.parametrize("text", ["0", "-5", "60,5", "5,5", "5;60", "1.5", "5s", "[5]"])
def test_delays_rise(monkeypatch, text):
    assert complaint(monkeypatch, PAIRSCORE_KAFKA__RETRY_DELAYS=text).startswith(
        "setting PAIRSCORE_KAFKA__RETRY_DELAYS: must be "
    )


def test_properties_are_texts(monkeypatch):
    given_properties = {"socket.timeout.ms": 1234, "check.crcs": True, "client.id": "mine"}
    settings = read(monkeypatch, **{PROPERTIES: json.dumps(given_properties)}).kafka
    assert settings.properties == {
        "socket.timeout.ms": "1234",
        "check.crcs": "true",
        "client.id": "mine",
    }


@pytest.mark.parametrize(
    "name", [*sorted(RESERVED), "error_cb", "stats_cb", "oauth_cb", "on_commit"]
)
def test_what_the_promise_rests_on_cannot_be_changed(monkeypatch, name):
    line = complaint(monkeypatch, **{PROPERTIES: json.dumps({"a": SECRET, name: SECRET})})
    assert line == (
        f"setting {PROPERTIES}: the property {name} is pairscore's own to set; leave it out"
    )


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        f'{{"sasl.password": "{SECRET}"',
        f'["{SECRET}"]',
        f'"{SECRET}"',
        f'{{"sasl.password": ["{SECRET}"]}}',
        f'{{"sasl.password": {{"a": "{SECRET}"}}}}',
        f'{{"{SECRET}": null}}'.replace(SECRET, "sasl.password"),
    ],
)
def test_properties_that_cannot_be_read_are_not_shown(monkeypatch, text):
    line = complaint(monkeypatch, **{PROPERTIES: text})
    assert line.startswith(f"setting {PROPERTIES}: ")
    assert SECRET not in line


def test_no_secret_is_shown_by_settings(monkeypatch):
    settings = read(
        monkeypatch,
        SinkSettings,
        PAIRSCORE_POSTGRES_URL=f"postgresql://u:{SECRET}@h/d",
        **{PROPERTIES: json.dumps({"sasl.password": SECRET})},
    )
    assert settings.kafka.properties["sasl.password"] == SECRET
    for shown in (repr(settings), str(settings), repr(settings.kafka), f"{settings.kafka}"):
        assert SECRET not in shown


def test_no_secret_is_shown_beside_another_mistake(monkeypatch):
    line = complaint(
        monkeypatch,
        SinkSettings,
        PAIRSCORE_POSTGRES_URL=f"postgresql://u:{SECRET}@h/d",
        PAIRSCORE_KAFKA__PARTITIONS="0",
        **{PROPERTIES: json.dumps({"sasl.password": SECRET})},
    )
    assert "PAIRSCORE_KAFKA__PARTITIONS" in line
    assert SECRET not in line
    line = complaint(monkeypatch, SinkSettings, PAIRSCORE_KAFKA__PASSWORD=SECRET)
    assert "PAIRSCORE_KAFKA__PASSWORD: there is no such setting" in line
    assert SECRET not in line


@given(st.text(max_size=30))
def test_no_text_of_properties_raises_anything_else(text):
    with pytest.raises(SettingsError):
        read_service_settings(ServiceSettings, {"kafka": {"properties": "x" + text}})


MAKERS = {
    "admin": make_admin,
    "consumer": lambda connection: make_consumer(connection, group="g"),
    "producer": lambda connection: make_producer(connection, transactional_id=None),
}


def await_configuration(caplog, make, properties: dict[str, str], wanted: dict[str, str]) -> None:
    """Wait until librdkafka says that a client of these properties is set as wanted."""
    caplog.set_level(logging.DEBUG)
    settings = KafkaSettings(
        bootstrap_servers="127.0.0.1:1", properties={"debug": "conf", **properties}
    )
    client = make(Connection(settings))

    def told() -> bool:
        client.poll(0.05)
        lines = [record.getMessage().partition("]:   ")[2] for record in caplog.records]
        return (
            wanted.items() <= dict(line.split(" = ", 1) for line in lines if " = " in line).items()
        )

    wait_until(told)


def transactional(connection: Connection, extra: Mapping[str, Any] | None = None) -> Producer:
    return make_producer(connection, transactional_id="t", extra=extra)


@pytest.mark.parametrize(
    "make",
    [
        MAKERS["admin"],
        lambda connection: make_consumer(connection, group="g", extra={"socket.timeout.ms": 7}),
        lambda connection: transactional(connection, {"socket.timeout.ms": 7}),
    ],
    ids=["admin", "consumer", "producer"],
)
def test_properties_reach_every_client_and_have_the_last_word(caplog, make):
    properties = {"socket.timeout.ms": "1234", "reconnect.backoff.max.ms": "777"}
    await_configuration(caplog, make, properties, properties)


def test_every_transactional_producer_finds_its_coordinator_again(caplog):
    wanted = {name: str(value) for name, value in REDISCOVERY.items()}
    await_configuration(caplog, transactional, {}, {**wanted, "transactional.id": "t"})


def test_properties_win_over_what_transactional_producers_have(caplog):
    properties = {"metadata.max.age.ms": "4321"}
    await_configuration(caplog, transactional, properties, properties)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("no.such.property", SECRET, 'No such configuration property: "no.such.property"'),
        ("security.protocol", "QUANTUM", "security.protocol"),
        ("ssl.ca.location", "/no/such/file", "ssl.ca.location"),
    ],
)
def test_a_property_that_librdkafka_refuses_is_one_line(make, name, value, why):
    properties = {name: value}
    if name == "ssl.ca.location":
        properties["security.protocol"] = "SSL"
    connection = Connection(KafkaSettings(bootstrap_servers="127.0.0.1:1", properties=properties))
    with pytest.raises(SettingsError) as error:
        MAKERS[make](connection)
    line = str(error.value)
    assert line.startswith(f"setting {PROPERTIES}: ")
    assert line.isprintable()
    assert why in line
    assert SECRET not in line


def test_the_log_has_no_properties(caplog):
    caplog.set_level(logging.DEBUG)
    properties = {"sasl.password": SECRET, "sasl.username": "u", "debug": "all"}
    settings = KafkaSettings(bootstrap_servers="127.0.0.1:1", properties=properties)
    admin = make_admin(Connection(settings))

    def logged() -> bool:
        admin.poll(0.05)
        return "sasl.password" in caplog.text

    wait_until(logged)
    assert SECRET not in caplog.text
