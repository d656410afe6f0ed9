"""The demo server does what its table of paths says, keeps connections, and stops at once."""

import http.client
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pairscore.demo.server import BIG_BYTES, PRIVATE_URL, serve

BODY = bytes(range(256)) * 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    served = tmp_path / "served"
    served.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (served / "a b.jpg").write_bytes(BODY)
    (served / "x.png").write_bytes(BODY)
    return served


@pytest.fixture
def client(folder: Path) -> Iterator[http.client.HTTPConnection]:
    with serve(folder) as url:
        connection = connect(url)
        yield connection
        connection.close()


def connect(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)


def get(
    client: http.client.HTTPConnection, path: str, method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    client.request(method, path)
    response = client.getresponse()
    return response.status, dict(response.getheaders()), response.read()


def test_files_are_served_with_their_type_over_one_connection(
    client: http.client.HTTPConnection,
) -> None:
    status, headers, body = get(client, "/a%20b.jpg")
    local = client.sock.getsockname()
    assert (status, headers["Content-Type"], body) == (200, "image/jpeg", BODY)
    status, headers, body = get(client, "/x.png?size=1#top")
    assert (status, headers["Content-Type"], body) == (200, "image/png", BODY)
    assert client.sock.getsockname() == local


def test_a_file_written_after_the_start_is_served(
    client: http.client.HTTPConnection, folder: Path
) -> None:
    assert get(client, "/late.jpg")[0] == 404
    (folder / "late.jpg").write_bytes(b"late")
    assert get(client, "/late.jpg")[::2] == (200, b"late")


def test_head_has_the_headers_of_get_and_no_body(client: http.client.HTTPConnection) -> None:
    status, headers, body = get(client, "/x.png", "HEAD")
    assert (status, headers["Content-Length"], body) == (200, str(len(BODY)), b"")
    assert get(client, "/big/declared/x.jpg", "HEAD")[2] == b""
    assert get(client, "/x.png")[2] == BODY


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/a/..%2f..%2fsecret.txt",
        "/",
        "/redirect",
        "//etc/passwd",
    ],
)
def test_nothing_outside_the_folder_is_served(
    client: http.client.HTTPConnection, path: str
) -> None:
    status, _, body = get(client, path)
    assert status in {302, 404}
    assert body == b""


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/redirect/x.png", "/x.png"),
        ("/loop/x.jpg", "/loop/x.jpg"),
        ("/private/x.jpg", PRIVATE_URL + "x.jpg"),
    ],
)
def test_redirects_lead_where_the_table_says(
    client: http.client.HTTPConnection, path: str, location: str
) -> None:
    status, headers, _ = get(client, path)
    assert (status, headers["Location"]) == (302, location)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/status/404/x.jpg", 404),
        ("/status/410", 410),
        ("/status/500/x.jpg", 500),
        ("/status/204/x.jpg", 204),
        ("/status/banana", 404),
        ("/status/999", 404),
    ],
)
def test_status_paths_answer_with_that_status(
    client: http.client.HTTPConnection, path: str, status: int
) -> None:
    assert get(client, path)[0] == status
    assert get(client, "/x.png")[2] == BODY


def test_a_flaky_path_fails_the_first_time_whatever_else_was_asked(
    client: http.client.HTTPConnection,
) -> None:
    asked = ["/flaky/x.png", "/flaky/a%20b.jpg", "/flaky/x.png", "/flaky/x.png", "/flaky/x.png"]
    assert [get(client, path)[0] for path in asked] == [503, 503, 200, 200, 200]


@pytest.mark.parametrize(
    ("path", "length"), [("/big/declared/x.jpg", str(BIG_BYTES)), ("/big/chunked/x.jpg", None)]
)
def test_big_bodies_are_over_the_cap_of_20_mb_and_announced_or_not(
    client: http.client.HTTPConnection, path: str, length: str | None
) -> None:
    status, headers, body = get(client, path)
    assert (status, headers.get("Content-Length")) == (200, length)
    assert len(body) == BIG_BYTES > 20_000_000
    assert get(client, "/x.png")[2] == BODY


def test_a_client_that_hangs_up_on_a_big_body_harms_nobody(
    client: http.client.HTTPConnection, capfd: pytest.CaptureFixture[str]
) -> None:
    client.request("GET", "/big/declared/x.jpg")
    client.getresponse().read(1000)
    client.close()
    assert get(client, "/x.png")[2] == BODY
    assert capfd.readouterr() == ("", "")


def test_a_slow_path_answers_after_its_silence(client: http.client.HTTPConnection) -> None:
    assert get(client, "/slow/0/x.png")[2] == BODY


@pytest.mark.parametrize("path", ["/slow/60/x.png", "/stall/x.png"])
def test_stopping_cuts_connections_that_are_kept_waiting(folder: Path, path: str) -> None:
    with serve(folder) as url:
        waiting, idle = connect(url), connect(url)
        assert get(idle, "/x.png")[0] == 200
        waiting.request("GET", path)
        # Only a request that has been taken up is in the way of stopping.
        assert get(idle, "/x.png")[0] == 200
        start = time.monotonic()
    assert time.monotonic() - start < 10
    assert not any(thread.name == "demo-server" for thread in threading.enumerate())
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        waiting.getresponse().read()
    waiting.close()
    idle.close()


def test_a_stalled_body_is_announced_whole_and_sent_in_half(
    client: http.client.HTTPConnection,
) -> None:
    client.request("GET", "/stall/x.png")
    response = client.getresponse()
    assert response.getheader("Content-Length") == str(len(BODY))
    assert response.read(len(BODY) // 2) == BODY[: len(BODY) // 2]


def test_a_taken_port_is_an_oserror(folder: Path) -> None:
    with serve(folder) as url:
        second = serve(folder, urlsplit(url).port or 0)
        with pytest.raises(OSError, match="in use"):
            second.__enter__()


def test_by_another_name_it_is_served_on_all_addresses(folder: Path) -> None:
    with serve(folder, host="demo.example") as url:
        assert (urlsplit(url).hostname, urlsplit(url).scheme) == ("demo.example", "http")
        for address in ("127.0.0.1", "127.0.0.2"):
            client = http.client.HTTPConnection(address, urlsplit(url).port, timeout=10)
            assert get(client, "/x.png")[2] == BODY
            client.close()
    with serve(folder) as url, pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection("127.0.0.2", urlsplit(url).port, timeout=10).connect()
