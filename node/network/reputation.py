"""How often each peer was at fault lately, and who is banned. By node key: several nodes share an address.

Invariant: bounded memory, and no verdict is for ever: points fade, bans end. Time is an argument (seconds,
monotonic). Leaves out: strangers who make new keys; the limits on inbound connections are against them.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, TypeVar

POINTS_BAN: Final = 100
POINTS_REJECTED: Final = 25  # a frame that our handler rejects: an honest node sends none, a buggy one a few
POINTS_MALFORMED: Final = 50  # bytes that are no frame: no code of ours makes them
FADE_S: Final = 10.0  # for one point: two rejected frames are forgotten after eight minutes
BAN_S: Final = 600.0  # long enough to make flooding dull, short enough for an operator's mistake
ENTRIES_MAX: Final = 1_024  # node keys remembered; the longest untouched goes first

_Value = TypeVar("_Value")


class Reputation:
    """Points and bans of node keys."""

    def __init__(self, ban_s: float = BAN_S) -> None:
        self._ban_s = ban_s
        self._points: OrderedDict[bytes, tuple[int, float]] = OrderedDict()  # points, and since when
        self._banned_until: OrderedDict[bytes, float] = OrderedDict()

    def add(self, node_key: bytes, points: int, now_s: float) -> bool:
        """Score a fault; True when it led to a ban."""
        left, since_s = self._fade(node_key, now_s)
        if left + points >= POINTS_BAN:
            self._points.pop(node_key, None)
            self._put(self._banned_until, node_key, now_s + self._ban_s)
            return True
        self._put(self._points, node_key, (left + points, since_s))
        return False

    def get_points(self, node_key: bytes, now_s: float) -> int:
        return self._fade(node_key, now_s)[0]

    def _fade(self, node_key: bytes, now_s: float) -> tuple[int, float]:
        """Points left, and since when they stand. Whole points fade: four quick faults of 25 make 100."""
        points, since_s = self._points.get(node_key, (0, now_s))
        faded = int((now_s - since_s) / FADE_S)
        return max(0, points - faded), since_s + faded * FADE_S

    def get_ban_left_s(self, node_key: bytes, now_s: float) -> float:
        """Seconds until the peer is let in again; 0 for one that is not banned."""
        left_s = self._banned_until.get(node_key, now_s) - now_s
        if left_s <= 0:
            self._banned_until.pop(node_key, None)
            return 0.0
        return left_s

    @staticmethod
    def _put(table: OrderedDict[bytes, _Value], node_key: bytes, value: _Value) -> None:
        table[node_key] = value
        table.move_to_end(node_key)
        if len(table) > ENTRIES_MAX:
            table.popitem(last=False)
