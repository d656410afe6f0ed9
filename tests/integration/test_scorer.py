"""The scorer against a real server and a real (small, random) model."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

import pairscore.image
from pairscore.clip import ClipModel, load_model
from pairscore.pair import Failure, Outcome, Pair, Reason, Score
from pairscore.scorer import Scorer, ScorerClosed, ScorerCrashed, score_pairs
from pairscore.settings import CacheSettings, Settings, load_settings
from tests.fetching import wait_until
from tests.image_server import ImageServer, image_server, picture
from tests.tiny_clip import make_tiny_clip

DEADLINE = 30


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_clip(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def settings(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return load_settings(
        {
            "model": str(model_folder),
            "cache_dir": tmp_path_factory.mktemp("cache"),
            "fetch": {
                "allow_networks": "127.0.0.0/8",
                "timeout": 20,
                "attempts": 3,
                "backoff_base": 0.01,
            },
        }
    )


@pytest.fixture(scope="module")
def model(settings: Settings) -> Iterator[ClipModel]:
    model = load_model(settings)
    yield model
    model.close()


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with image_server() as server:
        yield server


@pytest.fixture
def scorer(settings: Settings, model: ClipModel) -> Iterator[Scorer]:
    with Scorer(settings, model=model) as scorer:
        yield scorer


def result(scorer: Scorer, url: str, caption: str = "a red circle") -> Outcome:
    return scorer.submit(Pair(url, caption)).result(timeout=DEADLINE)


def score_of(outcome: Outcome) -> Score:
    assert isinstance(outcome, Score), outcome
    return outcome


def failure_of(outcome: Outcome) -> Failure:
    assert isinstance(outcome, Failure), outcome
    return outcome


def test_outcomes_come_in_the_order_of_the_pairs(scorer, server):
    urls = [server.add(f"/{n}.jpg", picture(n)) for n in range(40)]
    pairs = [(url, f"a photo of {n} dog") for n, url in enumerate(urls)]
    outcomes = list(scorer.score_pairs(pairs))
    alone = [result(scorer, *pair) for pair in pairs]
    assert all(isinstance(outcome, Score) for outcome in outcomes)
    assert [o.image_sha256 for o in outcomes] == [o.image_sha256 for o in alone]
    assert len({o.image_sha256 for o in outcomes}) == 40


def test_numbers_are_those_of_transformers(scorer, server, model_folder):
    import torch
    from transformers import CLIPModel, CLIPProcessor

    reference = CLIPModel.from_pretrained(model_folder)
    reference.eval()
    processor = CLIPProcessor.from_pretrained(model_folder)
    formats = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
    bodies = [picture(n, name, (61 + 7 * n, 90)) for n, name in enumerate(formats)]
    captions = [
        f"a {word} photo of the dog" for word in ("red", "large", "green", "x", "é", "two")
    ][:6]
    captions.append("two small red circle on the large green square " * 5)
    urls = [server.add(f"/{n}", body) for n, body in enumerate(bodies)]
    outcomes = list(scorer.score_pairs(zip(urls, captions, strict=True)))
    for body, caption, outcome in zip(bodies, captions, outcomes, strict=True):
        image = Image.open(BytesIO(body)).convert("RGB")
        inputs = processor(
            text=[caption],
            images=[image],
            return_tensors="pt",
            padding=True,
            truncation=True,
            max_length=20,
        )
        with torch.inference_mode():
            expected = reference(**inputs).logits_per_image.item()
        assert isinstance(outcome, Score)
        assert outcome.similarity == pytest.approx(expected, abs=1e-2)
    assert [score_of(outcome).caption_truncated for outcome in outcomes] == [False] * 6 + [True]


def test_a_pair_scores_the_same_alone_and_among_others(settings, model, server):
    urls = [server.add(f"/{n}.png", picture(n, "PNG")) for n in range(33)]
    captions = [f"the {'large ' * (n % 9)}dog {n}" for n in range(33)]
    with Scorer(settings, model=model) as scorer:
        together = list(scorer.score_pairs(zip(urls, captions, strict=True)))
    with Scorer(settings, model=model) as scorer:
        alone = [result(scorer, u, c) for u, c in zip(urls, captions, strict=True)]
    differences = [
        abs(score_of(a).similarity - score_of(b).similarity)
        for a, b in zip(together, alone, strict=True)
    ]
    assert max(differences) < 1e-3


def test_rows_of_one_url_ask_for_it_once(scorer, server):
    url = server.add("/1.jpg", picture(1))
    server.gate.clear()
    futures = [scorer.submit(Pair(url, f"a dog {n % 5}")) for n in range(50)]
    server.gate.set()
    outcomes = [future.result(timeout=DEADLINE) for future in futures]
    assert all(isinstance(outcome, Score) and outcome.attempts == 1 for outcome in outcomes)
    assert len({outcome.similarity for outcome in outcomes}) == 5
    assert server.hits == {"/1.jpg": 1}
    assert result(scorer, url).attempts == 0
    assert server.hits == {"/1.jpg": 1}


def test_one_content_under_two_urls_has_one_hash_and_one_similarity(scorer, server):
    body = picture(3)
    first, second = (result(scorer, server.add(path, body)) for path in ("/a", "/b"))
    assert isinstance(first, Score)
    assert first == second


def test_failures_leave_the_other_rows_of_their_batch_alone(scorer, server):
    good = server.add("/good.jpg", picture(1))
    whole = picture(2)
    pairs = [
        (good, "a dog"),
        (server.url("/gone.jpg"), "a dog"),
        (server.add("/cut.jpg", whole[: len(whole) // 2]), "a dog"),
        (server.add("/page.jpg", b"<!doctype html><html></html>"), "a dog"),
        ("", "a dog"),
        ("http://10.0.0.1/x.jpg", "a dog"),
        (good, "  \n"),
        (good, "a red dog"),
    ]
    outcomes = list(scorer.score_pairs(pairs))
    reasons = [o.reason if isinstance(o, Failure) else None for o in outcomes]
    assert reasons == [
        None,
        Reason.HTTP_ERROR,
        Reason.CORRUPT_IMAGE,
        Reason.NOT_AN_IMAGE,
        Reason.INVALID_URL,
        Reason.BLOCKED_ADDRESS,
        Reason.EMPTY_CAPTION,
        None,
    ]
    assert failure_of(outcomes[1]).error == "http_error: 404"
    assert outcomes[2].image_sha256 is not None


def test_permanent_failure_is_remembered_and_a_temporary_one_is_not(scorer, server):
    gone, busy = server.url("/gone.jpg"), server.add("/busy.jpg", picture(1))
    server.statuses["/busy.jpg"] = [503] * 3
    assert [result(scorer, gone).attempts for _ in range(2)] == [1, 0]
    assert failure_of(result(scorer, busy)).error == "http_error: 503"
    assert isinstance(result(scorer, busy), Score)
    assert server.hits == {"/gone.jpg": 1, "/busy.jpg": 4}


def test_pairs_are_read_at_most_a_window_ahead(scorer, server):
    urls = [server.add(f"/{n}.jpg", picture(n)) for n in range(12)]
    taken = 0

    def pairs() -> Iterator[Pair]:
        nonlocal taken
        for url in urls:
            taken += 1
            yield Pair(url, "a dog")

    outcomes = scorer.score_pairs(pairs(), window=4)
    server.gate.clear()
    first = threading.Thread(target=lambda: next(outcomes))
    first.start()
    # The window is full once all it holds is being asked for; only then is anything answered.
    wait_until(lambda: sum(server.hits.values()) == 4, DEADLINE)
    server.gate.set()
    first.join(timeout=DEADLINE)
    assert taken == 4
    assert len(list(outcomes)) == 11


def test_outcome_is_given_as_soon_as_it_is_there(scorer, server):
    url = server.add("/1.jpg", picture(1))
    given = []

    def pairs() -> Iterator[Pair]:
        yield Pair("", "a dog")
        given.append(len(received))
        yield Pair(url, "a dog")

    received: list[Outcome] = []
    for outcome in scorer.score_pairs(pairs(), window=1000):
        received.append(outcome)  # noqa: PERF402 - one at a time is the point
    assert given == [1]
    assert len(received) == 2


class Broken:
    """A model whose encoder fails; all else is the real one's."""

    def __init__(self, model: ClipModel) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def embed_images(self, pixels: Any) -> Any:
        raise ZeroDivisionError("no such luck")


