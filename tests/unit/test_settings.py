"""Settings: where they come from, what they may be, and what is said of those that may not."""

import os
from pathlib import Path

import pytest

from pairscore.errors import SettingsError
from pairscore.settings import load_settings

PROXY = "PAIRSCORE_FETCH__PROXY"


def complaint(monkeypatch, **environment: str) -> str:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as error:
        load_settings()
    line = str(error.value)
    assert line.isprintable()
    return line


def test_no_setting_of_the_developers_reaches_the_tests():
    assert [name for name in os.environ if name.upper().startswith("PAIRSCORE_")] == []


@pytest.mark.parametrize(
    "url",
    [
        "http://proxy.example:3128",
        "HTTPS://proxy/",
        "socks5://127.0.0.1:1080",
        "socks5h://user:s%40cret,;=!$@proxy:1080",
        "http://[::1]:3128",
        "http://user@proxy_1.example.",
    ],
)
def test_a_proxy_is_a_url_and_is_never_shown(monkeypatch, url):
    monkeypatch.setenv(PROXY, url)
    settings = load_settings()
    assert settings.fetch.proxy is not None
    assert settings.fetch.proxy.get_secret_value() == url
    for shown in (repr(settings), str(settings.fetch), settings.model_dump_json()):
        assert url not in shown


@pytest.mark.parametrize(
    "url",
    [
        "foo://user:secret@bar:1",
        "user:secret@bar:1",
        "http://user:secret@",
        "http://user:secret@bar:port",
        "http://user:secret@bar:65536",
        "http://user:secret@bar:0",
        "http://user:sec/ret@bar:1",
        "http://user:sec#ret@bar:1",
        "http://user:secret@x@bar:1",
        "http://user:secret é@bar:1",
        "http://user:secret\n@bar:1",
        "http://user:secret%00@bar:1",
        "http://user:secret@ba{r:1",
        "http://user:secret@[::1:1",
        "http://user:secret@[:::::]:1",
        "http://user:secret@bar:1/path",
    ],
)
def test_what_is_no_proxy_is_refused_without_its_password(monkeypatch, url):
    line = complaint(monkeypatch, **{PROXY: url})
    assert line.startswith(f"setting {PROXY}: must be a URL such as http://host:3128")
    assert "secret" not in line
    assert "user:sec" not in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PAIRSCORE_FETCH__PROXXY", "http://user:secret@bar:1"),
        ("PAIRSCORE_FETCH", '["http://user:secret@bar:1"]'),
        ("PAIRSCORE_FETCH", '{"proxy": "http://user:secret@bar:1",}'),
    ],
)
def test_a_password_in_the_wrong_place_is_not_shown_either(monkeypatch, name, value):
    assert "secret" not in complaint(monkeypatch, **{name: value})


@pytest.mark.parametrize("agent", ["Bücher/1.0", "a\r\nX-Injected: 1", "a\0b", "a\tb", "a\x7f"])
def test_a_user_agent_that_cannot_be_a_header_is_refused(agent):
    with pytest.raises(SettingsError, match="PAIRSCORE_FETCH__USER_AGENT: must be printable ASCII"):
        load_settings({"fetch": {"user_agent": agent}})


def test_a_usual_user_agent_is_taken(monkeypatch):
    monkeypatch.setenv("PAIRSCORE_FETCH__USER_AGENT", "crawler/2 (+https://example.org/~us)")
    assert load_settings().fetch.user_agent == "crawler/2 (+https://example.org/~us)"


def test_a_tilde_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("PAIRSCORE_CACHE_DIR", "~/models")
    monkeypatch.setenv("PAIRSCORE_FETCH__CA_FILE", "~/ca.pem")
    settings = load_settings()
    assert settings.cache_dir == Path("/home/me/models")
    assert settings.fetch.ca_file == Path("/home/me/ca.pem")


@pytest.mark.parametrize("name", ["PAIRSCORE_CACHE_DIR", "PAIRSCORE_FETCH__CA_FILE"])
def test_the_home_folder_of_nobody_is_refused(monkeypatch, name):
    line = complaint(monkeypatch, **{name: "~nobody-of-that-name/x"})
    assert line.startswith(f"setting {name}: ")
    assert "write the path in full" in line


def test_a_complaint_names_the_option_and_quotes_what_is_no_secret():
    with pytest.raises(SettingsError, match=r"^--timeout: .* \(got -1\)$"):
        load_settings({"fetch": {"timeout": -1}}, option_names={("fetch", "timeout"): "--timeout"})
