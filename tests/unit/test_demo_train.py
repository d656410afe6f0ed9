"""Training runs to its end, the same seed gives the same weights, and batches are sound."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPModel, CLIPProcessor

from pairscore.demo import train
from pairscore.demo.batches import BATCH_SIZE, CHANGES, GROUPS, Batches
from pairscore.demo.scenes import HELD_OUT, caption, sample
from pairscore.demo.vocabulary import make_tokenizer


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("first"), seed=1)


def run(out: Path, seed: int) -> Path:
    threads = torch.get_num_threads()
    try:
        train.main(["--out", str(out), "--steps", "3", "--seed", str(seed), "--scenes", "32"])
    finally:
        torch.set_num_threads(threads)
    return out


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_three_steps_give_a_model_that_transformers_loads(trained: Path) -> None:
    model = CLIPModel.from_pretrained(trained)
    assert model.dtype == torch.float16
    assert model.num_parameters() < 2_000_000
    tokenizer = CLIPProcessor.from_pretrained(trained).tokenizer
    assert model.text_model.embeddings.token_embedding.num_embeddings == len(tokenizer)
    assert (trained / "preprocessor_config.json").is_file()


def test_the_log_has_seed_loss_time_and_table(trained: Path) -> None:
    lines = (trained / "training.log").read_text().splitlines()
    assert lines[0].startswith(f"seed 1, 3 steps of {BATCH_SIZE} pairs")
    assert any(line.startswith("step     3  loss ") for line in lines)
    assert any(line.startswith("trained in ") for line in lines)
    assert [line.split()[0] for line in lines[-2:]] == ["seen", "unseen"]


def test_the_same_seed_gives_the_same_weights(trained: Path, tmp_path: Path) -> None:
    assert digest(run(tmp_path / "again", seed=1)) == digest(trained)


def test_batches_are_a_function_of_seed_and_index() -> None:
    rng = np.random.default_rng(0)
    tokenizer = make_tokenizer([caption(sample(rng, "seen"), rng) for _ in range(500)])
    first, again = (Batches(tokenizer, 72, 0, 2)[1] for _ in range(2))
    assert torch.equal(first.pixels, again.pixels)
    assert torch.equal(first.tokens, again.tokens)
    assert first.pixels.shape == (BATCH_SIZE, 3, 72, 72)
    assert first.pixels.dtype == torch.uint8
    for other in (Batches(tokenizer, 72, 0, 2)[0], Batches(tokenizer, 72, 1, 2)[1]):
        assert not torch.equal(first.pixels, other.pixels)


def test_held_out_combinations_are_neither_shown_nor_named_in_training() -> None:
    rng = np.random.default_rng(0)
    tokenizer = make_tokenizer([caption(sample(rng, "seen"), rng) for _ in range(500)])
    batches = Batches(tokenizer, 72, 0, 4)
    texts = [
        text.replace("</w>", " ")
        for i in range(4)
        for text in tokenizer.batch_decode(batches[i].tokens, skip_special_tokens=True)
    ]
    assert len(texts) == 4 * BATCH_SIZE
    assert not [t for t in texts for colour, shape in HELD_OUT if f"{colour} {shape}" in t]
    assert [t for t in texts if "red circle" in t]


def test_a_caption_fits_its_own_scene_and_others_only_if_it_leaves_the_difference_out() -> None:
    rng = np.random.default_rng(0)
    tokenizer = make_tokenizer([caption(sample(rng, "seen"), rng) for _ in range(500)])
    batch = Batches(tokenizer, 72, 0, 1)[0]
    assert batch.fits.diagonal().all()
    # Each group's first scene differs from the others in one attribute each, so that a full
    # caption fits one scene of them, and an empty one might fit all.
    size = 1 + len(CHANGES)
    groups = batch.fits.reshape(GROUPS, size, GROUPS, size)
    within = torch.stack([groups[g, :, g, 0].sum() for g in range(GROUPS)])
    assert (within == 1).sum() > len(within) // 3
    assert (within > 1).any()
    assert (within < size).all()
