"""A CLIP of random weights, small enough to make anew in a test."""

import json
from pathlib import Path
from typing import Any

from benchmarks.models import save_preprocessing, save_tokenizer

WORDS = ["a", "an", "the", "photo", "of", "red", "green", "blue", "circle", "square", "two", "dog"]
VOCABULARY = 700
MAX_TOKENS = 20


def make_tiny_clip(
    folder: Path,
    *,
    image_size: int = 32,
    patch_size: int = 8,
    seed: int = 0,
    text: dict[str, Any] | None = None,
    vision: dict[str, Any] | None = None,
    projection_dim: int = 24,
) -> Path:
    """Write a CLIP in Hugging Face layout.

    Args:
        folder: where it goes; made if need be.
        image_size: height and width of what it takes, in pixels.
        patch_size: in pixels.
        seed: of the weights.
        text: entries of the text tower's configuration to change.
        vision: the same of the vision tower's.
        projection_dim: of an embedding.

    Returns:
        `folder`.
    """
    import torch
    from transformers import CLIPConfig, CLIPModel

    shape = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "projection_dim": projection_dim,
    }
    config = CLIPConfig(
        text_config=shape
        | {
            "vocab_size": VOCABULARY,
            "max_position_embeddings": MAX_TOKENS,
            "bos_token_id": VOCABULARY - 2,
            "eos_token_id": VOCABULARY - 1,
        }
        | (text or {}),
        vision_config=shape | {"image_size": image_size, "patch_size": patch_size} | (vision or {}),
        projection_dim=projection_dim,
        logit_scale_init_value=4.6052,
    )
    torch.manual_seed(seed)
    model = CLIPModel(config)
    with torch.no_grad():
        # transformers starts with zero biases and with attention that is all but uniform.
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
            elif "proj.weight" in name:
                parameter.mul_(3.0)
    model.save_pretrained(folder)
    save_tokenizer(folder, WORDS, VOCABULARY)
    save_preprocessing(folder, image_size)
    return folder


def edit_json(file: Path, **changes: Any) -> None:
    """Change entries of a JSON object in a file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
