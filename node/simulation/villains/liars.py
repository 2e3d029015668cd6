"""Villains that lie about blocks: proposals that nobody may notarize, and wrong answers to questions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from consensus.bft.contract import BlockRef, Broadcast, Effect, Event, Proposal, Received, Send
from consensus.vote import Certificate
from node.simulation import toys
from node.simulation.villains.villain import Means, Villain, get_parent


class ParentSkipper(Villain):
    """Leading, it builds on the last final block, as if the views notarized since had never been."""

    def rewrite(self, effect: Effect) -> Iterable[Effect]:
        match effect:
            case Broadcast(Proposal() as proposal):
                return (Broadcast(self.skip_parent(proposal)),)
            case _:
                return (effect,)

    def skip_parent(self, proposal: Proposal) -> Proposal:
        final, bodies = self.engine.finalized_hash, self.means.bodies
        if final == proposal.block.parent_hash:
            return proposal  # nothing to skip
        parent = toys.read_block(bodies[final]) if final in bodies else toys.GENESIS
        certificate = self.engine.finalization if final in bodies else None
        return self.make_proposal(parent, proposal.block.view, certificate, ())


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
        self._shown: dict[int, Proposal] = {}  # one a view: it is wrong, and not two-faced

    def rewrite(self, effect: Effect) -> Iterable[Effect]:
        match effect:
            case Broadcast(Proposal() as proposal):
                view = proposal.block.view
                if view not in self._shown:
                    self._shown[view] = self._ways[len(self._shown) % len(self._ways)](proposal)
                return (Broadcast(self._shown[view]),)
            case _:
                return (effect,)

    def spoil_body(self, proposal: Proposal) -> Proposal:
        """Well-formed, and judged invalid by everybody's ledger."""
        return self._on(get_parent(proposal.block), proposal, salt=toys.VALID_SALTS)

    def spoil_height(self, proposal: Proposal) -> Proposal:
        parent = get_parent(proposal.block)
        return self._on(replace(parent, height=parent.height + 1), proposal)

    def invent_parent(self, proposal: Proposal) -> Proposal:
        """On a block that nobody certified: the certificate it shows is another one's."""
        view = proposal.block.view
        parent = BlockRef(self.rng.randbytes(32), toys.EPOCH, view - 1, view - 1, 0, bytes(32), 0)
        return self.make_proposal(parent, view, proposal.parent_certificate, ())

    def spoil_epoch(self, proposal: Proposal) -> Proposal:
        """Rightly signed, for an epoch that is not."""
        return self.make_proposal(toys.GENESIS, proposal.block.view, None, (), epoch=toys.EPOCH + 1)

    def _on(self, parent: BlockRef, proposal: Proposal, salt: int | None = None) -> Proposal:
        certificate, gap = proposal.parent_certificate, proposal.nullifications
        return self.make_proposal(parent, proposal.block.view, certificate, gap, salt=salt)


class LiarInSync(Villain):
    """Answers requests with certificates and bodies that were not asked for, broken ones, or nothing."""

    def __init__(self, means: Means) -> None:
        super().__init__(means)
        self._certificates: list[Certificate] = []

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
        if isinstance(event, Received) and isinstance(event.message, Certificate):
            self._certificates = [*self._certificates[-20:], event.message]
        return ()

    def answer_body(self, block_hash: bytes) -> bytes | None:
        other = self.rng.choice(list(self.means.bodies.values()) or [b""])
        honest = self.means.bodies.get(block_hash)
        torn = None if honest is None else honest[:-1]
        return self.rng.choice([None, b"", other, torn])
