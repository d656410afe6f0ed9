"""Token ids against transformers' own tokenizer of the same folder."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pairscore.clip.architecture import read_architecture
from pairscore.clip.tokenizer import load_tokenizer
from pairscore.errors import ModelError
from tests.tiny_clip import MAX_TOKENS, VOCABULARY, edit_json, make_tiny_clip

BOS, EOS = VOCABULARY - 2, VOCABULARY - 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_clip(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def theirs(folder):
    return AutoTokenizer.from_pretrained(folder)


def load(folder):
    config = json.loads((folder / "config.json").read_text())
    return load_tokenizer(folder, read_architecture(config, "m"), "m")


@pytest.fixture(scope="module")
def ours(folder):
    return load(folder)


@given(st.text(max_size=40))
def test_ids_are_those_of_transformers(ours, theirs, text):
    (caption,) = ours([text])

    expected = theirs(text, truncation=True, max_length=MAX_TOKENS)["input_ids"]
    assert list(caption.ids) == expected
    assert caption.truncated == (len(theirs(text)["input_ids"]) > MAX_TOKENS)


def test_a_caption_that_just_fits_is_not_truncated(ours):
    fits, longer = ours([" ".join(["red"] * count) for count in (MAX_TOKENS - 2, MAX_TOKENS - 1)])

    assert (len(fits.ids), fits.truncated) == (MAX_TOKENS, False)
    assert (len(longer.ids), longer.truncated) == (MAX_TOKENS, True)
    assert longer.ids[0] == BOS
    assert longer.ids[-1] == EOS


def test_length_is_up_to_the_first_end_token(ours):
    (caption,) = ours(["red <|endoftext|> blue dog"])

    assert caption.ids[caption.length - 1] == EOS
    assert caption.length < len(caption.ids)


def test_the_old_rule_takes_the_highest_id_for_the_end(tmp_path):
    make_tiny_clip(tmp_path, text={"eos_token_id": 2})

    (caption,) = load(tmp_path)(["red dog"])

    assert caption.length == len(caption.ids) == 4


def test_a_lone_surrogate_is_no_reason_to_fail(ours):
    (caption,) = ours(["red \ud800 dog"])

    assert caption.ids == ours(["red ? dog"])[0].ids


def test_captions_come_out_in_order_from_several_threads(ours):
    words = ["red", "blue", "green", "dog"] * 50
    expected = [caption.ids for caption in ours(words)]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(ours, [words] * 8))

    assert all([caption.ids for caption in result] == expected for result in results)


def test_vocabulary_and_merges_do_where_there_is_no_tokenizer_json(folder, ours, tmp_path):
    whole = json.loads((folder / "tokenizer.json").read_text())["model"]
    make_tiny_clip(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.json").write_text(json.dumps(whole["vocab"]))
    merges = ["#version: 0.2", *(" ".join(pair) for pair in whole["merges"])]
    (tmp_path / "merges.txt").write_text("\n".join(merges))
    captions = ["a red circle", "Größe: 日本語", "the dog's two squares!"]

    assert load(tmp_path)(captions) == ours(captions)


def test_padding_and_truncation_kept_in_the_file_are_not_applied(tmp_path, ours):
    make_tiny_clip(tmp_path)
    pad: dict[str, Any] = {
        "strategy": {"Fixed": 9},
        "direction": "Right",
        "pad_to_multiple_of": None,
    }
    pad |= {"pad_id": EOS, "pad_type_id": 0, "pad_token": "<|endoftext|>"}
    cut: dict[str, Any] = {
        "direction": "Right",
        "max_length": 5,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    edit_json(tmp_path / "tokenizer.json", padding=pad, truncation=cut)

    assert load(tmp_path)(["a dog", "red " * 9]) == ours(["a dog", "red " * 9])


def test_a_model_without_a_tokenizer_is_refused(tmp_path):
    make_tiny_clip(tmp_path)
    (tmp_path / "tokenizer.json").unlink()

    with pytest.raises(ModelError, match="no tokenizer"):
        load(tmp_path)


def test_a_broken_tokenizer_is_refused(tmp_path):
    make_tiny_clip(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")

    with pytest.raises(ModelError, match="cannot be read"):
        load(tmp_path)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path):
    make_tiny_clip(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    edit_json(tmp_path / "config.json", text_config=config["text_config"] | {"vocab_size": 600})

    with pytest.raises(ModelError, match="700 tokens, the model only 600"):
        load(tmp_path)


def test_a_tokenizer_that_ends_captions_otherwise_is_refused(tmp_path):
    make_tiny_clip(tmp_path, text={"eos_token_id": 5})

    with pytest.raises(ModelError, match="does not end captions"):
        load(tmp_path)
