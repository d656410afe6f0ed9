"""What `prepare` finds out, and every dead end: one line, and nothing written."""

import gzip
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from pairscore.csv_file import default_output, prepare
from pairscore.csv_file.output import Output
from pairscore.csv_file.source import explained
from pairscore.errors import InputError

GOOD = b"url,caption\nu,c\n"


def dead_end(match: str, source: Path, *args, **options) -> None:
    """`prepare` raises one line that matches, and leaves the folder as it was."""
    folder = source.parent if source.parent.is_dir() else None
    before = {p: p.read_bytes() for p in folder.iterdir() if p.is_file()} if folder else {}
    with pytest.raises(InputError, match=match) as caught:
        prepare(source, *args, **options)
    assert "\n" not in str(caught.value)
    if folder:
        assert {p: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.csv"
    path.write_bytes(GOOD)
    return path


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("challenge_set.csv", "challenge_scored.csv"),
        ("challenge_set.csv.gz", "challenge_scored.csv.gz"),
        ("pairs.csv", "pairs_scored.csv"),
        ("train_set.tsv", "train_set_scored.tsv"),
        ("pairs", "pairs_scored"),
        ("a.b.csv", "a.b_scored.csv"),
        ("pairs.csv.gz", "pairs_scored.csv.gz"),
        ("pairs.tsv.gz", "pairs_scored.tsv.gz"),
        ("pairs.gz", "pairs_scored.csv.gz"),
    ],
)
def test_the_output_is_named_after_the_input(name, output):
    assert default_output(Path("folder") / name) == Path("folder") / output


def test_a_plan_says_what_was_found_and_writes_nothing(tmp_path):
    source = tmp_path / "in.csv"
    source.write_bytes(b'\xef\xbb\xbfid;link;title;"image_link"\r\n1;a;"x\r\ny";b\r\n\r\n2;;;')
    plan = prepare(source)
    assert (plan.rows, plan.header) == (3, ("id", "link", "title", "image_link"))
    assert (plan.dialect.delimiter, plan.dialect.terminator, plan.dialect.bom) == (
        ";",
        "\r\n",
        True,
    )
    assert (plan.url.name, plan.caption.name) == ("image_link", "title")
    assert plan.output == tmp_path / "in_scored.csv"
    assert plan.notes == (
        (
            "taking 'image_link' as the column of image URLs; --url-column chooses another "
            "(such as 'link')"
        ),
        "taking 'title' as the column of captions; --caption-column chooses another",
        "taking semicolon as the delimiter",
    )
    assert list(tmp_path.iterdir()) == [source]


def test_what_was_named_is_not_noted(source):
    assert prepare(source, url_column="url", caption_column="caption", delimiter=",").notes == ()


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        (b"url,caption", 0),
        (b"url,caption\n", 0),
        (b"url,caption\n\n", 1),
        (b"url,caption\nu,c", 1),
        (b"url,caption\ru,c\ru,c\r", 2),
    ],
)
def test_rows_are_counted_without_the_header_and_the_last_line_end(source, data, rows):
    source.write_bytes(data)
    assert prepare(source).rows == rows


def test_gzip_is_told_by_its_bytes_not_its_name(source):
    source.write_bytes(gzip.compress(GOOD) + gzip.compress(b"v,d\n"))
    assert prepare(source).rows == 2
    plain = source.with_name("plain.csv.gz")
    plain.write_bytes(GOOD)
    assert prepare(plain).rows == 1


def test_importing_the_package_and_preparing_imports_no_torch(source):
    code = (
        "import sys, pathlib; from pairscore.csv_file import prepare, score_csv;"
        f"prepare(pathlib.Path({str(source)!r}));"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'onnxruntime')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_stdin_and_stdout_are_not_supported(source, monkeypatch):
    monkeypatch.chdir(source.parent)  # "-" is in the working directory, which others write to
    dead_end("standard input is not supported.*save it to a file", Path("-"))
    dead_end("standard output is not supported.*--output", source, Path("-"))


def test_an_input_that_is_no_file(tmp_path):
    dead_end(r"none.csv: cannot be opened: No such file", tmp_path / "none.csv")
    dead_end("this is a folder", tmp_path)
    dead_end("not a regular file", Path(os.devnull))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_input_that_may_not_be_read(source):
    source.chmod(0)
    with pytest.raises(InputError, match="cannot be read: Permission denied"):
        prepare(source)


