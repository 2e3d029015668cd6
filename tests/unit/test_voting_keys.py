"""Voting keys in a home: which of them votes in an epoch, and how one is made to rotate to."""

from __future__ import annotations

import errno
import random
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from consensus.crypto import PrivateKey
from consensus.errors import Rejected
from consensus.vote import Validator, ValidatorSet
from node import config
from node.engine.voting_keys import VotingKeys, list_paths, make_voting_key, read_voting_keys

KEYS = tuple(PrivateKey.from_seed(b"voting %d" % number) for number in range(4))
RANDOM = random.Random(1)


def make_set(*keys: PrivateKey) -> ValidatorSet:
    return ValidatorSet(tuple(Validator(key.public_key, 1) for key in keys))


def test_each_epoch_is_voted_in_with_the_key_that_its_set_names() -> None:
    keys = VotingKeys(KEYS[0], lambda: KEYS[1:3])
    for key in KEYS[:3]:
        assert keys.find(make_set(KEYS[3], key)) == key
    assert keys.find(make_set(KEYS[3])) is None


def test_a_key_that_comes_while_the_node_runs_is_found() -> None:
    others: list[PrivateKey] = []
    keys = VotingKeys(KEYS[0], lambda: others)
    assert keys.find(make_set(KEYS[1])) is None
    others.append(KEYS[1])
    assert keys.find(make_set(KEYS[1])) == KEYS[1]


def test_the_first_key_may_be_elsewhere() -> None:
    assert VotingKeys(None, lambda: KEYS[1:2]).find(make_set(KEYS[1])) == KEYS[1]


def test_a_file_that_goes_bad_does_not_stop_a_running_node_and_keeps_a_new_one_down() -> None:
    answers: list[Sequence[PrivateKey]] = [KEYS[1:2]]

    def read() -> Sequence[PrivateKey]:
        if not answers:
            raise Rejected("is not hex", field="voting-1.key")
        return answers.pop()

    keys = VotingKeys(KEYS[0], read)
    assert keys.find(make_set(KEYS[1])) == KEYS[1]
    with pytest.raises(Rejected):
        VotingKeys(KEYS[0], read)


def test_a_home_that_cannot_be_listed_leaves_a_running_node_the_keys_that_it_has(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers: list[Sequence[PrivateKey]] = [KEYS[1:2]]

    def read() -> Sequence[PrivateKey]:
        if not answers:
            raise OSError(errno.EMFILE, "Too many open files", "/home")
        return answers.pop()

    keys = VotingKeys(KEYS[0], read)
    assert keys.find(make_set(KEYS[1])) == KEYS[1]
    assert keys.find(make_set(KEYS[0])) == KEYS[0]
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert "Too many open files" in caplog.records[0].problem  # type: ignore[attr-defined]


def test_a_key_is_made_once_for_each_rotation_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    path, key = make_voting_key(tmp_path, KEYS[0].public_key, RANDOM.randbytes)
    assert path.name == "voting-1.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert config.read_key(path) == key
    again = make_voting_key(tmp_path, KEYS[0].public_key, RANDOM.randbytes)
    assert again == (path, key)  # nobody took the rotation
    second, _ = make_voting_key(tmp_path, key.public_key, RANDOM.randbytes)
    assert second.name == "voting-2.key"
    path.unlink()
    assert list_paths(tmp_path) == [second]
    third, last = make_voting_key(tmp_path, config.read_key(second).public_key, RANDOM.randbytes)
    assert third.name == "voting-3.key"
    assert read_voting_keys(tmp_path)[-1] == last


def test_keys_are_read_oldest_first_and_what_is_none_is_named(tmp_path: Path) -> None:
    for number in (10, 2):
        config.write_key(tmp_path / f"voting-{number}.key", KEYS[number % 4])
    for other in ("voting-0.key", "voting-x.key", "voting-1.key.new", "node.key"):
        (tmp_path / other).write_text("no key")
    assert [path.name for path in list_paths(tmp_path)] == ["voting-2.key", "voting-10.key"]
    (tmp_path / "voting-3.key").write_text("no key")
    with pytest.raises(Rejected) as caught:
        read_voting_keys(tmp_path)
    assert caught.value.field.endswith("voting-3.key")
