"""Liars at gossip, and those who send what is no message at all.

Nothing that they send may cost an honest node more than its bounds: bad signatures and garbage cost the
sender its connection, announcements fill a quota of its own, and what it keeps back comes with a block.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from node.network.frames import (
    ANNOUNCE_IDS_MAX,
    INITIATOR,
    PROTOCOL_VERSION,
    Announce,
    EngineMessage,
    Frame,
    GetTransactions,
    Goodbye,
    Hello,
    Proof,
    Transactions,
    Welcome,
)
from node.network.wire import encode_frame
from node.simulation.full_nodes.liars.liar import Frames, Liar

FORGED_MAX: Final = 8  # payments with bad signatures beside one frame
ANNOUNCED_MAX: Final = 3_000  # ids beside one frame: a peer's quota is full after three
FLOOD_SHARE: Final = 0.3  # of the frames that it sends anyway


class BadSignatures(Liar):
    """Beside what it says, it passes on payments that nobody signed."""

    def rewrite(self, frame: Frame, receiver: int) -> Frames:  # noqa: ARG002 - floods all alike
        if self.rng.random() >= FLOOD_SHARE:
            return (frame,)
        now_ms = self.node.clock.now_ms()
        account = self.node.chain.final_view.get_account(self.means.account_key.address)
        nonce = 0 if account is None else account.nonce_next
        forged = tuple(
            replace(self.sign_transfer(now_ms, nonce=nonce), signature=self.rng.randbytes(64)).raw
            for _ in range(1 + self.rng.randrange(FORGED_MAX))
        )
        return (frame, Transactions(forged))


class EmptyAnnouncer(Liar):
    """It announces transactions without end, and has none of them."""

    def rewrite(self, frame: Frame, receiver: int) -> Frames:  # noqa: ARG002 - floods all alike
        if self.rng.random() >= FLOOD_SHARE:
            return (frame,)
        count = 1 + self.rng.randrange(min(ANNOUNCED_MAX, ANNOUNCE_IDS_MAX))
        noise = self.rng.randbytes(32 * count)
        return (frame, Announce(tuple(noise[start : start + 32] for start in range(0, len(noise), 32))))

    def answer(self, frame: Frame, sender: int) -> Frames | None:  # noqa: ARG002 - serves nobody
        return () if isinstance(frame, GetTransactions) else None


class SelectiveGossiper(Liar):
    """It passes transactions on to half of the others, ever the same, and to the rest nothing."""

    def rewrite(self, frame: Frame, receiver: int) -> Frames:
        is_gossip = isinstance(frame, Transactions | Announce)
        return () if is_gossip and receiver % 2 else (frame,)


class Garbler(Liar):
    """Beside what it says it sends noise, torn frames, and frames that have no place after the handshake."""

    def rewrite(self, frame: Frame, receiver: int) -> Frames:  # noqa: ARG002 - talks to all alike
        if self.rng.random() >= FLOOD_SHARE / 3:
            return (frame,)
        return (frame, self._make_garbage(frame))

    def _make_garbage(self, frame: Frame) -> Frame | bytes:
        rng, raw = self.rng, encode_frame(frame)
        place = rng.randrange(len(raw))
        chain_id, genesis_hash = self.rules.chain_id, self.node.genesis_header.hash
        key = self.means.validator_key.public_key
        hello = Hello(PROTOCOL_VERSION, chain_id, genesis_hash, INITIATOR, key, rng.randbytes(32), "")
        ways: list[Frame | bytes] = [
            rng.randbytes(1 + rng.randrange(64)),
            b"",
            raw[:place],
            raw[:place] + bytes((raw[place] ^ 1 << rng.randrange(8),)) + raw[place + 1 :],
            raw + b"\x00",
            EngineMessage(rng.randbytes(40)),
            Transactions((rng.randbytes(50),)),
            hello,
            Proof(rng.randbytes(64)),
            Welcome(),
            Goodbye("bye", "not meant"),
        ]
        return rng.choice(ways)