def test_dead_stage_raises_in_every_future_and_nothing_hangs(settings, model, server):
    urls = [server.add(f"/{n}.jpg", picture(n)) for n in range(20)]
    with Scorer(settings, model=cast(ClipModel, Broken(model))) as scorer:
        futures = [scorer.submit(Pair(url, "a dog")) for url in urls]
        for future in futures:
            with pytest.raises(ScorerCrashed) as caught:
                future.result(timeout=DEADLINE)
            assert isinstance(caught.value.__cause__, ZeroDivisionError)
        with pytest.raises(ScorerCrashed):
            scorer.submit(Pair(urls[0], "a dog"))
        with pytest.raises(ScorerCrashed):
            list(scorer.score_pairs([(urls[0], "a dog")]))


class NotFinite(Broken):
    """A model that gives numbers that are none."""

    def embed_images(self, pixels: Any) -> Any:
        return np.full((len(pixels), self.dimensions), np.nan, np.float32)


def test_similarity_that_is_no_number_is_a_reason(settings, model, server):
    url = server.add("/1.jpg", picture(1))
    with Scorer(settings, model=cast(ClipModel, NotFinite(model))) as scorer:
        outcome = failure_of(result(scorer, url))
    assert outcome.error == "internal: similarity is not finite"


def test_defect_in_one_image_is_its_internal_failure_and_is_logged(
    settings, model, server, monkeypatch, caplog
):
    real, poison = pairscore.image.decode, picture(7)

    def decode(data: bytes, *, max_pixels: int) -> Any:
        if data == poison:
            raise KeyError("defect")
        return real(data, max_pixels=max_pixels)

    monkeypatch.setattr("pairscore.scorer.decode.decode", decode)
    bad, good = server.add("/bad.jpg", poison), server.add("/good.jpg", picture(8))
    with Scorer(settings, model=model) as scorer:
        outcomes = list(scorer.score_pairs([(bad, "a dog"), (good, "a dog")]))
    assert failure_of(outcomes[0]).error == "internal: decoding: KeyError"
    assert isinstance(outcomes[1], Score)
    assert "Traceback" in caplog.text
    assert "/bad.jpg" in caplog.text


