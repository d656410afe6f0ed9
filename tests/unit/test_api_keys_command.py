"""`python -m producer keys`: what it prints, what it leaves in the file, and two at once."""

import os
import re
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest
from filelock import FileLock

from pairscore.errors import EnvironmentFault, InputError, SettingsError
from producer.api import keys_command
from producer.api.client import Limits
from producer.api.keys import Keyring
from producer.api.keys_command import Wanted, add_key, list_keys, revoke_key
from producer.cli import run
from tests.api_clients import Clock, a_key, write_keys

SECRET = re.compile(r"ps_([a-z0-9]{10})_[A-Za-z0-9_-]{43}")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.json"


@pytest.fixture
def command(path, capsys):
    def call(*arguments):
        assert run(["keys", *arguments, "--file", str(path)]) == 0
        return capsys.readouterr()

    return call


def found(path, secret):
    client = Keyring(path).find(secret)
    assert client is not None
    return client


def test_a_key_that_was_added_is_printed_alone_works_and_is_not_kept(path, command):
    shown = command(
        *("add", "acme", "--rows-per-second", "50", "--requests-per-second", "2.5"),
        *("--rows-per-day", "1000", "--all-jobs"),
    )
    secret = shown.out.removesuffix("\n")
    assert SECRET.fullmatch(secret)
    assert shown.err == ""
    client = found(path, secret)
    assert (client.name, client.limits) == ("acme", Limits(2.5, 50.0, 1000))
    assert client.all_jobs
    assert secret not in path.read_text()
    assert secret[-43:] not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_file_may_be_named_by_the_setting(path, capsys, monkeypatch):
    monkeypatch.setenv("PAIRSCORE_API__KEYS", str(path))
    assert run(["keys", "add", "acme"]) == 0
    assert found(path, capsys.readouterr().out.strip()).name == "acme"


def test_without_a_file_it_says_how_to_name_one():
    with pytest.raises(InputError, match=r"--file.*PAIRSCORE_API__KEYS"):
        run(["keys", "list"])


def test_a_new_key_has_what_its_client_had_where_nothing_else_is_said(path, command):
    command("add", "acme", "--rows-per-second", "50", "--rows-per-day", "9", "--all-jobs")
    client = found(path, command("add", "acme", "--rows-per-day", "0").out.strip())
    assert client.limits == Limits(0.0, 50.0, 0)
    assert client.all_jobs
    assert not found(path, command("add", "acme", "--own-jobs").out.strip()).all_jobs
    assert found(path, command("add", "other").out.strip()).limits == Limits()


def test_a_key_for_some_days_expires_then(path):
    now = datetime.now(UTC)
    secret = add_key(path, Wanted("acme", days=2), now)
    for days, good in ((1.99, True), (2.01, False)):
        wall = Clock((now + timedelta(days=days)).timestamp())
        assert (Keyring(path, wall=wall).find(secret) is not None) is good


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-x"], "No such option"),
        ([".acme"], "client: must be a letter or digit"),
        (["a b"], "client"),
        (["x" * 65], "client"),
        (["acme", "--rows-per-second", "nan"], "--rows-per-second"),
        (["acme", "--rows-per-second", "-1"], "--rows-per-second"),
        (["acme", "--requests-per-second", "inf"], "requests_per_second"),
        (["acme", "--rows-per-day", "1.5"], "--rows-per-day"),
        (["acme", "--days", "0"], "--days"),
        (["acme", "--days", "99999999"], "--days"),
    ],
)
def test_what_cannot_be_had_is_one_line_and_adds_nothing(path, arguments, said):
    with pytest.raises(InputError) as caught:
        run(["keys", "add", *arguments, "--file", str(path)])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not path.exists()


