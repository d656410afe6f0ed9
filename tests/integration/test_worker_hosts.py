"""Workers with a real scorer, and hosts that are not to be asked: nothing is lost."""

import sys
from collections.abc import Iterator
from datetime import timedelta

import pytest

from deploy import local
from deploy.local.ports import free_ports
from pairscore.clip import ClipModel, load_model
from pairscore.pair import Reason
from pairscore.scorer import Scorer
from pairscore.settings import FetchSettings, RedisSettings, Settings, load_settings
from shared.messages import PairMessage, decode
from tests.fetching import wait_until
from tests.hostile_server import HostileServer, reply
from tests.image_server import picture
from tests.tiny_clip import make_tiny_clip
from tests.working import WITHIN, Fleet, said_by_worker, working

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="all of 127.0.0.0/8 is loopback on Linux only"
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return load_settings(
        {
            "model": str(make_tiny_clip(tmp_path_factory.mktemp("model"))),
            "cache_dir": tmp_path_factory.mktemp("cache"),
        }
    )


@pytest.fixture(scope="module")
def model(settings: Settings) -> Iterator[ClipModel]:
    model = load_model(settings)
    yield model
    model.close()


def as_in_a_worker(
    settings: Settings, redis: local.Redis | None = None, **fetch: object
) -> Settings:
    """One attempt, and no long wait for a host."""
    options = {"allow_networks": "127.0.0.0/8", "attempts": 1, "queue_timeout": 2.5}
    changes: dict[str, object] = {"fetch": FetchSettings(**(options | fetch))}
    if redis is not None:
        changes["redis"] = RedisSettings(url=redis.url, timeout=5)
    return settings.model_copy(update=changes)


@pytest.fixture
def fleet(kafka: local.Kafka, topic_prefix: str) -> Fleet:
    return Fleet(kafka.bootstrap_servers, topic_prefix)


def publish(fleet: Fleet, urls: list[str]) -> None:
    for row, url in enumerate(urls):
        fleet.publish(range(row, row + 1), url=url)


def retries(fleet: Fleet) -> dict[str, list[PairMessage]]:
    """The rows of each tier."""
    found: dict[str, list[PairMessage]] = {}
    for tier in fleet.topics.retries:
        rows = [decode(PairMessage, message.value()) for message in fleet.read(tier.topic)]
        found[str(tier.delay)] = [row for row in rows if isinstance(row, PairMessage)]
    return found


def test_rows_of_a_closed_host_go_to_a_tier_without_counting_and_others_are_scored(
    fleet, settings, model
):
    [port] = free_ports(1)
    with HostileServer("127.0.0.6") as busy, HostileServer("127.0.0.7") as other:
        busy.on("/0", reply(429, Retry_After="3600"))
        urls = [busy.url("/0")] + [busy.on(f"/{n}", reply(200, picture(n))) for n in range(1, 6)]
        scorer = Scorer(as_in_a_worker(settings, per_host=1), model=model)
        fleet.publish(range(1), url=urls[0])
        with working(fleet, scorer, telemetry={"port": port}):
            wait_until(lambda: busy.hits() == 1, within=WITHIN)
            wait_until(lambda: scorer.fetched.closings == 1, within=WITHIN)
            for row, url in enumerate(urls[1:], start=1):
                fleet.publish(range(row, row + 1), url=url)
            fleet.publish(range(6, 7), url=other.on("/a", reply(200, picture(0))))
            wait_until(lambda: fleet.rows() == [6], within=WITHIN)
            wait_until(lambda: len(retries(fleet)["600"]) == 6, within=WITHIN)
            wait_until(
                lambda: said_by_worker(port).get("host_let_go_total/closed") == 5, within=WITHIN
            )
        scorer.close()
    assert busy.hits() == 1
    waiting = {row.row: row for row in retries(fleet)["600"]}
    # The one that was answered has made an attempt; of the others nobody was asked for.
    assert {row: each.attempt for row, each in waiting.items()} == {0: 2} | dict.fromkeys(
        range(1, 6), 1
    )
    assert waiting[0].deferred_since is None
    assert all(waiting[row].deferred_since is not None for row in range(1, 6))


def test_a_row_that_was_deferred_for_a_day_is_a_timeout(fleet, settings, model):
    with HostileServer("127.0.0.6") as busy:
        busy.on("/0", reply(503, Retry_After="3600"))
        scorer = Scorer(as_in_a_worker(settings, per_host=1), model=model)
        fleet.publish(range(1), url=busy.url("/0"))
        with working(fleet, scorer):
            wait_until(lambda: scorer.fetched.closings == 1, within=WITHIN)
            wait_until(lambda: len(retries(fleet)["600"]) == 1, within=WITHIN)
            long_ago = retries(fleet)["600"][0].created_at - timedelta(hours=25)
            fleet.publish(range(1, 2), url=busy.url("/1"), deferred_since=long_ago)
            wait_until(lambda: fleet.rows() == [1], within=WITHIN)
        scorer.close()
    (score,) = fleet.scores()
    assert score.error is Reason.TIMEOUT
    assert score.error_detail is not None
    assert score.error_detail.startswith("127.0.0.6 asks to be left alone for 3,")


def test_rows_of_a_host_that_is_gone_end_as_failures_soon(kafka, topic_prefix, settings, model):
    fleet = Fleet(kafka.bootstrap_servers, topic_prefix, retry_delays=(1,))
    [port] = free_ports(1)
    urls = [f"http://127.0.0.8:{port}/{n}.jpg" for n in range(40)]
    with Scorer(as_in_a_worker(settings), model=model) as scorer, working(fleet, scorer):
        publish(fleet, urls)
        wait_until(lambda: fleet.rows() == list(range(40)), within=2 * WITHIN)
    scores = fleet.scores()
    assert {score.error for score in scores} == {Reason.CONNECT_ERROR}
    # All have been through three tiers; how often each was asked, where it was of any use.
    assert {score.attempts for score in scores} <= {0, 1, 2, 3, 4}
    assert any("has not answered for a while" in (score.error_detail or "") for score in scores)


def test_two_workers_are_one_client_to_a_host(kafka, topic_prefix, redis_service, settings, model):
    fleet = Fleet(kafka.bootstrap_servers, topic_prefix)
    shared = as_in_a_worker(settings, redis_service, host_limits="127.0.0.9=10/2")
    with HostileServer("127.0.0.9") as server:
        urls = [server.on(f"/{n}", reply(200, picture(n))) for n in range(30)]
        with (
            Scorer(shared, model=model) as one,
            Scorer(shared, model=model) as other,
            working(fleet, one, worker={"id": "one"}),
            working(fleet, other, worker={"id": "other"}),
        ):
            wait_until(lambda: fleet.members() == 2, within=WITHIN)
            publish(fleet, urls)
            wait_until(lambda: fleet.rows() == list(range(30)), within=2 * WITHIN)
        times = sorted(request.at for request in server.requests)
        assert server.peak <= 2
    assert len(times) == 30
    # A burst of two, ten in each second, and those that were a little late.
    assert max(sum(t <= at < t + 1 for at in times) for t in times) <= 2 + 10 + 2
