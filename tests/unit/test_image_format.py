"""Formats are told by their first bytes."""

import pytest

from pairscore.image import Format, decode, sniff
from pairscore.pair import Failure, Reason
from tests.unit.image_samples import encode, photo, samples


@pytest.mark.parametrize(("name", "data"), samples().items())
def test_every_sample_is_recognised_as_its_format(name: str, data: bytes) -> None:
    expected = name.split()[0].replace("MPO", "JPEG")

    assert sniff(data) == Format(expected)


@pytest.mark.parametrize("magic", [b"MM\0*", b"II*\0", b"MM\0+", b"II+\0", b"MM*\0", b"II\0*"])
def test_every_byte_order_of_tiff_is_recognised(magic: bytes) -> None:
    assert sniff(magic + bytes(16)) is Format.TIFF


def test_a_heif_container_that_holds_avif_is_avif() -> None:
    assert sniff(b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif") is Format.AVIF


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"", "empty body"),
        (b" \r\n\t", "white space"),
        (b"<!DOCTYPE html><title>Not found</title>", "HTML"),
        (b"\xef\xbb\xbf\n <HTML lang=en>", "HTML"),
        (b"<!-- moved --><html>", "HTML"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<?xml version='1.0'?><!-- drawn --><svg/>", "SVG"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
        (b'{"error": "gone"}', "JSON"),
        (b"[1, 2]", "JSON"),
        (b"Not Found", "text"),
        ("Accès refusé".encode(), "text"),
        (b"BMW is a car, not a bitmap", "text"),
        (b"%PDF-1.7\n%", "PDF"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"PK\x03\x04\x14\0", "ZIP"),
        (b"\xff\x0a\xfa\x7f", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "MP4 or a relative of it"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "RIFF, not WebP"),
        (b"\x89PNG\n\x1a\n\0\0", "unknown format, first bytes 89 50 4e 47 0a 1a 0a 00"),
        (b"\xff\xd8", "unknown format, first bytes ff d8"),
        (b"\xd0\xcf\x11\xe0", "unknown format, first bytes d0 cf 11 e0"),
        (b"x" * 1023 + "é".encode(), "text"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, detail: str) -> None:
    assert decode(data, max_pixels=1000) == Failure(Reason.NOT_AN_IMAGE, detail)


@pytest.mark.parametrize("format_name", ["ICO", "PPM", "TGA", "PCX", "SGI", "JPEG2000", "DDS"])
def test_formats_that_pillow_reads_and_that_are_not_supported_are_refused(format_name: str) -> None:
    outcome = decode(encode(photo(32, 32), format_name), max_pixels=10_000)

    assert isinstance(outcome, Failure)
    assert outcome.reason is Reason.NOT_AN_IMAGE