def test_a_list_shows_keys_and_limits_and_no_digest(path):
    now = datetime(2026, 5, 1, tzinfo=UTC)
    add_key(path, Wanted("acme", days=1, rows_per_second=0.5), now - timedelta(days=3))
    add_key(path, Wanted("zeta", rows_per_day=1_000_000, requests_per_second=0, all_jobs=True), now)
    title, *lines = [re.split(r"  +", line) for line in list_keys(path, now)]
    assert title == [
        *("ID", "CLIENT", "CREATED", "EXPIRES"),
        *("REQUESTS/S", "ROWS/S", "ROWS/DAY", "JOBS"),
    ]
    assert [line[1:] for line in lines] == [
        ["acme", "2026-04-28", "2026-04-29 (expired)", "default", "0.5", "default", "own"],
        ["zeta", "2026-05-01", "never", "any", "default", "1e+06", "all"],
    ]
    assert not re.search(r"[0-9a-f]{64}", "".join(list_keys(path)))


def test_a_revoked_key_is_nobodys_and_the_others_stay(path, command):
    secrets = [command("add", "acme").out.strip() for _ in range(3)]
    ids = [SECRET.fullmatch(each)[1] for each in secrets]  # type: ignore[index]
    shown = command("revoke", ids[1])
    assert shown.out == ""
    assert shown.err == f"revoked {ids[1]} of acme\n"
    keyring = Keyring(path)
    assert [keyring.find(each) is not None for each in secrets] == [True, False, True]
    assert [line.split()[0] for line in command("list").out.splitlines()] == ["ID", ids[0], ids[2]]


def test_an_id_that_is_none_is_said_and_a_secret_in_its_place_not_shown(path, command):
    secret = command("add", "acme").out.strip()
    with pytest.raises(InputError) as caught:
        revoke_key(path, secret)
    assert "no key has this id" in str(caught.value)
    assert secret not in str(caught.value)
    assert found(path, secret)


def test_a_file_that_is_bad_is_not_written_over(path):
    path.write_text("{")
    path.chmod(0o600)
    for change in (lambda: add_key(path, Wanted("acme")), lambda: revoke_key(path, "aaaa")):
        with pytest.raises(SettingsError, match="malformed"):
            change()
    assert path.read_text() == "{"


def test_rights_and_links_stay_as_they_were(path, tmp_path):
    write_keys(path, a_key()[1], mode=0o640)
    link = tmp_path / "link"
    link.symlink_to(path)
    secret = add_key(link, Wanted("acme"))
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert found(path, secret)


def test_keys_that_are_added_at_once_are_all_there(path):
    secrets: list[str] = []

    def add() -> None:
        secrets.extend(add_key(path, Wanted("acme")) for _ in range(5))

    threads = [threading.Thread(target=add) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    keyring = Keyring(path)
    assert len(keyring) == 30
    assert all(keyring.find(secret) for secret in secrets)


def test_a_lock_that_is_not_let_go_is_said(path, monkeypatch):
    monkeypatch.setattr(keys_command, "_LOCK_SECONDS", 0.05)
    with (
        FileLock(f"{path}.lock"),
        pytest.raises(EnvironmentFault, match="another command is changing it"),
    ):
        add_key(path, Wanted("acme"))
    assert not path.exists()


def test_a_disk_that_fails_leaves_the_old_file_and_nothing_else(path, monkeypatch):
    write_keys(path, a_key()[1])
    before = path.read_bytes()

    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(EnvironmentFault, match="No space left on device"):
        add_key(path, Wanted("acme"))
    assert path.read_bytes() == before
    assert {each.name for each in path.parent.iterdir()} <= {path.name, f"{path.name}.lock"}


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(EnvironmentFault, match="No such file or directory"):
        add_key(tmp_path / "none" / "keys.json", Wanted("acme"))


def test_the_command_is_one_of_a_process_too(path):
    ended = subprocess.run(
        [sys.executable, "-m", "producer", "keys", "add", "acme", "--file", str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert found(path, ended.stdout.strip()).name == "acme"
    assert ended.stderr == ""


def test_help_names_every_command_and_option(capsys):
    for arguments in (["keys", "--help"], ["keys"]):
        assert run(arguments) == 0
        shown = capsys.readouterr().out
        assert all(name in shown for name in ("add", "list", "revoke"))
    assert run(["keys", "add", "--help"]) == 0
    shown = capsys.readouterr().out
    for option in (
        *("--file", "--days", "--rows-per-second", "--requests-per-second"),
        *("--rows-per-day", "--all-jobs", "PAIRSCORE_API__KEYS"),
    ):
        assert option in shown
