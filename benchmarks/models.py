"""A CLIP of ViT-B/32's shape with random weights: what a benchmark needs of the model, with no hub.

Speed does not depend on what the weights are, only on their shapes and on how many tokens a
caption has, so the tokenizer is a real one: byte-level BPE in CLIP's format, learnt from some
English words, padded to CLIP's 49,408 entries with the two special tokens where CLIP has them.
"""

import json
import sys
from pathlib import Path
from typing import Any

# ViT-B/32's multiplications and additions: of an image (50 tokens), of a caption of so many tokens.
IMAGE_GFLOP, CAPTION_GFLOP, CAPTION_TOKENS = 8.8, 1.2, 16

_VOCABULARY = 49_408
_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"
# A caption of such words, the usual ones of photographs, has one token each and two more.
_WORDS = """
a an the of and in on with at by for from to is are was that this it its two three four several
many some one small large big old young new white black red blue green yellow brown grey orange
pink purple dark light bright man woman boy girl child people person group crowd dog cat horse
bird cow sheep bear elephant car bus train truck boat bicycle motorcycle plane street road house
building city town beach sea water river lake mountain forest field grass tree flower garden sky
cloud sun snow rain night day kitchen table chair bed room window door wall floor plate food cake
pizza fruit apple banana coffee cup glass bottle book phone computer laptop camera clock umbrella
bag hat shirt dress shoes ball game player sitting standing walking running riding holding looking
eating playing lying next near front behind under over top side photo picture image view close up
wooden colourful parked empty crowded wearing
""".split()  # noqa: SIM905  # readable like this


def make_vit_b32(folder: Path, seed: int = 0) -> Path:
    """Write the model in Hugging Face layout (605 MB, fp32 safetensors) unless it is there.

    Args:
        folder: where the model goes; made if need be.
        seed: of the weights.

    Returns:
        `folder`, ready for `--model` and for `CLIPModel.from_pretrained`.
    """
    done = folder / "seed.txt"
    if done.is_file() and done.read_text() == str(seed):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    _save_weights(folder, seed)
    save_tokenizer(folder, _WORDS, _VOCABULARY)
    save_preprocessing(folder, 224)
    done.write_text(str(seed))
    return folder


def save_tokenizer(folder: Path, words: list[str], vocabulary: int) -> None:
    """Write a tokenizer in CLIP's format: `words` are a token each, all else goes by bytes."""
    from transformers import CLIPTokenizer

    vocab, merges = _byte_pairs(words)
    if len(vocab) > vocabulary - 2:
        message = f"{len(vocab)} tokens do not fit a vocabulary of {vocabulary}"
        raise ValueError(message)
    for filler in range(len(vocab), vocabulary - 2):
        vocab[f"<filler{filler}>"] = filler
    vocab |= {_BOS: vocabulary - 2, _EOS: vocabulary - 1}
    pairs: Any = merges
    CLIPTokenizer(vocab=vocab, merges=pairs, model_max_length=77).save_pretrained(folder)


def save_preprocessing(folder: Path, size: int) -> None:
    """Write `preprocessor_config.json` as the original CLIP has it, for square inputs of `size`."""
    config = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "do_convert_rgb": True,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(config, indent=2))


def _save_weights(folder: Path, seed: int) -> None:
    import torch
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(seed)
    model = CLIPModel(CLIPConfig(logit_scale_init_value=4.6052))
    model.save_pretrained(folder)


def _byte_pairs(words: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's order: the 256 bytes, the same closing a word, then one entry per merge."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel, WhitespaceSplit
    from tokenizers.trainers import BpeTrainer

    learner = Tokenizer(BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = WhitespaceSplit()
    trainer = BpeTrainer(end_of_word_suffix="</w>", vocab_size=30_000, show_progress=False)
    learner.train_from_iterator([" ".join(words)], trainer)
    merges = [(left, right) for left, right in json.loads(learner.to_str())["model"]["merges"]]
    alphabet = sorted(ByteLevel.alphabet())
    tokens = [*alphabet, *(f"{c}</w>" for c in alphabet), *(left + right for left, right in merges)]
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}, merges


if __name__ == "__main__":
    print(json.dumps({"folder": str(make_vit_b32(Path(sys.argv[1])))}))
