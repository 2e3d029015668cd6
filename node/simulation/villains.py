"""Villains: they wrap an honest engine and rewrite its effects.

An Equivocator, leading a view, shows one block to some and another to the rest, which may skip notarized
views, and votes for both; as a voter it notarizes whatever it hears of, and nullifies what it finalizes. It never forges: every
signature is its own, so honest nodes must catch it by evidence alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from consensus.bft.contract import Broadcast, Effect, Event, Halt, Proposal, Received, Send
from consensus.bft.restore import Record
from consensus.bft.simplex import SimplexEngine
from consensus.vote import FINALIZE, NO_BLOCK, NOTARIZE, NULLIFY, Subject, Vote
from node.simulation import toys


class Equivocator:
    """Two-faced as leader and as voter. `bodies` is its host's store: it can serve both blocks."""

    def __init__(
        self,
        engine: SimplexEngine,
        index: int,
        others: Sequence[int],
        sign: Callable[[bytes], bytes],
        bodies: dict[bytes, bytes],
        rng: random.Random,
    ) -> None:
        self._engine = engine
        self._index = index
        self._others = list(others)
        self._sign = sign
        self._bodies = bodies
        self._rng = rng

    @property
    def view(self) -> int:
        return self._engine.view

    @property
    def finalized_view(self) -> int:
        return self._engine.finalized_view

    def start(self, records: Iterable[Record]) -> tuple[Effect, ...]:
        return self._engine.start(records)

    def step(self, event: Event) -> tuple[Effect, ...]:
        effects: list[Effect] = []
        for effect in self._engine.step(event):
            match effect:
                case Broadcast(Proposal() as proposal):
                    effects.extend(self._show_two_faces(proposal))
                case Broadcast(Vote() as vote) if vote.subject.kind == FINALIZE:
                    effects += [effect, Broadcast(self._vote(NULLIFY, vote.subject.view, NO_BLOCK))]
                case Halt():
                    pass  # it knows why
                case _:
                    effects.append(effect)
        if isinstance(event, Received) and isinstance(event.message, Proposal):
            # Vote for every block anyone shows, at once and unseen.
            block = event.message.block
            if block.proposer != self._index and self._rng.random() < 0.5:
                effects.append(Broadcast(self._vote(NOTARIZE, block.view, block.hash)))
        return tuple(effects)

    def _vote(self, kind: int, view: int, block_hash: bytes) -> Vote:
        subject = Subject(toys.EPOCH, kind, view, block_hash)
        return Vote(subject, self._index, self._sign(subject.compute_digest(toys.CHAIN_ID)))

    def _show_two_faces(self, proposal: Proposal) -> list[Effect]:
        """A second block beside the real one; half of the time it forgets what came after the final one."""
        block, view = proposal.block, proposal.block.view
        parent = replace(block, hash=block.parent_hash, view=block.parent_view, height=block.height - 1)
        certificate, gap = proposal.parent_certificate, proposal.nullifications
        final = self._engine.finalized_hash
        if self._rng.random() < 0.5 and (final in self._bodies or final == toys.GENESIS.hash):
            parent = toys.read_block(self._bodies[final]) if final in self._bodies else toys.GENESIS
            certificate, gap = self._engine.finalization, ()
        payload = toys.make_payload(parent, view, self._index, self._rng.randrange(toys.VALID_SALTS))
        other = toys.read_block(payload)
        self._bodies[other.hash] = payload
        second = Proposal(other, payload, self._vote(NOTARIZE, view, other.hash), certificate, gap)
        effects: list[Effect] = []
        for peer in self._others:
            faces = self._rng.choice([(proposal,), (second,), (proposal, second), (second, proposal)])
            effects.extend(Send(bytes((peer,)), face) for face in faces)
        return effects
