"""Frames of the epoch after this one: what peers say that are a step ahead, kept until its engine runs.

They are neither decoded again nor checked before: whoever sends nonsense fills its own share alone, and is
found out when it is let in. Invariant: a peer holds no more of us than PEER_FRAMES_MAX and PEER_BYTES_MAX.
"""

from __future__ import annotations

from typing import Final

from node.network.frames import CompactProposal, EngineMessage
from node.network.transport import Peer

PEER_FRAMES_MAX: Final = 64  # votes and certificates of the few views that pass while we end the epoch
PEER_BYTES_MAX: Final = 2_000_000  # one proposal of the largest kind with its body's ids, and small ones

HeldFrame = EngineMessage | CompactProposal


class HeldFrames:
    """`hold` until `take`; oldest first for each peer."""

    def __init__(self) -> None:
        self._frames: dict[Peer, list[HeldFrame]] = {}
        self._bytes: dict[Peer, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self._frames.values()))

    def hold(self, peer: Peer, frame: HeldFrame) -> None:
        """Keep it, if the peer's share has room. What is lost is said again by the engines' retry timers."""
        frames, size = self._frames.setdefault(peer, []), _measure(frame)
        held_bytes = self._bytes.get(peer, 0)
        if len(frames) < PEER_FRAMES_MAX and held_bytes + size <= PEER_BYTES_MAX and frame not in frames:
            frames.append(frame)
            self._bytes[peer] = held_bytes + size

    def drop(self, peer: Peer) -> None:
        """It has gone: another could come in its place, without end."""
        self._frames.pop(peer, None)
        self._bytes.pop(peer, None)

    def take(self) -> list[tuple[Peer, HeldFrame]]:
        """All of them; nothing is held any more."""
        held = [(peer, frame) for peer, frames in self._frames.items() for frame in frames]
        self._frames.clear()
        self._bytes.clear()
        return held


def _measure(frame: HeldFrame) -> int:
    if isinstance(frame, EngineMessage):
        return len(frame.payload)
    ids_bytes = sum(map(len, frame.ids)) + 16 * len(frame.ids)  # with a score and an outcome each
    return len(frame.proposal) + ids_bytes + len(frame.parent_certificate)
