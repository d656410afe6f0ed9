"""Decoders and encoders set how many cores torch uses in turn, never at the same time."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pairscore import threads
from pairscore.clip import load_model
from pairscore.image import configure_thread
from pairscore.settings import Settings
from tests.tiny_clip import make_tiny_clip


class NotedLock:
    """A lock that knows who has held it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.holders: list[str] = []

    def __enter__(self) -> None:
        self._lock.acquire()
        self.holders.append(threading.current_thread().name)

    def __exit__(self, *_: object) -> None:
        self._lock.release()


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch) -> Iterator[NotedLock]:
    lock = NotedLock()
    monkeypatch.setattr(threads, "_configuring", lock)
    before = torch.get_num_threads()
    yield lock
    torch.set_num_threads(before)


def test_decoders_and_encoders_wait_for_each_other(
    lock: NotedLock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    decoder = threading.Thread(target=configure_thread, name="decoder")
    decoder.start()
    decoder.join()
    folder = make_tiny_clip(tmp_path / "tiny")
    settings = Settings(
        model=str(folder), device="cpu", backend="torch", cache_dir=tmp_path / "cache"
    )
    model = load_model(settings)
    model.embed_images(np.zeros((1, 3, 32, 32), dtype=np.uint8))
    model.close()

    assert "decoder" in lock.holders
    assert any(name.startswith("pairscore-torch") for name in lock.holders)
