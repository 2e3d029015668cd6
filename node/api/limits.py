"""What one client may cost a node: sizes, counts, rates.

The numbers are stated in the OpenAPI document and answered with 413 (body), 422 (counts) or 429 (rate,
open streams). Rate is a token bucket per client address: `rate` requests a second with a burst.

Invariant: the limiter's own memory is bounded; a flood of addresses forgets the fullest buckets first,
which costs a forgotten client nothing but its history.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

CLIENTS_MAX: Final = 4_096  # addresses remembered; some 100 bytes each
_UNIT: Final = 1_000  # a token in thousandths, so that a rate per second adds up per ms in integers


@dataclass(frozen=True, slots=True)
class Limits:
    """Per request and per client. Loopback clients are this machine's own programs: replay, bench, people."""

    body_bytes_max: int = 8_000_000  # a batch of a thousand JSON transactions with room for reports
    batch_transactions_max: int = 1_000  # one batch stays under a tenth of a second of the loop
    page_entries_max: int = 100  # an answer of some 60 kB
    page_transactions_max: int = 5_000  # where a page of blocks ends: 40 ms of the loop, and one full block
    streams_max: int = 64  # open event streams of a node
    streams_per_client_max: int = 16  # a browser opens six connections to a host
    requests_per_second: int = 100  # a person, or a program that batches
    requests_burst: int = 400
    loopback_requests_per_second: int = 20_000  # beyond what one loop can answer: never in a test's way
    loopback_requests_burst: int = 40_000


class RateLimiter:
    """Token buckets by client address. `take` answers the wait in ms, 0 when the request may pass."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buckets: OrderedDict[str, tuple[int, int]] = OrderedDict()  # address -> (tokens, at ms)

    def take(self, address: str, now_ms: int) -> int:
        """Spend one token of the address's bucket, or say how long until there is one."""
        limits = self._limits
        if is_loopback(address):
            rate, burst = limits.loopback_requests_per_second, limits.loopback_requests_burst
        else:
            rate, burst = limits.requests_per_second, limits.requests_burst
        tokens, at_ms = self._buckets.pop(address, (burst * _UNIT, now_ms))
        tokens = min(burst * _UNIT, tokens + rate * max(0, now_ms - at_ms))
        wait_ms = 0 if tokens >= _UNIT else -((tokens - _UNIT) // rate)
        self._buckets[address] = (tokens - _UNIT if wait_ms == 0 else tokens, now_ms)
        if len(self._buckets) > CLIENTS_MAX:
            self._buckets.popitem(last=False)  # the one that has been silent longest has refilled most
        return wait_ms


def is_loopback(address: str) -> bool:
    """Whether a client's address is this machine (an empty one, as of a Unix socket, too)."""
    if address in ("127.0.0.1", "::1", ""):
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
