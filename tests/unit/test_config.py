"""Settings and keys on disk: what is written is read again, and every mistake is named in one line."""

from __future__ import annotations

import errno
import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consensus.crypto import PrivateKey
from consensus.errors import Fault, Rejected
from node import config
from node.config import NodeConfig, PeerConfig, parse_duration_ms

KEY = PrivateKey.from_seed(b"node")
PEER = PeerConfig("bob", "ws://127.0.0.1:9000", "0x" + KEY.public_key.hex())


def write(home: Path, **changes: Any) -> None:
    document = {"name": "ann", "p2p_port": 1, "api_port": 2, **changes}
    (home / "node.json").write_text(json.dumps({k: v for k, v in document.items() if v is not ...}))


def test_settings_that_are_written_are_read_again(tmp_path: Path) -> None:
    settings = NodeConfig("ann", 26_600, 26_601, (PEER,), block_interval_ms=250, worker=False)
    settings = replace(settings, api_host_names=("node.example",))
    config.write_config(tmp_path, settings)
    assert config.read_config(tmp_path) == settings


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": ...}, "name: is missing"),
        ({"name": ""}, "name"),
        ({"name": 7}, "name"),
        ({"p2p_port": 65_536}, "p2p_port"),
        ({"api_port": -1}, "api_port"),
        ({"api_port": "80"}, "api_port"),
        ({"api_port": True}, "api_port"),
        ({"p2p_host": 5}, "p2p_host"),
        ({"api_host_names": "node.example"}, "api_host_names: must be a list"),
        ({"api_host_names": [5]}, "api_host_names: '5' is not a host name"),
        ({"api_host_names": ["https://node.example"]}, "without scheme and port"),
        ({"api_host_names": ["node.example:443"]}, "without scheme and port"),
        ({"api_host_names": ["node.example"] * 65}, "at most 64 names"),
        ({"delta_ms": 1}, "delta_ms"),
        ({"delta_ms_max": 100}, "delta_ms_max"),
        ({"block_interval_ms": 10**9}, "block_interval_ms"),
        ({"worker": 1}, "worker"),
        ({"colour": "red"}, "colour: is not a setting"),
        ({"peers": 5}, "peers: must be a list"),
        ({"peers": {"a": 1}}, "peers: must be a list"),
        ({"peers": ["bob"]}, "peers"),
        ({"peers": [{"name": "bob"}]}, "must have name, url and node_key"),
        ({"peers": [{"name": "bob", "url": "ws://a", "node_key": 5}]}, "node_key"),
        ({"peers": [{"name": "bob", "url": "ws://a", "node_key": "0xzz"}]}, "33 bytes in hex"),
        ({"peers": [{"name": "b", "url": "ftp://a", "node_key": KEY.public_key.hex()}]}, "WebSocket URL"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    write(tmp_path, **changes)
    with pytest.raises(Rejected) as caught:
        config.read_config(tmp_path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "\x00"])
def test_settings_that_are_no_object_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "node.json").write_text(text)
    with pytest.raises(Rejected, match=r"node\.json"):
        config.read_config(tmp_path)


def test_a_home_without_settings_or_with_unreadable_ones_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="does not exist"):
        config.read_config(tmp_path)
    (tmp_path / "node.json").write_bytes(b"\xff\xfe")
    with pytest.raises(Rejected, match="cannot be read"):
        config.read_config(tmp_path)


@pytest.mark.parametrize(
    ("text", "duration_ms"), [("0", 0), ("250ms", 250), ("1s", 1_000), ("2m", 120_000), ("10m", 600_000)]
)
def test_durations_are_read_with_their_unit(text: str, duration_ms: int) -> None:
    assert parse_duration_ms(text, "--block-interval") == duration_ms


@pytest.mark.parametrize("text", ["", "5", "s", "-1s", "1.5s", "1h", "11m", " 1s", "1s\n", "1e3ms"])
def test_what_is_no_duration_is_refused_with_the_name_of_its_option(text: str) -> None:
    with pytest.raises(Rejected, match="--block-interval"):
        parse_duration_ms(text, "--block-interval")


def test_a_key_file_is_read_with_and_without_0x_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    config.write_key(path, KEY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert config.read_key(path).secret == KEY.secret
    path.write_text(KEY.secret.hex())
    assert config.read_key(path).secret == KEY.secret


@pytest.mark.parametrize("text", ["", "0x", "hello", "0x00", "00" * 32, "ff" * 32, "11" * 33])
def test_what_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "node.key").write_text(text)
    with pytest.raises(Rejected):
        config.read_key(tmp_path / "node.key")


def test_a_file_is_replaced_whole_and_leaves_no_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "x"
    config.write_file(path, "one")
    config.write_file(path, "two", mode=0o600)
    assert path.read_text() == "two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_a_files_new_name_is_made_durable_or_the_failure_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(config, "sync_folder", synced.append)
    config.write_file(tmp_path / "x", "one")
    assert synced == [tmp_path]

    def fail(folder: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(config, "sync_folder", fail)
    with pytest.raises(Fault, match="cannot write"):
        config.write_file(tmp_path / "x", "two")


@pytest.mark.parametrize(
    ("code", "words", "mend"),
    [
        (errno.ENOSPC, "the disk is full", "free space and start again"),
        (errno.EDQUOT, "the disk is full", "free space and start again"),
        (errno.EACCES, os.strerror(errno.EACCES), "check the disk"),
    ],
)
def test_a_file_that_cannot_be_written_says_why(
    code: int, words: str, mend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(Fault, match=words) as caught:
        config.write_file(tmp_path / "x", "one")
    assert caught.value.mend == mend
    assert str(tmp_path / "x") in str(caught.value)
