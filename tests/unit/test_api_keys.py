"""API keys: who is found by a secret, what a changed file does, and what a bad one says."""

import json
import logging

import pytest

from pairscore.errors import SettingsError
from producer.api.client import Limits
from producer.api.keys import Keyring
from tests.api_clients import EPOCH, Clock, a_key, moment, write_keys


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.json"


@pytest.fixture
def clock():
    return Clock(0.0)


def test_a_client_is_found_by_any_of_its_secrets(path):
    one, entry = a_key("acme", id="aaaa")
    other, other_entry = a_key("acme", id="bbbb")
    stranger, strangers_entry = a_key("zeta-2", id="cccc")
    write_keys(path, entry, other_entry, strangers_entry)
    keyring = Keyring(path)
    found = [keyring.find(secret) for secret in (one, other, stranger)]
    assert [(each.name, each.key) for each in found if each] == [
        ("acme", "aaaa"),
        ("acme", "bbbb"),
        ("zeta-2", "cccc"),
    ]


def test_what_is_no_secret_finds_nobody(path):
    secret, entry = a_key(id="aaaa")
    another, _ = a_key(id="aaaa")
    unknown, _ = a_key(id="bbbb")
    write_keys(path, entry)
    keyring = Keyring(path)
    assert keyring.find(secret) is not None
    for presented in (
        "",
        another,
        unknown,
        secret[:-1],
        f"{secret}A",
        f"{secret}\n",
        f" {secret}",
        f"Bearer {secret}",
        secret.upper(),
        entry["sha256"],
        f"ps_aaaa_{entry['sha256']}",
        secret.replace("ps_aaaa", "ps_bbbb"),
        "ps_äaaa_" + "A" * 43,
        "\ud800",
        "p" * 1_000_000,
    ):
        assert keyring.find(presented) is None, presented[:80]


def test_a_key_is_good_until_it_expires(path):
    secret, entry = a_key(expires_at=moment(EPOCH + 60))
    write_keys(path, entry)
    wall = Clock()
    keyring = Keyring(path, wall=wall)
    wall.now = EPOCH + 59.9
    assert keyring.find(secret) is not None
    wall.now = EPOCH + 60
    assert keyring.find(secret) is None


def test_keys_are_added_and_revoked_without_a_restart_and_looked_for_once_a_second(path, clock):
    old, old_entry = a_key()
    new, new_entry = a_key()
    write_keys(path, old_entry)
    keyring = Keyring(path, clock=clock)
    assert keyring.find(new) is None
    write_keys(path, old_entry, new_entry)
    clock.now += 0.9
    assert keyring.find(new) is None
    clock.now += 0.1
    assert keyring.find(new) is not None
    assert len(keyring) == 2
    write_keys(path, new_entry)
    clock.now += 1.0
    assert keyring.find(old) is None
    assert keyring.find(new) is not None


def test_a_file_that_is_changed_where_it_lies_is_seen_too(path, clock):
    first, first_entry = a_key(id="aaaa")
    second, second_entry = a_key(id="bbbb")
    write_keys(path, first_entry)
    keyring = Keyring(path, clock=clock)
    with path.open("r+") as file:
        file.write(json.dumps({"v": 1, "keys": [first_entry, second_entry]}))
    clock.now += 1
    assert keyring.find(first) is not None
    assert keyring.find(second) is not None


def missing(path):
    path.unlink()


def malformed(path):
    path.write_text('{"v": 1, "keys": [')


def others_may_write(path):
    path.chmod(0o660)


def a_folder(path):
    path.unlink()
    path.mkdir()


def of_another_version(path):
    path.write_text('{"v": 2, "keys": []}')


FAULTS = [
    (missing, "there is no such file"),
    (malformed, "is malformed"),
    (others_may_write, "chmod go-w"),
    (a_folder, "is not a file"),
    (of_another_version, "is malformed: v:"),
]


@pytest.mark.parametrize(("fault", "said"), FAULTS, ids=lambda each: getattr(each, "__name__", ""))
def test_a_file_that_cannot_be_used_ends_the_start_with_one_line(path, fault, said):
    write_keys(path, a_key()[1])
    fault(path)
    with pytest.raises(SettingsError) as caught:
        Keyring(path)
    line = str(caught.value)
    assert said in line
    assert str(path) in line
    assert "PAIRSCORE_API__KEYS" in line
    assert "\n" not in line