def test_what_the_system_says_while_reading_is_one_line():
    with (
        pytest.raises(InputError, match=r"^x.csv: cannot be read: Input/output error; check"),
        explained(Path("x.csv")),
    ):
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf", gzip.compress(b"", mtime=0)])
def test_an_empty_file(source, data):
    source.write_bytes(data)
    dead_end("the file is empty; it needs a header", source)


def test_an_empty_first_line(source):
    source.write_bytes(b"\n" + GOOD)
    dead_end("line 1: the line is empty", source)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b'url,caption\nu,"a\nb"\nu,\0\n', "line 4: there is a NUL byte"),
        (GOOD.decode().encode("utf-16-le"), "line 1: there is a NUL byte; .* binary or UTF-16"),
        (GOOD.decode().encode("utf-16"), "this is UTF-16 text.*`iconv -f UTF-16 -t UTF-8 .*in.csv"),
        (b"\xfe\xff" + GOOD.decode().encode("utf-16-be"), "this is UTF-16 text"),
        (GOOD.decode().encode("utf-32"), "this is UTF-32 text.*`iconv -f UTF-32"),
        (b"PK\x03\x04...", "a zip archive or an Excel workbook.*save it as CSV"),
        (b"PAR1...", "a Parquet file"),
        (b"url,caption\nu,caf\xe9\n", ("line 2: the byte 0xe9 at offset 17 is not UTF-8; .*"
                                      "`iconv -f WINDOWS-1252 -t UTF-8 .*in.csv > in.utf8.csv`")),
        (b"\xef\xbb\xbfurl,caption\r\n\xc3\xa9,\xc3", "line 2: the byte 0xc3 at offset 19 "),
        (b"url,caption\n" + b"\xc3\xa9,x\n" * 99_999 + b"u,\xed\xa0\x80\n",
         "line 100001: the byte 0xed at offset 500009 "),
        (b'url,caption\nu,c\nv,"d\n\ne,f\n', "line 3: a quote .* never closed"),
        (gzip.compress(random.Random(1).randbytes(9).hex().encode() + GOOD, mtime=0)[:-9],
         "gzip data is cut short or damaged.*fetch the file again"),
        (gzip.compress(GOOD, mtime=0) + b"rest", "gzip data is cut short or damaged"),
        (gzip.compress(GOOD, mtime=0)[:-8] + b"12345678", "gzip data is cut short or damaged"),
        (gzip.compress(GOOD, mtime=0)[:10] + b"\xff" * 20, "gzip data is cut short or damaged"),
        (gzip.compress(b"url,caption\nu,caf\xe9\n", mtime=0),
         "line 2: the byte 0xe9 at offset 17 "),
    ],
)  # fmt: skip
def test_text_that_is_not_csv_in_utf8(source, data, match):
    source.write_bytes(data)
    dead_end(match, source)


def test_a_gzip_is_converted_unpacked(source):
    packed = source.with_name("in.csv.gz")
    packed.write_bytes(gzip.compress(b"url,caption\nu,caf\xe9\n"))
    dead_end(r"`gzip -dc .*in.csv.gz \| iconv -f WINDOWS-1252 -t UTF-8 > in.utf8.csv`", packed)


def test_a_record_without_an_end_is_not_read_to_the_end(source):
    source.write_bytes(b'url,caption\nu,"' + b"x" * (17 << 20))
    dead_end("line 2: the row that starts here is longer than 16,777,216 characters", source)


def test_columns_that_are_not_there(source):
    dead_end("line 1: there is no column 'pic'; the columns are 'url', 'caption'; .*--url-column",
             source, url_column="pic")  # fmt: skip
    dead_end("are both 'url'", source, url_column="url", caption_column="url")
    source.write_bytes(b"a,b\n")
    dead_end("no column has a usual name for image URLs.*--url-column", source)


def test_a_wrong_delimiter(source):
    dead_end("delimiter ',,' cannot be used", source, delimiter=",,")
    dead_end("the columns are 'url,caption'", source, delimiter=";")


@pytest.mark.parametrize("name", ["similarity", "error", "cosine", "attempts"])
def test_a_column_of_the_output_that_is_there_already(source, name):
    source.write_bytes(f"url,caption,{name}\nu,c,1\n".encode())
    dead_end(f"line 1: the header has '{name}' already; .*--overwrite", source, details=True)
    plan = prepare(source, details=True, overwrite=True)
    assert plan.layout.dropped == {2}
    assert f"leaving out the input's own '{name}'" in plan.notes


