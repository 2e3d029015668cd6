"""Villains that lie about blocks: proposals that nobody may notarize, and wrong answers to questions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from consensus.bft.contract import BlockRef, Broadcast, Effect, Event, Proposal, Received, Send
from consensus.vote import Certificate
from node.simulation.villains.villain import Means, Villain, get_parent

MEMORIES_MAX: Final = 20  # of a liar in sync: a few views'


class ParentSkipper(Villain):
    """Leading, it builds on the last final block, as if the views notarized since had never been."""

    def rewrite(self, effect: Effect) -> Iterable[Effect]:
        match effect:
            case Broadcast(Proposal() as proposal):
                return (Broadcast(self.skip_parent(proposal)),)
            case _:
                return (effect,)

    def skip_parent(self, proposal: Proposal) -> Proposal:
        if self.engine.finalized_hash == proposal.block.parent_hash:
            return proposal  # nothing to skip
        parent, certificate = self.find_block(self.engine.finalized_hash), self.engine.finalization
        if parent is None:
            parent, certificate = self.means.genesis, None
        return self.make_proposal(parent, proposal.block.view, certificate, ()) or proposal


class InvalidProposer(Villain):
    """Leading, it proposes a block that is wrong in one way or another, each time in the next one."""

    def __init__(self, means: Means) -> None:
        super().__init__(means)
        self._ways = (
            self.spoil_body,
            self.invent_parent,
            self.spoil_height,
            self.spoil_epoch,
        )
        self._shown: dict[int, Proposal | None] = {}  # one a view: it is wrong, and not two-faced

    def rewrite(self, effect: Effect) -> Iterable[Effect]:
        match effect:
            case Broadcast(Proposal() as proposal):
                view = proposal.block.view
                if view not in self._shown:
                    self._shown[view] = self._ways[len(self._shown) % len(self._ways)](proposal)
                shown = self._shown[view]
                return () if shown is None else (Broadcast(shown),)
            case _:
                return (effect,)

    def spoil_body(self, proposal: Proposal) -> Proposal | None:
        """Well-formed, and judged invalid by everybody's ledger."""
        return self._on(get_parent(proposal.block), proposal, is_valid=False)

    def spoil_height(self, proposal: Proposal) -> Proposal | None:
        parent = get_parent(proposal.block)
        return self._on(replace(parent, height=parent.height + 1), proposal)

    def invent_parent(self, proposal: Proposal) -> Proposal | None:
        """On a block that nobody certified: the certificate it shows is another one's."""
        view = proposal.block.view
        parent = BlockRef(self.rng.randbytes(32), self.means.epoch, view - 1, view - 1, 0, bytes(32), 0)
        return self.make_proposal(parent, view, proposal.parent_certificate, ())

    def spoil_epoch(self, proposal: Proposal) -> Proposal | None:
        """Rightly signed, for an epoch that is not."""
        epoch = self.means.epoch + 1
        return self.make_proposal(self.means.genesis, proposal.block.view, None, (), epoch=epoch)

    def _on(self, parent: BlockRef, proposal: Proposal, *, is_valid: bool = True) -> Proposal | None:
        certificate, gap = proposal.parent_certificate, proposal.nullifications
        return self.make_proposal(parent, proposal.block.view, certificate, gap, is_valid=is_valid)


class LiarInSync(Villain):
    """Answers requests with certificates and bodies that were not asked for, broken ones, or nothing."""

    def __init__(self, means: Means) -> None:
        super().__init__(means)
        self._certificates: list[Certificate] = []
        self._payloads: list[bytes] = []  # of others' proposals

    def rewrite(self, effect: Effect) -> Iterable[Effect]:
        match effect:
            case Send(peer, Certificate() as certificate):
                short = replace(certificate, signatures=certificate.signatures[:1])
                higher = replace(
                    certificate, subject=replace(certificate.subject, view=certificate.subject.view + 1)
                )
                lie = self.rng.choice([short, higher, *self._certificates[:1]])
                return self.rng.choice([(), (Send(peer, lie),)])
            case _:
                return (effect,)

    def add(self, event: Event) -> Iterable[Effect]:
        match event:
            case Received(Certificate() as certificate):
                self._certificates = [*self._certificates[-MEMORIES_MAX:], certificate]
            case Received(Proposal(_, payload)):
                self._payloads = [*self._payloads[-MEMORIES_MAX:], payload]
            case _:
                pass
        return ()

    def answer_body(self, block_hash: bytes) -> bytes | None:
        other = self.rng.choice(self._payloads or [b""])
        honest = self.means.get_payload(block_hash)
        torn = None if honest is None else honest[:-1]
        return self.rng.choice([None, b"", other, torn])
