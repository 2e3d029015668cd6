"""Links that are cut on purpose: a fault of a development network (`admin.py`), never of a real one.

A cut link is a dead cable at the level of frames: what would go out is lost without a word, what comes
in is not heard, and no new connection to that peer comes about in either direction. A connection that
stands goes on standing, as TCP's does over a cable that is dead for less than a heartbeat.

Invariant: with nothing cut this changes nothing. Leaves out: delay, reordering and loss by chance; the
simulated world has them (`node/simulation/`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

Direction = Literal["in", "out", "both"]  # seen from this node
DIRECTIONS: Final[tuple[Direction, ...]] = ("in", "out", "both")


class Links:
    """The cut links of one node, by the peer's node key (33 bytes)."""

    __slots__ = ("_cut",)

    def __init__(self) -> None:
        self._cut: dict[bytes, Direction] = {}

    def set_cut(self, cut: Mapping[bytes, Direction]) -> None:
        """From now on these are cut and no others."""
        self._cut = dict(cut)

    def get_cut(self) -> Mapping[bytes, Direction]:
        return dict(self._cut)

    def is_heard(self, node_key: bytes) -> bool:
        """Whether frames of this peer arrive."""
        return self._cut.get(node_key, "out") == "out"

    def is_reached(self, node_key: bytes) -> bool:
        """Whether frames to this peer arrive."""
        return self._cut.get(node_key, "in") == "in"

    def is_whole(self, node_key: bytes) -> bool:
        """Whether a new connection can come about: a handshake needs both directions."""
        return node_key not in self._cut
