"""What a survey finds out of an input, whoever will read it and wherever the result will go."""

import gzip
import hashlib

import pytest

from pairscore.csv_file import check_input, survey_input
from pairscore.errors import InputError


def test_a_survey_says_what_the_file_is_and_leaves_its_folder_alone(tmp_path):
    source = tmp_path / "in.csv"
    source.write_bytes(b'\xef\xbb\xbfid;link;title;"image_link"\r\n1;a;"x\r\n\xc3\xa9";b\r\n\r\n2')
    found = survey_input(source)
    assert (found.rows, found.longest) == (3, len('1;a;"x\r\né";b'))
    assert found.header.raw == 'id;link;title;"image_link"'
    assert (found.dialect.delimiter, found.dialect.terminator, found.dialect.bom) == (
        ";",
        "\r\n",
        True,
    )
    assert (found.url.index, found.caption.index, found.layout.width) == (3, 2, 4)
    assert found.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert found.stamp == check_input(source)
    assert len(found.notes) == 3
    assert list(tmp_path.iterdir()) == [source]


def test_the_digest_of_a_packed_file_is_that_of_the_file_as_it_is(tmp_path):
    source = tmp_path / "in.csv.gz"
    source.write_bytes(gzip.compress(b"url,caption\nu,c\n"))
    assert survey_input(source).sha256 == hashlib.sha256(source.read_bytes()).hexdigest()


def test_a_survey_needs_no_place_for_a_result(tmp_path):
    source = tmp_path / "in.csv"
    source.write_bytes(b"url,caption\nu,c\n")
    (tmp_path / "in_scored.csv").write_text("a result of another day")
    assert survey_input(source).rows == 1


def test_columns_of_the_result_are_left_out_only_where_that_was_asked_for(tmp_path):
    source = tmp_path / "in.csv"
    source.write_bytes(b"url,caption,error,cosine\nu,c,1,2\n")
    with pytest.raises(InputError, match="line 1: the header has 'error' already"):
        survey_input(source)
    assert survey_input(source, overwrite=True).layout.dropped == {2}
    found = survey_input(source, overwrite=True, details=True)
    assert found.layout.details
    assert found.layout.dropped == {2, 3}
    assert found.notes[-1] == "leaving out the input's own 'error', 'cosine'"
