"""Liars that are asked: wrong bodies, wrong final blocks, wrong claims, or nothing at all.

What a liar serves must be found out by whoever asked, before it is believed: it costs the liar points,
and the asker one question more. Claims in a Status cost a question each; silence costs a time-out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from consensus import block as blocks
from consensus import vote
from consensus.ledger.scoring import SCORE_MAX
from node.network.frames import (
    BlockBody,
    BodyTransactions,
    CompactProposal,
    FinalBlocks,
    Frame,
    GetBlock,
    GetBodyTransactions,
    GetFinalBlocks,
    GetTransactions,
    Status,
)
from node.simulation.full_nodes.liars.liar import Frames, Liar

BOASTS: Final = (5, 1_000, 1 << 40)  # blocks more than it has


class WrongBlocks(Liar):
    """It answers every question, with other things than were asked for."""

    def answer(self, frame: Frame, sender: int) -> Frames | None:  # noqa: ARG002 - lies to all alike
        match frame:
            case GetBlock(block_hash):
                return (BlockBody(block_hash, self._spoil_bytes(self._encode_some_block())),)
            case GetBodyTransactions(block_hash, places):
                other = self.sign_transfer(self.node.clock.now_ms()).raw
                wrong_count = self.rng.random() < 0.5
                raws = (other,) * (len(places) - 1 if wrong_count else len(places))
                return (BodyTransactions(block_hash, places, raws),)
            case GetFinalBlocks(first, count):
                return self._lie_about_final(first, count)
            case _:
                return None

    def _encode_some_block(self) -> bytes:
        store = self.node.store
        return store.get_raw_block(self.rng.randrange(store.finalized_height + 1)) or b""

    def _spoil_bytes(self, raw: bytes) -> bytes:
        place = self.rng.randrange(max(1, len(raw)))
        ways: tuple[Callable[[], bytes], ...] = (
            lambda: raw,
            lambda: raw[:place],
            lambda: raw[:place] + bytes((raw[place] ^ 1,)) + raw[place + 1 :] if raw else b"\x00",
            lambda: self.rng.randbytes(100),
        )
        return self.rng.choice(ways)()

    def _lie_about_final(self, first: int, count: int) -> Frames:
        """Final blocks with something exchanged: a body, the certificate, its place, or their order."""
        store = self.node.store
        last = min(first + count - 1, store.finalized_height)
        found = store.get_certificate(last) if last >= first else None
        if found is None:
            return (FinalBlocks(first, (b"\x90",), b"\x90", ()),)
        certificate = found[0]
        raws = [store.get_raw_block(height) or b"" for height in range(first, last + 1)]
        links = tuple(header.raw for header in store.get_links(last))
        way = self.rng.randrange(6)
        if way == 0:
            place = self.rng.randrange(len(raws))
            raws[place] = self._spoil_bytes(raws[place]) or b"\x00"
        elif way == 1:
            certificate = replace(certificate, signatures=certificate.signatures[:1])
        elif way == 2:
            subject = replace(certificate.subject, kind=vote.NOTARIZE)
            certificate = replace(certificate, subject=subject)
        elif way == 3:
            raws = raws[::-1] if len(raws) > 1 else raws * 2
        elif way == 4:
            raws[-1] = self._alter_block(last)
        else:
            links = (*links, blocks.decode_block(raws[0]).header.raw)
        return (FinalBlocks(first, tuple(raws), vote.encode_certificate(certificate), links),)

    def _alter_block(self, height: int) -> bytes:
        """A final block that pays its proposer's fees to the liar: sound by its form, and certified by nobody."""
        block = self.node.store.get_block_at(height)
        assert block is not None  # final, and asked for by its height
        header = replace(
            block.header, proposer=self.means.validator_key.public_key, view=block.header.view + 1
        )
        return blocks.encode_block(replace(block, header=header))


class Boaster(Liar):
    """It claims to be far ahead, and has nothing to show for it."""

    def rewrite(self, frame: Frame, receiver: int) -> Frames:  # noqa: ARG002 - boasts to all alike
        match frame:
            case Status():
                more = self.rng.choice(BOASTS)
                return (
                    replace(
                        frame,
                        head_height=frame.head_height + more,
                        final_height=frame.final_height + more,
                        final_view=frame.final_view + more,
                        final_hash=self.rng.randbytes(32),
                    ),
                )
            case _:
                return (frame,)

    def answer(self, frame: Frame, sender: int) -> Frames | None:  # noqa: ARG002 - owes all alike
        match frame:
            case GetFinalBlocks(first):
                return self.rng.choice(((), (FinalBlocks(first, (), b"", ()),)))
            case _:
                return None


class SilentServer(Liar):
    """It votes and proposes like anybody, and answers no question."""

    def answer(self, frame: Frame, sender: int) -> Frames | None:  # noqa: ARG002 - serves nobody
        is_question = isinstance(frame, GetBlock | GetBodyTransactions | GetFinalBlocks | GetTransactions)
        return () if is_question else None


class ExchangedIds(Liar):
    """Its proposals are sound, and the compact bodies beside them are other blocks'."""

    def rewrite(self, frame: Frame, receiver: int) -> Frames:  # noqa: ARG002 - shows all the same
        if not isinstance(frame, CompactProposal):
            return (frame,)
        ids, ways = frame.ids, ["stranger"]
        if ids:
            ways += ["order", "scores"] if len(ids) > 1 else ["scores"]
        if frame.parent_certificate:
            ways.append("certificate")
        match self.rng.choice(ways):
            case "order":
                return (replace(frame, ids=(*ids[1:], ids[0])),)
            case "scores":
                return (replace(frame, scores=tuple((score + 1) % SCORE_MAX for score in frame.scores)),)
            case "certificate":
                certificate = vote.decode_certificate(frame.parent_certificate)
                short = replace(certificate, signatures=certificate.signatures[1:])
                return (replace(frame, parent_certificate=vote.encode_certificate(short)),)
            case _:
                return (self.add_stranger(frame),)

    def add_stranger(self, frame: CompactProposal) -> CompactProposal:
        """One transaction more, which nobody has: whoever asks for it gets what the block really holds."""
        ids = (*frame.ids, self.sign_transfer(self.node.clock.now_ms()).id)
        return replace(frame, ids=ids, scores=(*frame.scores, 0), outcomes=frame.outcomes + bytes(1))


class TwoBodies(ExchangedIds):
    """All but one get its proposals' bodies; that one is to look for a transaction that nobody has."""

    def rewrite(self, frame: Frame, receiver: int) -> Frames:
        deprived = 0 if self.means.index else 1
        if receiver == deprived and isinstance(frame, CompactProposal):
            return (self.add_stranger(frame),)
        return (frame,)
