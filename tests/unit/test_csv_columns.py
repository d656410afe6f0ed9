"""Finding the columns and the delimiter."""

from collections.abc import Sequence

import pytest

from pairscore.csv_file.columns import Column, find_columns
from pairscore.csv_file.dialect import check_delimiter, sniff_delimiter
from pairscore.errors import InputError


def find(
    header: Sequence[str], url: str | None = None, caption: str | None = None
) -> tuple[Column, Column]:
    return find_columns(header, url, caption, "x.csv: line 1")


@pytest.mark.parametrize(
    ("header", "url", "caption"),
    [
        (["url", "caption"], "url", "caption"),
        (["id", "Image URL", " Title "], "Image URL", " Title "),
        (["link", "image_link", "title", "description"], "image_link", "title"),
        (["alt", "src"], "src", "alt"),
        (["TEXT", "IMG-URL"], "IMG-URL", "TEXT"),
        (["text", "caption", "image", "url"], "url", "caption"),
    ],
)
def test_usual_names_are_guessed_earlier_ones_first(header, url, caption):
    found = find(header)
    assert [c.name for c in found] == [url, caption]
    assert [header[c.index] for c in found] == [url, caption]
    assert all(c.guessed for c in found)


def test_a_guess_names_the_others_it_could_have_been():
    url, caption = find(["link", "description", "image_link", "title"])
    assert url == Column(2, "image_link", guessed=True, others=("link",))
    assert caption == Column(3, "title", guessed=True, others=("description",))


def test_a_given_name_is_taken_exactly_before_it_is_taken_loosely():
    url, caption = find(["URL", "url", "c", "caption"], url="URL", caption="C ")
    assert url == Column(0, "URL")
    assert caption == Column(2, "c")


def test_a_column_that_is_given_for_one_is_not_guessed_for_the_other():
    url, caption = find(["link", "url"], caption="url")
    assert (url.name, caption.name) == ("link", "url")
    url, caption = find(["title", "text"], url="title")
    assert (url.name, caption.name) == ("title", "text")


@pytest.mark.parametrize(
    ("header", "given", "message"),
    [
        (["a", "b"], {}, ("no column has a usual name for image URLs; the columns are 'a', 'b'; "
                         "choose one with --url-column")),
        (["url", "b"], {}, "no column has a usual name for captions; .*--caption-column"),
        (["url", "caption"], {"url": "pic"}, ("there is no column 'pic'; .*'url', 'caption'; "
                                             "choose that of the image URLs with --url-column")),
        (["url", "caption"], {"caption": "x"}, "there is no column 'x'; .*--caption-column"),
        (["url", "url", "caption"], {}, "'url' and 'url' cannot be told apart; rename"),
        (["Url", "URL", "caption"], {"url": "url"}, "'Url' and 'URL' cannot be told apart"),
        (["url", "t", "t"], {"caption": "t"}, "'t' and 't' cannot be told apart"),
        (["url", "text"], {"url": "text", "caption": "TEXT"}, "are both 'text'"),
    ],
)  # fmt: skip
def test_a_column_that_is_not_there_or_not_one_is_an_error(header, given, message):
    with pytest.raises(InputError, match=f"^x.csv: line 1: .*{message}"):
        find(header, **given)


def test_only_the_first_of_many_columns_are_listed():
    with pytest.raises(InputError, match="'c19' and 80 more; choose"):
        find([f"c{i}" for i in range(100)])


@pytest.mark.parametrize(
    ("sample", "delimiter"),
    [
        ("url,caption\nu,c\n", ","),
        ("url\tcaption\nu,1,2\tc,1\n", "\t"),
        ("url;caption\nu;a, b, c\nu;d, e, f\n", ";"),
        ("url|caption\r\nu|c;d\r\n", "|"),
        ("id,url,caption; long\n1,u,c;d\n", ","),
        ("url\n", ","),
        ("nothing here\n", ","),
        ("", ","),
        ("a;b\n1;2\n", ";"),
        ("a;b,c\n1;2,3\n4;5\n6;7\n", ";"),
        ('"u,r,l";"caption;x"\nu;c\n', ";"),
        ('url;caption\nu;"cut', ";"),
        ("\0", ","),
    ],
)
def test_the_delimiter_is_sniffed(sample, delimiter):
    assert sniff_delimiter(sample, None, None) == delimiter


def test_the_columns_asked_for_decide_the_delimiter():
    sample = "a,pic;words,b\n1,x;y,2\n"
    assert sniff_delimiter(sample, "pic", "words,b") == ";"
    assert sniff_delimiter(sample, "a", "b") == ","


@pytest.mark.parametrize(("given", "char"), [(",", ","), ("\\t", "\t"), ("tab", "\t"), ("é", "é")])
def test_a_delimiter_can_be_given(given, char):
    assert check_delimiter(given) == char


@pytest.mark.parametrize("given", ["", ",,", '"', "\n", "\r", "\0", "\ufeff", "\ud800"])
def test_what_cannot_be_a_delimiter_is_refused(given):
    with pytest.raises(InputError, match="--delimiter"):
        check_delimiter(given)