@pytest.mark.parametrize(("fault", "said"), FAULTS, ids=lambda each: getattr(each, "__name__", ""))
def test_a_file_that_goes_bad_leaves_the_keys_known_and_is_logged_once(
    path, clock, caplog, fault, said
):
    secret, entry = a_key()
    new, new_entry = a_key()
    write_keys(path, entry)
    keyring = Keyring(path, clock=clock)
    fault(path)
    for _ in range(5):
        clock.now += 1
        assert keyring.find(secret) is not None
    errors = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert len(errors) == 1
    assert said in errors[0].getMessage()
    if path.is_dir():
        path.rmdir()
    write_keys(path, new_entry)
    clock.now += 1
    assert keyring.find(new) is not None
    assert keyring.find(secret) is None


def test_each_change_for_the_worse_is_logged(path, clock, caplog):
    write_keys(path, a_key()[1])
    keyring = Keyring(path, clock=clock)
    for content in ("[", "{}x"):
        path.write_text(content)
        clock.now += 1
        keyring.find("")
    assert [each.levelname for each in caplog.records] == ["ERROR", "ERROR"]


def test_the_same_file_with_its_rights_mended_is_taken(path, clock):
    write_keys(path, a_key()[1])
    keyring = Keyring(path, clock=clock)
    secret, entry = a_key()
    write_keys(path, entry, mode=0o666)
    clock.now += 1
    assert keyring.find(secret) is None
    path.chmod(0o644)
    clock.now += 1
    assert keyring.find(secret) is not None


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"id": "A!"}, "keys.0.id"),
        ({"client": ".hidden"}, "keys.0.client"),
        ({"client": "x" * 65}, "keys.0.client"),
        ({"client": "a\n"}, "keys.0.client"),
        ({"sha256": "abc"}, "keys.0.sha256"),
        ({"created_at": "yesterday"}, "keys.0.created_at"),
        ({"expires_at": "2030-01-01T00:00:00"}, "keys.0.expires_at"),
        ({"rows_per_second": -1}, "keys.0.rows_per_second"),
        ({"requests_per_second": 1e-9}, "keys.0.requests_per_second"),
        ({"rows_per_day": 1.5}, "keys.0.rows_per_day"),
        ({"all_jobs": "true"}, "keys.0.all_jobs"),
        ({"expire_at": "2030-01-01T00:00:00Z"}, "keys.0.expire_at"),
    ],
)
def test_a_bad_entry_is_named_and_not_quoted(path, change, where):
    _, entry = a_key()
    write_keys(path, {**entry, **change})
    with pytest.raises(SettingsError) as caught:
        Keyring(path)
    assert f"is malformed: {where}: " in str(caught.value)
    assert entry["sha256"] not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_keys_of_one_id_are_refused(path):
    write_keys(path, a_key(id="aaaa")[1], a_key(id="aaaa")[1])
    with pytest.raises(SettingsError, match="two keys have the id aaaa"):
        Keyring(path)


def test_what_was_presented_is_never_logged(path, clock, caplog):
    caplog.set_level(logging.DEBUG)
    secret, entry = a_key()
    stranger, _ = a_key()
    write_keys(path, entry)
    keyring = Keyring(path, clock=clock)
    for presented in (secret, stranger, secret[:-1]):
        keyring.find(presented)
        path.write_text("x")
        clock.now += 1
    keyring.find(secret)
    assert caplog.records
    assert "ps_" not in caplog.text
    assert secret[-43:] not in repr(vars(keyring))


def test_limits_and_rights_are_those_of_the_clients_newest_key(path):
    old, old_entry = a_key(created_at=moment(EPOCH), rows_per_second=5.0, all_jobs=True)
    new, new_entry = a_key(
        created_at=moment(EPOCH + 9), rows_per_second=7.0, expires_at=moment(EPOCH + 10)
    )
    write_keys(path, new_entry, old_entry)
    keyring = Keyring(path, wall=Clock(EPOCH + 20))
    assert keyring.find(new) is None
    found = keyring.find(old)
    assert found is not None
    assert found.limits == Limits(rows_per_second=7.0)
    assert not found.all_jobs


def test_of_two_keys_of_one_moment_the_later_in_the_file_is_newer(path):
    first, first_entry = a_key(rows_per_day=1)
    _, second_entry = a_key(rows_per_day=2)
    write_keys(path, first_entry, second_entry)
    found = Keyring(path).find(first)
    assert found is not None
    assert found.limits.rows_per_day == 2


def test_a_limit_that_is_not_named_is_the_default_and_zero_is_none(path):
    secret, entry = a_key(requests_per_second=0, rows_per_day=10)
    write_keys(path, entry)
    found = Keyring(path, defaults=Limits(1.0, 2.0, 3)).find(secret)
    assert found is not None
    assert found.limits == Limits(0.0, 2.0, 10)
