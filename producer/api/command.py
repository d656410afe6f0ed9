"""`python -m producer api`: the one place where settings, Kafka and the API are wired together."""

import asyncio
import ipaddress
import logging
import secrets
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import uvicorn

from pairscore.errors import EnvironmentFault, PairscoreError, SettingsError
from producer.api.answers import Answers
from producer.api.app import make_app
from producer.api.client import Client
from producer.api.follower import Follower
from producer.api.housekeeping import Housekeeping
from producer.api.jobs import JobBook, Jobs
from producer.api.keys import Keyring
from producer.api.lots import OUTAGE_SECONDS, LotPublisher, Pace
from producer.api.quotas import open_quotas
from producer.api.server import connection_limit, make_protocol
from producer.api.service import Parts, Service
from producer.checks import check_kafka, most_job_bytes
from producer.job import OwnJob
from producer.job_log import JobLog
from producer.pulse import Pulse
from producer.transactions import CLOSING_SECONDS, Transactions
from shared.connection import Connection
from shared.identity import process_identity
from shared.messages import JobMessage, JobState
from shared.results import open_results
from shared.settings import ApiOptions, ProducerSettings
from shared.shutdown import StopSignal
from shared.telemetry.health import Health
from shared.telemetry.logs import configure_logging
from shared.telemetry.metrics import PRODUCER_JOBS, PRODUCER_ROWS, PRODUCER_TRANSACTIONS, Metrics
from shared.telemetry.server import serving
from shared.telemetry.traces import tracing
from shared.topics import Topics
from shared.watchdog import Watchdog

GRACE_SECONDS: Final = 20.0
"""So long requests may go on once the process was asked to end."""

_END_SECONDS: Final = GRACE_SECONDS + 2 * CLOSING_SECONDS + 10.0
_READ_SECONDS: Final = 60.0
_STALL_SECONDS: Final = 60.0
_BACKLOG: Final = 4_096
# They wait for disks and for the store; uploads have few of them at a time.
_THREADS: Final = 64
_QUICK: Final = {"linger.ms": 0}

_log = logging.getLogger(__name__)


def run_api(settings: ProducerSettings) -> None:
    """Serve until asked to end.

    Raises:
        SettingsError: the keys, or the address without keys, cannot be used.
        EnvironmentFault: Kafka, the results store or the address cannot be.
    """
    stop = StopSignal()
    stop.install(_END_SECONDS)
    serve(settings, stop)


def serve(settings: ProducerSettings, stop: StopSignal) -> None:
    """Serve until `stop` is asked; tests call it in a thread."""
    find_client = _find_client(settings.api)
    connection, topics = Connection(settings.kafka), Topics.of(settings.kafka)
    with ExitStack() as stack:
        with stop.starting():
            name = stack.enter_context(process_identity("api", settings.api.id))
            admin = check_kafka(
                connection,
                topics,
                rows=(topics.pairs, topics.interactive),
                others=(topics.replies, topics.cancellations),
            )
            configure_logging(settings.telemetry, "producer")
            listener = stack.enter_context(_listening(settings.api))
            health, metrics = Health(_STALL_SECONDS), Metrics("producer")
            stack.enter_context(serving(settings.telemetry, metrics, health))
            tracer = stack.enter_context(tracing(settings.telemetry, "api", name))
            results = open_results(settings)
            stack.callback(results.close)
            runner = _Runner(stop)
            ending = StopSignal()
            pulse = Pulse(ending, health)
            answers = Answers(secrets.token_hex(16))
            partition = secrets.randbelow(settings.kafka.partitions)
            book = JobBook()

            def published(job: JobMessage, rows: int) -> None:
                book.know(job)
                metrics.inc(PRODUCER_ROWS, rows)
                if job.state is JobState.CLOSED:
                    metrics.inc(PRODUCER_JOBS)

            def transactions(owner: str, pulse: Pulse) -> Transactions:
                return Transactions(
                    connection,
                    f"api.{owner}",
                    pulse=pulse,
                    ended=lambda result: metrics.inc(PRODUCER_TRANSACTIONS, result=result),
                    outage=OUTAGE_SECONDS,
                    extra=_QUICK,
                )

            jobs_read = Follower(
                connection,
                admin,
                (topics.jobs, 0),
                begin="beginning",
                take=book.take,
                on_crash=runner.crash,
            )
            jobs_read.start(_READ_SECONDS)
            stack.callback(jobs_read.close)
            replies_read = Follower(
                connection,
                admin,
                (topics.replies, partition),
                begin="end",
                take=lambda messages: runner.call(answers.deliver, messages),
                on_crash=runner.crash,
            )
            replies_read.start(_READ_SECONDS)
            stack.callback(replies_read.close)
            lots = LotPublisher(
                name,
                make_transactions=lambda: transactions(name, pulse),
                log=JobLog(connection, admin, topics.jobs, pulse, OwnJob),
                topics=topics,
                partition=partition,
                answers=answers,
                pace=Pace(settings.api.inline_rows, settings.api.inline_seconds),
                pulse=pulse,
                health=health,
                published=published,
                on_crash=runner.crash,
                tracer=tracer,
            )
            lots.start()
            stack.callback(lots.close)
            stack.callback(ending.ask)
            url = settings.redis.url
            service = Service(
                Parts(
                    settings=settings,
                    connection=connection,
                    admin=admin,
                    topics=topics,
                    job_bytes=most_job_bytes(admin, topics),
                    answers=answers,
                    lots=lots,
                    jobs=Jobs(book, results),
                    quotas=open_quotas(
                        None if url is None else url.get_secret_value(), settings.redis.timeout
                    ),
                    find_client=find_client,
                    spool=_spool(settings.api, name),
                    stop=stop,
                    ending=ending,
                    published=published,
                    tracer=tracer,
                )
            )
            stack.callback(service.close)
            # What it waits for says nothing of the health of the others.
            aside = Pulse(ending, Health())
            housekeeping = Housekeeping(
                name,
                connection,
                book,
                results,
                topic=topics.jobs,
                log=JobLog(connection, admin, topics.jobs, aside, OwnJob),
                pulse=aside,
                make_transactions=lambda owner: transactions(owner, aside),
                end=service.end_unclaimed,
                days=settings.api.jobs_days,
                on_crash=runner.crash,
            )
            housekeeping.start()
            stack.callback(housekeeping.close)
        host, port = listener.getsockname()[:2]
        _log.info("the API is at http://%s:%s", host, port, extra={"port": port})
        with Watchdog(health, _STALL_SECONDS, name="producer"):
            runner.run(service, listener)
        _log.info("the API has ended")


