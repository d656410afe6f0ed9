"""Apache Kafka on this machine: one broker, or three that survive the loss of any one."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Literal, overload

from deploy.local.broker import HEAP, Kafka, behaviour, listeners, new_cluster_id, new_nodes
from deploy.local.container import container
from deploy.local.native_kafka import NativeKafka, processes, takes_part
from deploy.local.ways import WayClosed, first_open, must_listen

ADDRESS: Final = "PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS"
IMAGE: Final = "apache/kafka:4.3.1"

_REMEDY = (
    "install Java 17 and Maven (Debian: apt install openjdk-17-jre-headless maven), "
    f"or set {ADDRESS} to a broker, or start Docker"
)


@overload
def kafka(
    brokers: int = 1,
    *,
    native: Literal[True],
    folder: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> AbstractContextManager[NativeKafka]: ...


@overload
def kafka(
    brokers: int = 1,
    *,
    native: bool = False,
    folder: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> AbstractContextManager[Kafka]: ...


def kafka(
    brokers: int = 1,
    *,
    native: bool = False,
    folder: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> AbstractContextManager[Kafka]:
    """Kafka while the context lasts: of the environment, in Docker, or as processes of ours.

    Args:
        brokers: how many, where they are ours. Docker runs one; for more it is passed over.
        native: only as processes of ours, which can be killed and made to hang.
        folder: where processes of ours keep their data, for a later start with as many brokers; by
            default in a temporary folder, which is removed at the end.
        environment: where an address, Java and Maven are looked for.

    Raises:
        Unavailable: on entering, if it cannot be had.
    """
    own = processes(brokers, folder, environment)
    ways: Sequence[AbstractContextManager[Kafka]] = (
        [own] if native else [_given(environment), _contained(brokers), own]
    )
    return first_open("Kafka", ways, _REMEDY)


@contextlib.contextmanager
def _given(environment: Mapping[str, str]) -> Iterator[Kafka]:
    servers = environment.get(ADDRESS, "").strip()
    if not servers:
        raise WayClosed(f"{ADDRESS} is not set")
    must_listen(ADDRESS, servers, default_port=9092)
    yield Kafka(servers, "environment")


@contextlib.contextmanager
def _contained(brokers: int) -> Iterator[Kafka]:
    if brokers > 1:
        raise WayClosed("Docker is for one broker")
    [node] = new_nodes(1)
    # On the same port inside, for the broker reaches itself by its advertised address.
    properties = {**listeners(node, [node], host="0.0.0.0"), **behaviour(1)}  # noqa: S104
    variables = {f"KAFKA_{name.upper().replace('.', '_')}": properties[name] for name in properties}
    variables |= {"KAFKA_HEAP_OPTS": HEAP, "CLUSTER_ID": new_cluster_id()}
    with container(
        "kafka",
        IMAGE,
        ports={node.port: node.port},
        variables=variables,
        answers=lambda: takes_part(node),
    ):
        yield Kafka(node.address, "docker")