def test_details_columns_matter_only_with_details(source):
    source.write_bytes(b"url,caption,cosine\nu,c,1\n")
    assert prepare(source).layout.dropped == frozenset()


def test_a_column_that_is_read_cannot_be_replaced(source):
    source.write_bytes(b"url,error\nu,c\n")
    dead_end("the column 'error' is read", source, caption_column="error", overwrite=True)


def test_an_output_that_exists(source):
    output = source.with_name("in_scored.csv")
    output.write_text("old")
    dead_end("in_scored.csv: the output exists already; replace it with --overwrite", source)
    dead_end("the output exists already", source, resume=True)
    assert prepare(source, overwrite=True).output == output
    assert output.read_text() == "old"


def test_an_output_that_is_the_input(source):
    link, hard = source.with_name("link.csv"), source.with_name("hard.csv")
    link.symlink_to(source)
    hard.hardlink_to(source)
    for output in (source, link, hard, source.parent / "." / "in.csv"):
        dead_end("would overwrite the input", source, output, overwrite=True)
    partial = source.rename(source.with_name("x.csv.partial"))
    dead_end("would overwrite the input", partial, source.with_name("x.csv"), overwrite=True)


def test_a_linked_output_is_written_through(source):
    link, target = source.with_name("link.csv"), source.with_name("target.csv")
    target.write_text("old")
    link.symlink_to(target)
    assert prepare(source, link, overwrite=True).output == target


def test_an_output_that_cannot_be_written(source, tmp_path):
    dead_end("the folder .*none does not exist; create it", source, tmp_path / "none" / "out.csv")
    (tmp_path / "folder").mkdir()
    dead_end("this is not a file", source, tmp_path / "folder", overwrite=True)
    dead_end("this is not a file", source, Path(os.devnull), overwrite=True)


def test_an_output_whose_name_is_too_long(source, tmp_path):
    dead_end("cannot be used: File name too long; choose", source, tmp_path / ("x" * 245))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_that_may_not_be_written(source, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o500)
    dead_end("cannot be written to; choose another", source, folder / "out.csv")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that refuses files")
def test_an_output_folder_that_refuses_files(source):
    dead_end("cannot be written", source, Path("/proc/out.csv"))


def test_an_output_that_another_run_is_writing(source):
    output = source.with_name("in_scored.csv")
    code = (
        "import sys, pathlib; from pairscore.csv_file.output import Output\n"
        f"with Output(pathlib.Path({str(output)!r})).locked():\n"
        "    print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        dead_end("another run is writing this output; wait", source, overwrite=True)
        other.communicate("")
    assert prepare(source).output == output
    assert sorted(p.name for p in source.parent.iterdir()) == ["in.csv"]


def test_a_lock_that_a_killed_run_left_keeps_nobody_out(source):
    source.with_name("in_scored.csv.lock").touch()
    assert prepare(source).rows == 1


def test_a_partial_that_nobody_mentioned(source):
    source.with_name("in_scored.csv.partial").write_text("old")
    dead_end("interrupted; continue it with --resume, or discard it with --overwrite", source)
    assert prepare(source, overwrite=True).begun is None


@pytest.mark.parametrize(
    ("sidecar", "match"),
    [
        (None, "No such file"),
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"version": 1}', "cannot be read"),
        (
            (
                '{"version": 2, "input_sha256": "", "url_column": "", "caption_column": "", '
                '"delimiter": "", "details": false, "overwrite": false, "fingerprint": ""}'
            ),
            "another version",
        ),
    ],
)
def test_a_partial_that_cannot_be_continued(source, sidecar, match):
    source.with_name("in_scored.csv.partial").write_text("old")
    if sidecar is not None:
        source.with_name("in_scored.csv.partial.json").write_text(sidecar)
    dead_end(f"{match}.*discard that run with --overwrite", source, resume=True)


def test_resuming_where_there_is_nothing_to_resume_is_said(source):
    (*_, note) = prepare(source, resume=True).notes
    assert "in_scored.csv.partial to continue from: starting at the first row" in note


def test_the_lock_is_free_after_an_error(source):
    place = Output(source.with_name("in_scored.csv"))
    with pytest.raises(ZeroDivisionError), place.locked():
        _ = 1 // 0
    with place.locked():
        pass
