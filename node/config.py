"""A node's home folder and its settings: what is this node's own, as opposed to the chain's.

    genesis.json   what all nodes agree on          node.json      names, addresses, pacing (this file)
    node.key       proves who speaks to peers       validator.key  operates the validator, and votes (absent: an observer)
    voting-N.key   keys that votes were rotated to (`engine/voting_keys.py`)
    blocks.log  index/  checkpoints/  journal  sets.log       models/        artifacts of the modules in genesis
    refusals-N.log what it refused, in a Merkle log
    shadows/: what published models would have said; nothing depends on it

Invariant: nothing in node.json changes what is valid. Key files are mode 0600 and hold one line of hex.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from consensus import crypto, genesis
from consensus.codec import check_int, check_str
from consensus.errors import Rejected
from node.policies.plan import PolicyPlan, read_policies
from node.store.disk import make_disk_fault, sync_folder

LOOPBACK: Final = "127.0.0.1"
PORT_MAX: Final = 65_535
DURATION_MS_MAX: Final = 600_000  # ten minutes: no timer of a live network waits longer

SHADOWS_MAX: Final = 8  # each costs a thread as much as judging does
HOST_NAMES_MAX: Final = 64  # names that people gave a node, not a list of machines

_DURATION = re.compile(r"(\d+)(ms|s|m)?\Z")
_HOST_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}\Z")  # without a port: any port will do
_PEER_URL = re.compile(r"wss?://[^/\s]+(/\S*)?\Z")
_PEER_KEY = re.compile(r"(0x)?0[23][0-9a-fA-F]{64}\Z")
_UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000}


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """A peer to dial: its name (for people), WebSocket URL and node key (33 bytes, hex)."""

    name: str
    url: str
    node_key: str


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Ports 0 mean any free one. Durations in ms."""

    name: str
    p2p_port: int
    api_port: int
    peers: tuple[PeerConfig, ...] = ()
    p2p_host: str = LOOPBACK
    api_host: str = LOOPBACK
    api_host_names: tuple[str, ...] = ()  # further names that clients call the API by: a proxy's
    block_interval_ms: int = 1_000
    delta_ms: int = 600  # Simplex's Delta: one message and the judging of a full block on a busy machine
    delta_ms_max: int = 8_000  # the cap that Delta grows to while nothing becomes final
    worker: bool = True  # check signatures in a process of their own
    policies: tuple[PolicyPlan, ...] = ()  # this node's own modules, asked in order
    shadows: int = 2  # published models that score along, outside consensus; 0: none

    def __post_init__(self) -> None:
        check_str(self.name, "name", length_max=64)
        check_int(self.p2p_port, "p2p_port", high=PORT_MAX)
        check_int(self.api_port, "api_port", high=PORT_MAX)
        check_str(self.p2p_host, "p2p_host", length_max=255)
        check_str(self.api_host, "api_host", length_max=255)
        if len(self.api_host_names) > HOST_NAMES_MAX:
            raise Rejected(f"must be at most {HOST_NAMES_MAX} names", field="api_host_names")
        for name in self.api_host_names:
            _check_host_name(name)
        check_int(self.block_interval_ms, "block_interval_ms", high=DURATION_MS_MAX)
        check_int(self.delta_ms, "delta_ms", low=10, high=DURATION_MS_MAX)
        check_int(self.delta_ms_max, "delta_ms_max", low=self.delta_ms, high=DURATION_MS_MAX)
        check_int(self.shadows, "shadows", high=SHADOWS_MAX)
        if type(self.worker) is not bool:
            raise Rejected("must be true or false", field="worker")


def parse_duration_ms(text: str, field: str) -> int:
    """Milliseconds of a duration written 250ms, 1s or 2m (a bare 0 is allowed)."""
    match = _DURATION.match(text)
    if match is None or (match[2] is None and match[1] != "0"):
        raise Rejected(f'"{text}" is not a duration', field=field, mend="write it like 250ms, 1s or 2m")
    return check_int(int(match[1]) * _UNIT_MS[match[2] or "ms"], field, high=DURATION_MS_MAX)


