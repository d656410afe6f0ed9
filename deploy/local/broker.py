"""What a cluster is, and how its brokers are configured, in a container or not."""

import base64
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from deploy.local.ports import free_ports
from deploy.local.ways import HOST, How

Properties: TypeAlias = Mapping[str, str]

HEAP: Final = "-Xmx512m"


class Kafka:
    """A cluster that can be used."""

    def __init__(self, bootstrap_servers: str, how: How) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.how = how


@dataclass(frozen=True, slots=True)
class Node:
    """One broker of a cluster, which is one of its controllers too."""

    number: int
    port: int
    controller_port: int

    @property
    def address(self) -> str:
        """Where clients reach it."""
        return f"{HOST}:{self.port}"


def listeners(node: Node, quorum: Sequence[Node], *, host: str = HOST) -> Properties:
    """Who a broker is, and where it and the others are; `host` is what it listens on itself."""
    voters = (f"{voter.number}@{HOST}:{voter.controller_port}" for voter in quorum)
    return {
        "process.roles": "broker,controller",
        "node.id": str(node.number),
        "controller.quorum.voters": ",".join(voters),
        "listeners": f"PLAINTEXT://{host}:{node.port},CONTROLLER://{HOST}:{node.controller_port}",
        "advertised.listeners": f"PLAINTEXT://{node.address}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
    }


def behaviour(brokers: int) -> Properties:
    """What the brokers of a cluster of that size do alike.

    With three, everything survives the loss of any one.
    """
    copies, in_sync = str(min(brokers, 3)), "2" if brokers >= 3 else "1"
    return {
        "auto.create.topics.enable": "false",
        "default.replication.factor": copies,
        "min.insync.replicas": in_sync,
        # A member that is killed is missed after this long (KIP-848: the broker's to set).
        "offsets.retention.minutes": "86400",  # longer than any topic keeps records
        "group.consumer.session.timeout.ms": "10000",
        "group.consumer.min.session.timeout.ms": "6000",
        "group.consumer.heartbeat.interval.ms": "1000",
        "group.consumer.min.heartbeat.interval.ms": "1000",
        # The same for the classic protocol, where the client sets it.
        "group.min.session.timeout.ms": "6000",
        "group.initial.rebalance.delay.ms": "0",
        # A broker that is killed is missed sooner than after the usual 9 s.
        "broker.session.timeout.ms": "4000",
        "broker.heartbeat.interval.ms": "500",
        # Of 50 each by default, which one machine would open files and threads for.
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": in_sync,
        # 128 MB of heap by default, for compacting topics far larger than any here.
        "log.cleaner.dedupe.buffer.size": "16777216",
    }


def new_nodes(count: int) -> list[Node]:
    """Nodes of a cluster to be, on free ports."""
    ports = free_ports(2 * count)
    return [Node(i + 1, ports[2 * i], ports[2 * i + 1]) for i in range(count)]


def new_cluster_id() -> str:
    """What Kafka takes as the name of a cluster: a random UUID in base64url."""
    name = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    # One in 64 would be taken for an option of the tool that it is an argument of.
    return new_cluster_id() if name.startswith("-") else name
