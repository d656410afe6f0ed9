"""Kafka as processes of this machine, under any Java that is new enough."""

import contextlib
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from deploy.local.broker import HEAP, Kafka, Node, behaviour, listeners, new_cluster_id, new_nodes
from deploy.local.guarding import Guard, guarded, last_words
from deploy.local.jars import java, kafka_jars
from deploy.local.ports import listens
from deploy.local.server import START_SECONDS, Server
from deploy.local.waiting import until
from deploy.local.ways import WayClosed

_LOGGING = Path(__file__).resolve().parent / "log4j2.properties"
_ASK_SECONDS = 2.0


class NativeKafka(Kafka):
    """A cluster of processes of ours. Its nodes keep their ports and data when they end."""

    def __init__(self, servers: Mapping[Node, Server]) -> None:
        super().__init__(",".join(node.address for node in servers), "native")
        self.nodes: Final = tuple(node.number for node in servers)
        self._servers = {node.number: server for node, server in servers.items()}

    def pid(self, node: int) -> int:
        """The process of a node, which runs or ran last."""
        return self._servers[node].pid

    def log(self, node: int) -> Path:
        """What a node says."""
        return self._servers[node].log

    def running(self, node: int) -> bool:
        """Whether a node has a process."""
        return self._servers[node].running

    def start(self, *nodes: int) -> None:
        """Start nodes that do not run, together, and return when each takes part in the cluster.

        Of three, two must run for that: start those at once that went down together.

        Raises:
            WayClosed: one ended, or does not take part within START_SECONDS.
        """
        for node in nodes:
            self._servers[node].launch()
        for node in nodes:
            self._servers[node].await_answer()

    def stop(self, node: int) -> None:
        """End a node in good order (SIGTERM)."""
        self._servers[node].stop()

    def kill(self, node: int) -> None:
        """End a node at once (SIGKILL)."""
        self._servers[node].kill()

    def pause(self, node: int) -> None:
        """Make a node hang (SIGSTOP) until `resume`."""
        self._servers[node].pause()

    def resume(self, node: int) -> None:
        """Let a node go on (SIGCONT)."""
        self._servers[node].resume()


@contextlib.contextmanager
def processes(
    brokers: int, folder: Path | None, environment: Mapping[str, str]
) -> Iterator[NativeKafka]:
    """Brokers while the context lasts.

    Raises:
        WayClosed: Java, Maven or the jars are not to be had, or a broker does not start.
    """
    java_path, jars = java(environment), kafka_jars(environment)
    with guarded("kafka", folder) as guard:
        run = [java_path, *_options(guard.folder), "-cp", f"{jars}/*"]
        nodes = new_nodes(brokers)
        files = {node.number: _write(guard.folder, node, nodes) for node in nodes}
        _format(guard, run, files.values())
        # In good order the last of three waits long for the others; data to be removed need none.
        end_signal = signal.SIGKILL if folder is None else signal.SIGTERM
        cluster = NativeKafka(
            {node: _server(guard, run, node, files[node.number], end_signal) for node in nodes}
        )
        cluster.start(*cluster.nodes)
        yield cluster


def takes_part(node: Node) -> bool:
    """Whether a broker answers, and is one that its cluster counts on."""
    if not listens(node.port):
        return False
    # Its log would go to standard error: of a broker that is still starting, many lines.
    admin = AdminClient({"bootstrap.servers": node.address, "log_level": 0})
    try:
        return node.number in admin.list_topics(timeout=_ASK_SECONDS).brokers
    except KafkaException:
        return False


def _options(folder: Path) -> list[str]:
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    return [
        HEAP,
        # The first compiler alone has a broker ready in half the time, and is fast enough here.
        "-XX:TieredStopAtLevel=1",
        # What would stay in the system's temporary folder when the process is killed.
        *("-XX:-UsePerfData", f"-Djava.io.tmpdir={temporary}"),
        f"-Dlog4j2.configurationFile={_LOGGING}",
    ]


def _write(folder: Path, node: Node, nodes: Sequence[Node]) -> Path:
    properties = {
        **listeners(node, nodes),
        **behaviour(len(nodes)),
        "log.dirs": str(folder / f"kafka-{node.number}"),
    }
    file = folder / f"kafka-{node.number}.properties"
    file.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
    return file


def _format(guard: Guard, run: Sequence[str], files: Iterable[Path]) -> None:
    """Prepare the data folders of brokers, together; those of an earlier start are left alone."""
    known = guard.folder / "cluster-id"
    if not known.exists():
        known.write_text(new_cluster_id())
    tool = [
        *run,
        "kafka.tools.StorageTool",
        "format",
        "--ignore-formatted",
        "-t",
        known.read_text(),
    ]
    log = guard.folder / "format.log"
    running = [guard.start([*tool, "-c", file], log=log) for file in files]
    ended = until(lambda: all(guard.code(pid) is not None for pid in running), START_SECONDS)
    if not ended or any(guard.code(pid) for pid in running):
        raise WayClosed(
            f"Kafka's data folder cannot be prepared: {last_words(log.read_text(errors='replace'))}"
        )


def _server(
    guard: Guard, run: Sequence[str], node: Node, file: Path, end_signal: signal.Signals
) -> Server:
    return Server(
        guard,
        f"kafka-{node.number}",
        [*run, "kafka.Kafka", file],
        answers=lambda: takes_part(node),
        end_signal=end_signal,
    )