def read_config(home: Path) -> NodeConfig:
    """The settings in home/node.json. Raises Rejected naming the field."""
    path = home / "node.json"
    try:
        document = json.loads(_read_text(path, "make a home with `assay init` or `assay localnet`"))
    except ValueError as error:
        raise Rejected(f"is not JSON ({error})", field=str(path), mend="restore it") from None
    if type(document) is not dict:
        raise Rejected("must be an object", field=str(path))
    known = {entry.name for entry in fields(NodeConfig)}
    for name in document:
        if name not in known:
            raise Rejected("is not a setting", field=f"node.json: {name}", mend="remove it")
    for name in ("name", "p2p_port", "api_port"):
        if name not in document:
            raise Rejected("is missing", field=f"node.json: {name}", mend="add it")
    peers = document.get("peers", [])
    if type(peers) is not list:
        raise Rejected("must be a list", field="node.json: peers")
    host_names = document.get("api_host_names", [])
    if type(host_names) is not list:
        raise Rejected("must be a list", field="node.json: api_host_names")
    own = {
        "api_host_names": tuple(host_names),
        "peers": tuple(_read_peer(peer) for peer in peers),
        "policies": read_policies(document.get("policies", [])),
    }
    return NodeConfig(**{**document, **own})


def _check_host_name(name: Any) -> None:
    if type(name) is not str or not _HOST_NAME.match(name):
        raise Rejected(
            f"{str(name)[:80]!a} is not a host name",
            field="api_host_names",
            mend="write it like node.example, without scheme and port",
        )


def _read_peer(value: Any) -> PeerConfig:
    if type(value) is not dict or set(value) != {"name", "url", "node_key"}:
        raise Rejected("must have name, url and node_key", field="node.json: peers")
    return check_peer(PeerConfig(**value), "node.json: peers")


def check_peer(peer: PeerConfig, field: str) -> PeerConfig:
    """The peer as it is. Raises Rejected naming what of `field` is wrong."""
    for name, text in asdict(peer).items():
        check_str(text, f"{field}.{name}", length_max=256)
    if not _PEER_URL.match(peer.url):
        raise Rejected(f'"{peer.url}" is not a WebSocket URL', field=f"{field}.url")
    if not _PEER_KEY.match(peer.node_key):
        raise Rejected("must be 33 bytes in hex", field=f"{field}.node_key")
    return peer


def write_config(home: Path, config: NodeConfig) -> None:
    write_file(home / "node.json", json.dumps(asdict(config), indent=1) + "\n")


def read_genesis(home: Path) -> genesis.Genesis:
    return read_genesis_file(home / "genesis.json")


def read_genesis_file(path: Path) -> genesis.Genesis:
    return genesis.read_genesis(_read_text(path, "make a home with `assay init` or `assay localnet`"))


def read_key(path: Path) -> crypto.PrivateKey:
    """The private key in a key file: one line of hex, with or without 0x."""
    text = _read_text(path, "point to a key file").strip()
    try:
        secret = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise Rejected("is not hex", field=str(path), mend="a key file holds 64 hex digits") from None
    return crypto.PrivateKey.from_bytes(secret)


def write_key(path: Path, key: crypto.PrivateKey) -> None:
    write_file(path, "0x" + key.secret.hex() + "\n", mode=0o600)


def write_file(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Write under a temporary name, sync and rename: readers see the old file or the new one, whole."""
    temporary = path.with_name(path.name + ".new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with open(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, mode)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise make_disk_fault(path, "write", error) from None


def _read_text(path: Path, mend: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Rejected("does not exist", field=str(path), mend=mend) from None
    except (OSError, UnicodeDecodeError) as error:
        raise Rejected(f"cannot be read ({error})", field=str(path), mend=mend) from None
