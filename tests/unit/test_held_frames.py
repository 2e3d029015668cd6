"""Frames of the next epoch: kept within each peer's share, handed over once."""

from __future__ import annotations

from node.engine.held_frames import PEER_BYTES_MAX, PEER_FRAMES_MAX, HeldFrames
from node.network.frames import CompactProposal, EngineMessage
from node.network.transport import Peer

ALICE, BOB = (Peer(name.encode().ljust(33), name, "", is_inbound=True) for name in ("alice", "bob"))


def test_what_is_held_is_handed_over_once_in_its_order() -> None:
    held = HeldFrames()
    frames = [EngineMessage(b"one"), CompactProposal(b"two", (), (), b"", b""), EngineMessage(b"three")]
    for frame in frames:
        held.hold(ALICE, frame)
    assert held.take() == [(ALICE, frame) for frame in frames]
    assert held.take() == []


def test_a_peer_that_floods_fills_its_own_share_alone() -> None:
    held = HeldFrames()
    for number in range(2 * PEER_FRAMES_MAX):
        held.hold(ALICE, EngineMessage(number.to_bytes(4, "big")))
    held.hold(BOB, EngineMessage(b"a vote"))
    assert len(held) == PEER_FRAMES_MAX + 1
    assert (BOB, EngineMessage(b"a vote")) in held.take()


def test_a_share_is_bounded_in_bytes_too() -> None:
    held = HeldFrames()
    held.hold(ALICE, EngineMessage(bytes(PEER_BYTES_MAX)))
    held.hold(ALICE, CompactProposal(b"", (bytes(32),), (0,), b"\0", b""))
    assert len(held) == 1


def test_the_same_frame_twice_counts_once() -> None:
    held = HeldFrames()
    for _ in range(3):
        held.hold(ALICE, EngineMessage(b"a vote"))
    assert len(held) == 1


def test_what_a_peer_said_goes_with_it() -> None:
    held = HeldFrames()
    held.hold(ALICE, EngineMessage(b"a vote"))
    held.drop(ALICE)
    held.hold(BOB, EngineMessage(b"another"))
    assert held.take() == [(BOB, EngineMessage(b"another"))]
