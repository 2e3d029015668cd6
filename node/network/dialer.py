"""When to dial a known peer again: exponential backoff with jitter.

Invariant: delays double from `first_s` to `last_s` and each is spread over half to one and a half of
itself, so that nodes started by one command do not knock in step. Randomness is injected.
Source: RFC 8085 and 6298 for the doubling; "full jitter" would lose the promise of a least delay.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from consensus.crypto import KEY_BYTES, is_valid_public_key
from consensus.errors import Rejected

# Refused for what the two nodes are: only an operator mends it, so there is no hurry to ask again.
SETTLED_CODES: Final = frozenset({"version", "wrong_chain", "wrong_genesis", "wrong_key", "self", "banned"})


@dataclass(frozen=True, slots=True)
class KnownPeer:
    """A peer of our settings. url: ws://host:port/; node_key: 33 bytes. Raises Rejected."""

    name: str
    url: str
    node_key: bytes

    def __post_init__(self) -> None:
        if not _is_websocket_url(self.url):
            raise Rejected(
                f'"{self.url}" is no WebSocket URL',
                field=f"peer {self.name}.url",
                mend="write ws://host:port",
            )
        if len(self.node_key) != KEY_BYTES or not is_valid_public_key(self.node_key):
            raise Rejected("is not a secp256k1 key of 33 bytes", field=f"peer {self.name}.node_key")


def _is_websocket_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not close, a port that is no number
        return False


@dataclass(frozen=True, slots=True)
class BackoffLimits:
    """Seconds before the second attempt, and at most. A restarted neighbour is back within one of them."""

    first_s: float = 0.1  # localnet: all start within half a second of each other
    last_s: float = 10.0  # a down peer costs six attempts a minute


class Backoff:
    """The delays between attempts at one peer."""

    def __init__(self, rng: random.Random, limits: BackoffLimits) -> None:
        self._rng = rng
        self._limits = limits
        self._delay_s = limits.first_s

    def reset(self) -> None:
        """After a connection stood: the next failure is a new one."""
        self._delay_s = self._limits.first_s

    def settle(self) -> None:
        """Jump to the longest delay: asking sooner would change nothing."""
        self._delay_s = self._limits.last_s

    def next_s(self) -> float:
        """How long to wait now, in seconds; the next time twice as long."""
        delay_s = self._delay_s
        self._delay_s = min(2 * delay_s, self._limits.last_s)
        return delay_s * self._rng.uniform(0.5, 1.5)
