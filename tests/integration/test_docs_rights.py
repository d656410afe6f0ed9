"""The rights that docs/operations.md lists are enough for a whole fleet, each service's for it."""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
import requests
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from deploy.local.ports import free_ports
from pairscore.client import Client
from pairscore.pair import Failure, Reason
from shared.settings import KafkaSettings
from tests import commands
from tests.documents import page
from tests.fetching import wait_until
from tests.postgres_sinks import database
from tests.producing import Place
from tests.refusing import run_all, services
from tests.strict_broker import Strict, login
from tests.whole_fleet import DEADLINE, publish, running, wait_for_outcomes, write_rows

ROW = re.compile(
    r"^\| (?:`([^`]+)`)? ?\| (topic|group|transactional id) \| `([^`]+)` \| (.+) \|$", re.MULTILINE
)
KINDS = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional id": ResourceType.TRANSACTIONAL_ID,
}
OPERATIONS = {operation.name.replace("_", ""): operation for operation in AclOperation}
USERS = (
    "shared-topics-create",
    "producer-csv",
    "producer-cancel",
    "producer-api",
    "worker",
    "sink-csv",
    "sink-postgres",
    "nobody",
)
ROWS = 20


def rights(prefix: str) -> Iterator[AclBinding]:
    """Each right of the page's table, of a user who is called as the service is."""
    user = ""
    for who, kind, name, operations in ROW.findall(page("operations.md")):
        user = who or user
        pattern = ResourcePatternType.PREFIXED if name[-1] == "*" else ResourcePatternType.LITERAL
        for operation in operations.split(", "):
            yield AclBinding(
                KINDS[kind],
                prefix + name.rstrip("*"),
                pattern,
                f"User:{user_of(user)}",
                "*",
                OPERATIONS[operation.upper()],
                AclPermissionType.ALLOW,
            )


def user_of(service: str) -> str:
    return re.sub(r"\W", "-", service)


@pytest.fixture(scope="module")
def strict(tmp_path_factory) -> Iterator[Strict]:
    broker = Strict(tmp_path_factory.mktemp("keys"), USERS, closed=True)
    with broker.running():
        yield broker


@pytest.fixture
def there(strict, topic_prefix) -> Place:
    """A place without topics, where the page's rights are given."""
    servers = strict.address("plain")
    place = Place(KafkaSettings(bootstrap_servers=servers, topic_prefix=topic_prefix, partitions=3))
    for made in place.admin.create_acls(list(rights(topic_prefix))).values():
        made.result(20)
    return place


def environment(strict: Strict, there: Place, user: str, **more: str) -> dict[str, str]:
    assert user in USERS
    return there.environment(
        PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS=strict.address("login"),
        PAIRSCORE_KAFKA__PROPERTIES=json.dumps(login(user)),
        PAIRSCORE_TELEMETRY__PORT="0",
        **more,
    )


def test_a_fleet_whose_services_have_the_rights_of_the_page_scores_a_file(
    strict, there, tmp_path, postgres_service
):
    source = tmp_path / "in.csv"
    write_rows(source, ROWS)
    results = tmp_path / "results"
    with database(postgres_service.url) as url:

        def of(service: str) -> dict[str, str]:
            more = {"PAIRSCORE_RESULTS": str(results), "PAIRSCORE_POSTGRES_URL": url}
            return environment(strict, there, user_of(service), PAIRSCORE_MODEL="demo", **more)

        create = [sys.executable, "-m", "shared.topics", "create"]
        made = commands.run(create, of("shared.topics create"), within=DEADLINE)
        assert made.returncode == 0, made.stderr
        with running(tmp_path, of) as logs:
            publish(source, "j", of("producer csv"), "--wait")
            wait_for_outcomes(results, url, "j", source, ROWS)
            publish(source, "k", of("producer csv"))  # now that there is something on `jobs`
            cancel = [sys.executable, "-m", "producer", "cancel", "j"]
            done = commands.run(cancel, of("producer cancel"), within=DEADLINE)
            assert done.returncode == 0, done.stderr
            wait_until(lambda: "job j is cancelled" in logs[0].read_text(), within=DEADLINE)
        said = "\n".join(log.read_text() for log in logs)
        assert "authorization" not in said.lower(), said


def test_an_api_with_the_rights_of_the_page_scores_in_line_and_makes_and_cancels_jobs(
    strict, there, tmp_path
):
    there.create()
    (port,) = free_ports(1)
    results = {"PAIRSCORE_RESULTS": str(tmp_path), "PAIRSCORE_API__PORT": str(port)}
    api = environment(strict, there, "producer-api", **results)
    worker = environment(strict, there, "worker", PAIRSCORE_MODEL="demo")
    url = f"http://127.0.0.1:{port}"
    log = tmp_path / "log"
    pair = ("http://127.0.0.1:1/1.jpg", "a cat")  # comes to nothing soon

    def listens() -> bool:
        with suppress(requests.ConnectionError):
            return requests.get(f"{url}/v1/jobs", timeout=DEADLINE).ok
        return False

    with log.open("a") as file, ExitStack() as stack:
        said = {"stdout": file.fileno(), "stderr": file.fileno()}
        for command, given in ((["producer", "api"], api), (["worker"], worker)):
            started = commands.started([sys.executable, "-m", *command], given, **said)
            stack.enter_context(started)
        wait_until(listens, within=DEADLINE)
        with Client(url) as client:
            (outcome,) = client.score([pair], 60.0, wait=False)
            assert isinstance(outcome, Failure)
            assert outcome.reason is Reason.BLOCKED_ADDRESS
            job = client.submit([pair] * ROWS)
            assert job.cancel().rows == ROWS
    assert "authorization" not in log.read_text().lower(), log.read_text()


def test_who_has_no_rights_is_told_so(strict, there, tmp_path, postgres_service):
    there.create()
    first = {
        "worker": "pairs",
        "producer": "pairs",
        "sink csv": "scores",
        "sink postgres": "scores",
    }
    with database(postgres_service.url) as url:
        given = environment(strict, there, "nobody", PAIRSCORE_POSTGRES_URL=url)
        found = run_all(services(tmp_path), given)
    for ended in found:
        assert ended.code == 3
        assert ended.line == (
            f"topic {there.settings.topic_prefix}{first[ended.name]} at {strict.address('login')} "
            "may not be seen by this user; give it the rights that docs/operations.md lists "
            "(`kafka-acls.sh --topic`), or correct PAIRSCORE_KAFKA__TOPIC_PREFIX"
        )


def test_list_tells_what_may_not_be_seen_from_what_is_missing(strict, there):
    there.create()
    hidden = there.topics.pairs
    listing = [sys.executable, "-m", "shared.topics", "list"]
    done = commands.run(listing, environment(strict, there, "nobody"), within=DEADLINE)
    assert done.stdout.splitlines()[0] == f"{hidden}: may not be seen by this user"
    done = commands.run(listing, environment(strict, there, "producer-csv"), within=DEADLINE)
    assert done.stdout.splitlines()[0] == f"{hidden}: 3 partitions"