class Stepwise(Broken):
    """A model that takes a step for each batch of images."""

    def __init__(self, model: ClipModel) -> None:
        super().__init__(model)
        self.batches = 0
        self.steps = threading.Semaphore(0)

    def step(self, future: Future[Outcome]) -> None:
        """End a batch, and wait until the next one begins or there is the outcome."""
        before = self.batches
        self.steps.release()
        wait_until(lambda: self.batches > before or future.done())

    def embed_images(self, pixels: Any) -> Any:
        self.batches += 1
        assert self.steps.acquire(timeout=DEADLINE)
        return self._model.embed_images(pixels)


def test_urgent_pair_overtakes_what_fills_every_stage(settings, model, server, monkeypatch):
    real, last, decoded = pairscore.image.decode, picture(99), threading.Event()

    def decode(data: bytes, *, max_pixels: int) -> Any:
        if data == last:
            decoded.set()
        return real(data, max_pixels=max_pixels)

    monkeypatch.setattr("pairscore.scorer.decode.decode", decode)
    small = settings.model_copy(
        update={
            "batch_size": 2,
            "image": settings.image.model_copy(update={"threads": 1}),
            "fetch": settings.fetch.model_copy(update={"concurrency": 4}),
        }
    )
    urls = [server.add(f"/{n}.jpg", picture(n)) for n in range(60)]
    stepwise = Stepwise(model)
    with Scorer(small, model=cast(ClipModel, stepwise)) as scorer:
        bulk = [scorer.submit((url, "a dog")) for url in urls]
        # The slots of pixels, the thread that waits for one, and the fetcher's slots are taken.
        wait_until(lambda: len(server.hits) == 4 + 1 + 4)
        urgent = scorer.submit((server.add("/urgent.jpg", last), "a red circle"), urgent=True)
        assert decoded.wait(DEADLINE)
        while not urgent.done():
            stepwise.step(urgent)
        # The one that was in the model, perhaps one that it was late for, and the one after it.
        assert sum(future.done() for future in bulk) <= 3 * 2
        stepwise.steps.release(1_000)
        assert all(isinstance(future.result(DEADLINE), Score) for future in bulk)
    assert score_of(urgent.result()).similarity == pytest.approx(
        alone(settings, model, server.url("/urgent.jpg")), abs=1e-3
    )


