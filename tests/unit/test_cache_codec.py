"""Entries as bytes: each comes back exactly, and whatever is not exactly one is a miss."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pairscore.cache import CaptionEntry, NegativeEntry, UrlEntry
from pairscore.cache.codec import (
    DIGEST,
    Keys,
    decode_caption,
    decode_image,
    decode_url,
    encode_caption,
    encode_image,
    encode_url,
)
from pairscore.pair import Failure, Reason

DIMENSIONS = 8
KEY = Keys("demo:onnx-fp32:00", DIMENSIONS).image("ab" * 32)
SHA256 = "0123456789abcdef" * 4

numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
embeddings = arrays.arrays(np.float32, DIMENSIONS, elements=numbers)
times = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(max_size=100)
validators = st.none() | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=50)
url_entries = st.builds(UrlEntry, st.just(SHA256), times, texts, validators, validators)
negative_entries = st.builds(
    NegativeEntry,
    st.builds(
        Failure,
        st.sampled_from(Reason),
        texts,
        image_sha256=st.none() | st.just(SHA256),
    ),
    times,
)


def changed(value: bytes, data: st.DataObject) -> bytes:
    """The value with bits flipped, cut short or made longer."""
    place = data.draw(st.integers(0, len(value) - 1))
    how = data.draw(st.sampled_from(["flip", "cut", "grow", "swap"]))
    if how == "cut":
        return value[:place]
    if how == "grow":
        return value + data.draw(st.binary(min_size=1, max_size=50))
    flipped = bytearray(value)
    if how == "flip":
        flipped[place] ^= 1 << data.draw(st.integers(0, 7))
    else:
        other = data.draw(st.integers(0, len(value) - 1))
        flipped[place], flipped[other] = flipped[other], flipped[place]
    return bytes(flipped)


@given(embeddings)
def test_an_embedding_comes_back_bit_for_bit(embedding):
    found = decode_image(KEY, encode_image(KEY, embedding), DIMENSIONS)
    assert found is not None
    assert found.tobytes() == embedding.tobytes()
    assert found.dtype == np.float32


@given(embeddings, st.booleans())
def test_a_caption_comes_back_bit_for_bit(embedding, truncated):
    found = decode_caption(KEY, encode_caption(KEY, CaptionEntry(embedding, truncated)), DIMENSIONS)
    assert found is not None
    assert (found.embedding.tobytes(), found.truncated) == (embedding.tobytes(), truncated)


@given(url_entries | negative_entries)
def test_what_a_url_led_to_comes_back(entry):
    assert decode_url(KEY, encode_url(KEY, entry)) == entry


def test_the_digest_is_where_a_store_looks_for_it():
    assert encode_url(KEY, UrlEntry(SHA256, 1.0))[DIGEST] == SHA256.encode()


@given(st.binary(max_size=200) | st.none() | st.integers())
def test_anything_is_an_entry_or_a_miss(value):
    assert decode_image(KEY, value, DIMENSIONS) is None
    assert decode_caption(KEY, value, DIMENSIONS) is None
    assert decode_url(KEY, value) is None


@given(embeddings, st.data())
def test_a_changed_embedding_is_a_miss_or_the_same(embedding, data):
    value = changed(encode_image(KEY, embedding), data)
    found = decode_image(KEY, value, DIMENSIONS)
    assert found is None or found.tobytes() == embedding.tobytes()


@given(url_entries | negative_entries, st.data())
def test_a_changed_url_is_a_miss_or_the_same(entry, data):
    assert decode_url(KEY, changed(encode_url(KEY, entry), data)) in (None, entry)


@given(embeddings, st.booleans(), st.data())
def test_a_changed_caption_is_a_miss_or_the_same(embedding, truncated, data):
    value = changed(encode_caption(KEY, CaptionEntry(embedding, truncated)), data)
    found = decode_caption(KEY, value, DIMENSIONS)
    if found is not None:
        assert (found.embedding.tobytes(), found.truncated) == (embedding.tobytes(), truncated)


@pytest.mark.parametrize("text", ["x\r\nHost: e.org", "\u00e9", "\x00"])
def test_what_cannot_be_sent_back_to_a_server_is_a_miss(text):
    for entry in (UrlEntry(SHA256, 1.0, "", etag=text), UrlEntry(SHA256, 1.0, last_modified=text)):
        assert decode_url(KEY, encode_url(KEY, entry)) is None


def test_an_entry_under_another_key_is_a_miss():
    embedding = np.ones(DIMENSIONS, np.float32)
    value = encode_image(KEY, embedding)
    keys = Keys("demo:onnx-fp32:01", DIMENSIONS)
    assert decode_image(keys.image("ab" * 32), value, DIMENSIONS) is None
    assert decode_caption(KEY, value, DIMENSIONS) is None
    assert decode_url(KEY, value) is None


@pytest.mark.parametrize("dimensions", [DIMENSIONS - 1, DIMENSIONS + 1, 2 * DIMENSIONS])
def test_an_embedding_of_another_size_is_a_miss(dimensions):
    value = encode_image(KEY, np.ones(DIMENSIONS, np.float32))
    assert decode_image(KEY, value, dimensions) is None


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_an_embedding_that_is_no_vector_of_numbers_is_a_miss(number):
    embedding = np.ones(DIMENSIONS, np.float32)
    embedding[3] = number
    assert decode_image(KEY, encode_image(KEY, embedding), DIMENSIONS) is None


def test_keys_differ_between_models_and_sizes_of_embeddings_and_what_is_kept():
    keys = [Keys("a", 8), Keys("b", 8), Keys("a", 16)]
    named = {key for each in keys for key in (each.image("x"), each.caption("x"), each.claim("x"))}
    assert len(named) == 9
    assert len({each.url("x") for each in keys}) == 1
    assert keys[0].image("x") == keys[0].images + b"x"


def test_a_key_can_be_made_of_any_text():
    assert Keys("a", 8).caption("\ud800") != Keys("a", 8).caption("?")
