"""Faults on request: what the admin calls of a development network do to a node.

    links   cut towards some peers, one way or both     clock   ahead or behind     stop    in order

Off unless the node's home holds `admin.token` (mode 0600), which only `assay localnet --admin` makes;
a node whose API is open to a network refuses to start with one. Nothing here survives a restart.

Invariant: a fault is logged before it is in force. Leaves out: crashes, frozen processes and damaged
files, which need no call. Decision record 31.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from consensus.crypto import KEY_BYTES
from consensus.errors import Rejected
from node import config
from node.clock import SkewableClock, SystemClock
from node.network.links import Direction, Links

log = logging.getLogger("assay.admin")

TOKEN_NAME: Final = "admin.token"
TOKEN_BYTES: Final = 32  # as a key: nobody guesses it
NAMES_SHOWN_MAX: Final = 80  # characters of them: an error is one line
SKEW_MS_MAX: Final = 86_400_000  # a day; a clock further off shows nothing that this does not


@dataclass(frozen=True, slots=True)
class Faults:
    """What is in force. cut: by the peer's name, or its key (hex with 0x) when it has none. skew_ms: 0 is right."""

    cut: Mapping[str, Direction]
    skew_ms: int


class Admin:
    """Implements `api.admin.AdminDoor` for one running node. peers: node keys (33 bytes) by name."""

    def __init__(
        self,
        token: str,
        *,
        peers: Mapping[str, bytes],
        links: Links,
        clock: SkewableClock,
        stop: Callable[[], None],
    ) -> None:
        self.token = token
        self.links = links
        self.clock = clock
        self._keys = dict(peers)
        self._names = {node_key: name for name, node_key in peers.items()}
        self._stop = stop

    def get_faults(self) -> Faults:
        cut = {self._tell(node_key): direction for node_key, direction in self.links.get_cut().items()}
        return Faults(cut, self.clock.skew_ms)

    def set_links(self, cut: Mapping[str, Direction]) -> None:
        """Cut these links (by a peer's name, or its key in hex) and heal all others. Raises Rejected."""
        keys = {self._find_key(who): direction for who, direction in cut.items()}
        log.warning("links by admin call", extra={"cut": {self._tell(key): way for key, way in keys.items()}})
        self.links.set_cut(keys)

    def set_skew(self, skew_ms: int) -> None:
        """Wall time is off by so many milliseconds from now on; durations are not. Raises Rejected."""
        if not -SKEW_MS_MAX <= skew_ms <= SKEW_MS_MAX:
            raise Rejected(
                f"{skew_ms} is out of range",
                field="skew_ms",
                code="value",
                mend=f"use at most ±{SKEW_MS_MAX}",
            )
        log.warning("clock by admin call", extra={"skew_ms": skew_ms})
        self.clock.skew_ms = skew_ms

    def stop(self) -> None:
        """End in order, as after SIGTERM; returns at once."""
        log.warning("stop by admin call")
        self._stop()

    def _find_key(self, who: str) -> bytes:
        if who in self._keys:
            return self._keys[who]
        try:
            node_key = bytes.fromhex(who.removeprefix("0x"))
        except ValueError:
            node_key = b""
        if len(node_key) != KEY_BYTES:
            raise Rejected(
                f"{who[:80]!a} is no peer of this node",
                field="cut",
                code="peer",
                mend="use a name or a node_key of /v1/peers",
            )
        return node_key

    def _tell(self, node_key: bytes) -> str:
        return self._names.get(node_key, "0x" + node_key.hex())


def write_token(home: Path, random_bytes: Callable[[int], bytes]) -> None:
    """Give a home a token, unless it has one. Raises Fault."""
    if not (home / TOKEN_NAME).exists():
        config.write_file(home / TOKEN_NAME, random_bytes(TOKEN_BYTES).hex() + "\n", mode=0o600)


def read_token(home: Path, settings: config.NodeConfig) -> str | None:
    """The token of a home; None: this node takes no admin calls. Raises Rejected when it must not have one."""
    path = home / TOKEN_NAME
    if not path.exists():
        return None
    try:
        token = path.read_text(encoding="ascii").strip()
        is_whole = len(bytes.fromhex(token)) == TOKEN_BYTES
    except ValueError:
        is_whole = False
    if not is_whole:
        raise Rejected(f"is not {TOKEN_BYTES} bytes of hex", field=str(path), mend="remove it, or restore it")
    if path.stat().st_mode & 0o077:
        raise Rejected("others may read it", field=str(path), mend=f"run: chmod 600 {path}")
    if not _is_loopback(settings.api_host):
        raise Rejected(
            f"makes this node take admin calls, and its API is open to a network ({settings.api_host})",
            field=str(path),
            mend="remove the file: admin calls are for development networks on loopback",
        )
    if settings.api_host_names:
        raise Rejected(
            "makes this node take admin calls, and its API is reached by other names, through a proxy "
            f"({', '.join(settings.api_host_names)[:NAMES_SHOWN_MAX]})",
            field=str(path),
            mend="remove the file, or api_host_names from node.json",
        )
    return token


def open_admin(home: Path, settings: config.NodeConfig, stop: Callable[[], None]) -> Admin | None:
    """The admin side of the node of this home, with a clock for it; None without a token. Raises Rejected."""
    token = read_token(home, settings)
    if token is None:
        return None
    log.warning("admin calls are open: whoever has the token in %s can break this node", home / TOKEN_NAME)
    peers = {peer.name: bytes.fromhex(peer.node_key.removeprefix("0x")) for peer in settings.peers}
    return Admin(token, peers=peers, links=Links(), clock=SkewableClock(SystemClock()), stop=stop)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