def alone(settings: Settings, model: ClipModel, url: str) -> float:
    with Scorer(settings, model=model) as scorer:
        return score_of(result(scorer, url)).similarity


def test_closing_ends_what_is_in_flight(settings, model, server):
    url = server.add("/1.jpg", picture(1))
    server.gate.clear()
    scorer = Scorer(settings, model=model)
    future = scorer.submit((url, "a dog"))
    scorer.close()
    with pytest.raises(ScorerClosed):
        future.result(timeout=0)
    with pytest.raises(ScorerClosed):
        scorer.submit(Pair(url, "a dog"))
    scorer.close()
    assert not [t.name for t in threading.enumerate() if t.name.startswith("pairscore-encode")]


def test_threads_may_submit_at_once(scorer, server):
    urls = [server.add(f"/{n}.jpg", picture(n)) for n in range(10)]
    outcomes: list[Outcome] = []

    def submit() -> None:
        futures = [scorer.submit(Pair(url, "a dog")) for url in urls * 5]
        outcomes.extend(future.result(timeout=DEADLINE) for future in futures)

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=2 * DEADLINE)
    assert len(outcomes) == 400
    assert all(isinstance(outcome, Score) for outcome in outcomes)
    assert max(server.hits.values()) == 1


def test_many_rows_end_once_each_with_little_in_flight(settings, model, server):
    urls = [server.add(f"/{n}.jpg", picture(n)) for n in range(25)] + [server.url("/gone")]
    pairs = [(urls[n % 26], f"dog {n % 7}") for n in range(3_000)]
    with Scorer(settings, model=model) as scorer:
        outcomes = list(scorer.score_pairs(iter(pairs), window=64))
    assert len(outcomes) == 3_000
    failed = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Failure)]
    assert failed == [n for n in range(3_000) if n % 26 == 25]
    expected = {pair: outcome.image_sha256 for pair, outcome in zip(pairs, outcomes, strict=True)}
    assert all(
        outcome.image_sha256 == expected[pair]
        for pair, outcome in zip(pairs, outcomes, strict=True)
    )


def test_without_a_cache_scores_are_the_same(settings, model, server):
    urls = [server.add(f"/{n}.jpg", picture(n)) for n in range(5)] * 2
    bare = settings.model_copy(update={"cache": CacheSettings(bytes=0)})
    with Scorer(settings, model=model) as scorer:
        cached = [score_of(o).similarity for o in scorer.score_pairs([(u, "a dog") for u in urls])]
    with Scorer(bare, model=model) as scorer:
        uncached = [
            score_of(o).similarity
            for o in scorer.score_pairs([(u, "a dog") for u in urls], window=1)
        ]
    assert cached == pytest.approx(uncached, abs=1e-3)
    assert sum(server.hits.values()) == 15


def test_names_of_the_package_are_there_before_they_are_imported():
    assert set(pairscore.__all__) <= set(dir(pairscore))
    assert all(getattr(pairscore, name) is not None for name in pairscore.__all__)


def test_score_pairs_makes_and_ends_a_scorer_of_its_own(settings, server):
    url = server.add("/1.jpg", picture(1))
    outcomes = list(score_pairs([(url, "a dog"), Pair("nonsense", "a cat")], settings))
    assert isinstance(outcomes[0], Score)
    assert failure_of(outcomes[1]).reason is Reason.INVALID_URL
    assert np.isfinite(score_of(outcomes[0]).similarity)
    assert not [t.name for t in threading.enumerate() if t.name == "pairscore-encode"]