class _Runner:
    """uvicorn in this thread, ended by a signal or by a defect in another thread."""

    def __init__(self, stop: StopSignal) -> None:
        self._stop = stop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: _Server | None = None
        self._crashed: BaseException | None = None

    def crash(self, error: BaseException) -> None:
        """End with this error; from any thread."""
        if not isinstance(error, PairscoreError):
            _log.critical("a thread ended with a defect", exc_info=error)
        self._crashed = error
        self._stop.ask()

    def call(self, function: object, *args: object) -> None:
        """Have the event loop call something; from any thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(function, *args)  # type: ignore[arg-type]

    def run(self, service: Service, listener: socket.socket) -> None:
        """Serve until asked to end.

        Raises:
            PairscoreError: what keeps it from going on, such as another process of its name.
            RuntimeError: a thread ended with a defect.
        """
        options = service.settings.api
        protocol = make_protocol(options, connection_limit(options.connections))
        config = uvicorn.Config(
            make_app(service),
            http=protocol,
            ws="none",
            lifespan="off",
            access_log=False,
            server_header=False,
            log_config=None,
            timeout_keep_alive=int(max(1, options.idle_seconds)),
            timeout_graceful_shutdown=int(GRACE_SECONDS),
            backlog=_BACKLOG,
        )
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # what clients did wrong
        self._server = _Server(config)
        threading.Thread(target=self._watch, name="stop", daemon=True).start()
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            self._loop = runner.get_loop()
            self._loop.set_default_executor(ThreadPoolExecutor(_THREADS, "work"))
            runner.run(self._server.serve(sockets=[listener]))
            # Before the threads of uploads are waited for.
            service.parts.ending.ask()
        if isinstance(self._crashed, PairscoreError):
            raise self._crashed
        if self._crashed is not None:
            raise RuntimeError("a thread ended with a defect") from self._crashed

    def _watch(self) -> None:
        while not self._stop.wait(3600):
            pass
        if self._server is not None:
            self._server.should_exit = True


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process's own handlers."""
        yield


def _find_client(options: ApiOptions) -> Callable[[str], Client | None] | None:
    if options.keys is not None:
        return Keyring(Path(options.keys)).find
    if not options.open and not _is_own(options.host):
        raise SettingsError(
            f"setting PAIRSCORE_API__HOST: {options.host} can be reached by others, and no keys "
            "are needed: set PAIRSCORE_API__KEYS (`python -m producer keys add NAME`), or "
            "PAIRSCORE_API__OPEN=true where anybody may use it"
        )
    return None


def _is_own(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _spool(options: ApiOptions, name: str) -> Path:
    """A folder of this process's own, without what an earlier one of its name left there."""
    folder = Path(options.spool or tempfile.gettempdir())
    own = folder / f"pairscore-api-{name}"
    try:
        own.mkdir(mode=0o700, exist_ok=True)
        for left in own.iterdir():
            left.unlink()
    except OSError as error:
        raise EnvironmentFault(
            f"setting PAIRSCORE_API__SPOOL: {own}: {error.strerror or error}; it must be a folder "
            "that this process can write to"
        ) from None
    return own


@contextmanager
def _listening(options: ApiOptions) -> Iterator[socket.socket]:
    try:
        found = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.create_server(
            found[0][4][:2], family=found[0][0], backlog=_BACKLOG, reuse_port=False
        )
    except OSError as error:
        raise EnvironmentFault(
            f"setting PAIRSCORE_API__PORT: port {options.port} at {options.host} cannot be opened: "
            f"{error.strerror or error}; set another"
        ) from None
    with listener:
        yield listener
