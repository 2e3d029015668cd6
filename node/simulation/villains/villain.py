"""What every villain is: an honest engine in disguise, whose effects are rewritten on the way out.

A new villain is a class of some twenty lines: override `rewrite` (one effect in, any number out) or `add`
(something more after an event), and list it in `node.simulation.villains`. It has its own key, its own
store and whatever it heard; it forges no signature, or nobody takes what it sends.

Invariant: a villain draws chance from the world's generator alone, so that a run replays.
Leaves out: lies to its own journal; a villain crashes only where a scenario says so.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from consensus.bft.contract import (
    BlockRef,
    CertificateRequest,
    Effect,
    Event,
    Halt,
    Message,
    Proposal,
    ReportEvidence,
    Send,
)
from consensus.bft.restore import Record
from consensus.bft.simplex import SimplexEngine
from consensus.vote import NOTARIZE, Certificate, Subject, ValidatorSet, Vote
from node.simulation import toys


@dataclass(frozen=True, slots=True)
class Means:
    """What a villain has. `bodies` is its host's store: what stands there, it can serve.

    sign: digest -> signature with its own key. make_engine: one more honest engine with that key.
    """

    index: int
    validators: ValidatorSet
    make_engine: Callable[[], SimplexEngine]
    sign: Callable[[bytes], bytes]
    bodies: dict[bytes, bytes]
    rng: random.Random


class Villain:
    """Rewrites nothing: an honest engine that reports no evidence and hides when it halts."""

    def __init__(self, means: Means) -> None:
        self.means = means
        self.rng = means.rng
        self.index = means.index
        self.engine = means.make_engine()
        self.others = [index for index in range(len(means.validators)) if index != means.index]

    @property
    def view(self) -> int:
        return self.engine.view

    @property
    def finalized_view(self) -> int:
        return self.engine.finalized_view

    def start(self, records: Iterable[Record]) -> tuple[Effect, ...]:
        return self._disguise(self.engine.start(records))

    def step(self, event: Event) -> tuple[Effect, ...]:
        return (*self._disguise(self.engine.step(event)), *self.add(event))

    def _disguise(self, effects: Iterable[Effect]) -> tuple[Effect, ...]:
        honest = (effect for effect in effects if not isinstance(effect, Halt | ReportEvidence))
        return tuple(lie for effect in honest for lie in self.rewrite(effect))

    # --- what a villain overrides ---------------------------------------------------------------

    def rewrite(self, effect: Effect) -> Iterable[Effect]:
        """What it does instead of this effect."""
        return (effect,)

    def add(self, event: Event) -> Iterable[Effect]:  # noqa: ARG002 - for those who override it
        """What it does besides, after this event."""
        return ()

    def answer_body(self, block_hash: bytes) -> bytes | None:
        """What it serves to a peer that asks for this block; None: no answer."""
        return self.means.bodies.get(block_hash)

    # --- its tools --------------------------------------------------------------------------------

    def make_vote(self, kind: int, view: int, block_hash: bytes, epoch: int = toys.EPOCH) -> Vote:
        """A genuine vote of its own, whatever it voted before."""
        subject = Subject(epoch, kind, view, block_hash)
        return Vote(subject, self.index, self.means.sign(subject.compute_digest(toys.CHAIN_ID)))

    def make_proposal(
        self,
        parent: BlockRef,
        view: int,
        certificate: Certificate | None,
        gap: Sequence[Certificate],
        *,
        salt: int | None = None,
        epoch: int = toys.EPOCH,
    ) -> Proposal:
        """A block of its own on `parent`, whose body it can serve."""
        chosen = self.rng.randrange(toys.VALID_SALTS) if salt is None else salt
        payload = toys.make_payload(parent, view, self.index, chosen, epoch)
        block = toys.read_block(payload)
        self.means.bodies[block.hash] = payload
        vote = self.make_vote(NOTARIZE, view, block.hash, epoch)
        return Proposal(block, payload, vote, certificate, tuple(gap))

    def send_to(self, peers: Iterable[int], *messages: Message) -> list[Effect]:
        return [Send(bytes((peer,)), message) for peer in peers for message in messages]


def get_parent(block: BlockRef) -> BlockRef:
    """As much of a block's parent as its child tells."""
    height = max(0, block.height - 1)
    return BlockRef(block.parent_hash, block.epoch, block.parent_view, height, 0, bytes(32), 0)


def get_view(message: Message) -> int:
    """The view that a message is about."""
    match message:
        case Vote(subject) | Certificate(subject):
            return subject.view
        case Proposal(block):
            return block.view
        case CertificateRequest(_, view, _):
            return view
