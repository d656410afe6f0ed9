"""Trains the demo model: `python -m pairscore.demo.train [--out DIR] [--steps N] [--seed N]`.

A CLIP (Radford et al. 2021, arXiv:2103.00020) of some 1.4 million parameters learns to match
synthetic scenes with their captions, in under 25 minutes on two cores that are free to do it, and
is saved in Hugging Face layout with the log of its making. The same seed and versions give the same
weights on the same kind of processor.
"""

import argparse
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import PIL
import torch
import transformers
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from pairscore.demo import MODEL_DIR
from pairscore.demo.batches import BATCH_SIZE, Batch, Batches
from pairscore.demo.evaluate import CHOICES, evaluate, header
from pairscore.demo.scenes import caption, sample
from pairscore.demo.vocabulary import CONTEXT_LENGTH, make_tokenizer

SIDE = 72
PATCH = 12
WIDTH = 128
STEPS = 2600
SCENES = 40 * CHOICES

_PEAK_RATE = 1.5e-3
_WEIGHT_DECAY = 0.05
_MAX_LOGIT_SCALE = 4.6
_REPORT_EVERY = 100

Say = Callable[[str], None]


def train(out: Path, *, steps: int = STEPS, seed: int = 0, scenes: int = SCENES) -> None:
    """Train for `steps` steps, save into `out`, and measure what was saved on `scenes` new scenes.

    `out` receives config.json, model.safetensors (fp16), the tokenizer's and the preprocessor's
    files, and training.log; `scenes`, a multiple of 32, are of trained combinations and again of
    held-out ones.
    """
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    # One core learns while the other draws; on a busy machine two threads are slower than one.
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    processor = _processor(seed)
    model = CLIPModel(_config(processor.tokenizer))
    say(f"seed {seed}, {steps} steps of {BATCH_SIZE} pairs, {model.num_parameters():,} parameters")
    say(
        f"python {platform.python_version()}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}, numpy {np.__version__}, pillow {PIL.__version__}, "
        f"{torch.get_num_threads()} threads"
    )
    wall, learning, drawing = time.perf_counter(), time.process_time(), _children_seconds()
    _fit(model, Batches(processor.tokenizer, SIDE, seed, steps), say)
    took = time.perf_counter() - wall
    learning, drawing = time.process_time() - learning, _children_seconds() - drawing
    say(f"trained in {took:.0f} s; CPU: {learning:.0f} s of learning, {drawing:.0f} s of drawing")
    out.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(out)  # type: ignore[no-untyped-call]
    processor.image_processor.save_pretrained(out)
    processor.tokenizer.save_pretrained(out)
    say(header())
    for combinations in ("seen", "unseen"):
        say(evaluate(out, combinations, scenes, seed).row())
    (out / "training.log").write_text("\n".join(lines) + "\n")


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _processor(seed: int) -> CLIPProcessor:
    rng = np.random.default_rng(seed)
    complete = [caption(sample(rng, "seen"), rng) for _ in range(2000)]
    sparse = [caption(sample(rng, "seen"), rng, mention=()) for _ in range(200)]
    pixels = CLIPImageProcessor(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    tokenizer = make_tokenizer(complete + sparse)
    return CLIPProcessor(pixels, tokenizer)  # type: ignore[no-untyped-call]


def _config(tokenizer: CLIPTokenizer) -> CLIPConfig:
    text = {
        "projection_dim": WIDTH,
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT_LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "projection_dim": WIDTH,
        "image_size": SIDE,
        "patch_size": PATCH,
        "hidden_size": 144,
        "intermediate_size": 432,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
    }
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)


def _fit(model: CLIPModel, batches: Batches, say: Say) -> None:
    optimizer = torch.optim.AdamW(_parameter_groups(model), lr=_PEAK_RATE, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _PEAK_RATE, total_steps=len(batches) + 1, pct_start=0.1, cycle_momentum=False
    )
    start, losses = time.perf_counter(), []
    model.train()
    for step, batch in enumerate(_drawn(batches), 1):
        loss = _loss(model, batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=_MAX_LOGIT_SCALE)
        losses.append(loss.item())
        if step % _REPORT_EVERY == 0 or step == len(batches):
            recent = sum(losses[-_REPORT_EVERY:]) / len(losses[-_REPORT_EVERY:])
            say(f"step {step:>5}  loss {recent:.4f}  {time.perf_counter() - start:>6.0f} s")


def _drawn(batches: Batches) -> Iterable[Batch]:
    """The batches in turn, drawn ahead by a process of its own where that is worth starting one."""
    if len(batches) < _REPORT_EVERY:
        return DataLoader(batches, batch_size=None)
    return DataLoader(
        batches,
        batch_size=None,
        num_workers=1,
        prefetch_factor=4,
        multiprocessing_context="spawn",
    )


def _parameter_groups(model: CLIPModel) -> list[dict[str, object]]:
    """Matrices decay; gains, biases and the logit scale do not."""
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    free = [p for p in model.parameters() if p.ndim < 2]
    return [
        {"params": decayed, "weight_decay": _WEIGHT_DECAY},
        {"params": free, "weight_decay": 0.0},
    ]


def _loss(model: CLIPModel, batch: Batch) -> Tensor:
    """CLIP's symmetric cross-entropy, where a caption true of another scene counts neither way."""
    mean = torch.tensor(CLIPImageProcessor.image_mean)[:, None, None]
    std = torch.tensor(CLIPImageProcessor.image_std)[:, None, None]
    output = model(input_ids=batch.tokens, pixel_values=(batch.pixels / 255 - mean) / std)
    own = torch.arange(len(batch.tokens))
    also_true = batch.fits & ~torch.eye(len(own), dtype=torch.bool)
    logits = output.logits_per_image.masked_fill(also_true, -torch.inf)
    cross_entropy = torch.nn.functional.cross_entropy
    return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; `arguments` stand in for the shell's."""
    parser = argparse.ArgumentParser(prog="python -m pairscore.demo.train", description=__doc__)
    parser.add_argument("--out", type=Path, default=MODEL_DIR, help="folder for the model")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=SCENES, help="scenes to measure with, each")
    options = parser.parse_args(arguments)
    train(options.out, steps=options.steps, seed=options.seed, scenes=options.scenes)


if __name__ == "__main__":
    main()
