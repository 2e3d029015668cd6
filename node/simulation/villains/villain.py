"""What every villain is: an honest engine in disguise, whose effects are rewritten on the way out.

A new villain is a class of some twenty lines: override `rewrite` (one effect in, any number out) or `add`
(something more after an event), and list it in `node.simulation.villains`. It has its own key, its own
store and whatever it heard; it forges no signature, or nobody takes what it sends.

Invariant: a villain draws chance from the world's generator alone, so that a run replays; what blocks and
names are made of it learns from its Means, so that it lives among engines and among whole nodes alike.
Leaves out: lies to its own journal; a villain crashes only where a scenario says so.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

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

SALTS: Final = 1_000_000  # blocks that a villain can make on one parent in one view


class MakeBlock(Protocol):
    """(block, payload) of a block by the villain, in its host's store from then on; None: it cannot.

    Another salt makes another block. epoch None: the running one. not is_valid: a block of sound form that
    every honest node judges invalid. `parent` may be nobody's block.
    """

    def __call__(
        self, parent: BlockRef, view: int, salt: int, *, epoch: int | None = None, is_valid: bool = True
    ) -> tuple[BlockRef, bytes] | None: ...


@dataclass(frozen=True, slots=True)
class Means:
    """What a villain has: its place, its key, its host's store, and chance.

    make_engine: one more honest engine with its key. sign: digest -> signature with it. read_block: payload
    -> block; raises Rejected. get_payload: of a block hash, what the host's store can serve. name_peer:
    validator index -> what stands in Send.peer and Received.sender.
    """

    index: int
    validators: ValidatorSet
    chain_id: str
    genesis: BlockRef
    make_engine: Callable[[], SimplexEngine]
    sign: Callable[[bytes], bytes]
    make_block: MakeBlock
    read_block: Callable[[bytes], BlockRef]
    get_payload: Callable[[bytes], bytes | None]
    name_peer: Callable[[int], bytes]
    rng: random.Random

    @property
    def epoch(self) -> int:
        return self.genesis.epoch


class Villain:
    """Rewrites nothing: an honest engine that reports no evidence and hides when it halts."""

    def __init__(self, means: Means) -> None:
        self.means = means
        self.rng = means.rng
        self.index = means.index
        self.engine = means.make_engine()
        self.others = [index for index in range(len(means.validators)) if index != means.index]
        self._indexes = {means.name_peer(index): index for index in range(len(means.validators))}

    @property
    def view(self) -> int:
        return self.engine.view

    @property
    def finalized_view(self) -> int:
        return self.engine.finalized_view

    @property
    def is_halted(self) -> bool:
        return False

    def is_needed(self, message: Message) -> bool:  # noqa: ARG002 - as an engine has it
        """It listens to everything."""
        return True

    def list_records(self) -> tuple[Record, ...]:
        """Nothing for who connects: what it says, it says by its effects."""
        return ()

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
        return self.means.get_payload(block_hash)

    # --- its tools --------------------------------------------------------------------------------

    def make_vote(self, kind: int, view: int, block_hash: bytes, epoch: int | None = None) -> Vote:
        """A genuine vote of its own, whatever it voted before."""
        subject = Subject(self.means.epoch if epoch is None else epoch, kind, view, block_hash)
        return Vote(subject, self.index, self.means.sign(subject.compute_digest(self.means.chain_id)))

    def make_proposal(
        self,
        parent: BlockRef,
        view: int,
        certificate: Certificate | None,
        gap: Sequence[Certificate],
        *,
        epoch: int | None = None,
        is_valid: bool = True,
    ) -> Proposal | None:
        """A block of its own on `parent`, whose body it can serve; None: its host cannot make one."""
        salt = self.rng.randrange(SALTS) if is_valid else 0
        made = self.means.make_block(parent, view, salt, epoch=epoch, is_valid=is_valid)
        if made is None:
            return None
        block, payload = made
        vote = self.make_vote(NOTARIZE, view, block.hash, epoch)
        return Proposal(block, payload, vote, certificate, tuple(gap))

    def find_block(self, block_hash: bytes) -> BlockRef | None:
        """Genesis, or a block of its host's store."""
        if block_hash == self.means.genesis.hash:
            return self.means.genesis
        payload = self.means.get_payload(block_hash)
        return None if payload is None else self.means.read_block(payload)

    def find_peer(self, name: bytes) -> int:
        """Whose name this is, by index; -1: no validator's."""
        return self._indexes.get(name, -1)

    def send_to(self, peers: Iterable[int], *messages: Message) -> list[Effect]:
        return [Send(self.means.name_peer(peer), message) for peer in peers for message in messages]


def get_parent(block: BlockRef) -> BlockRef:
    """As much of a block's parent as its child tells."""
    height = max(0, block.height - 1)
    return BlockRef(block.parent_hash, block.epoch, block.parent_view, height, 0, bytes(32), 0)


def get_epoch(message: Message) -> int:
    """The epoch that a message is about."""
    match message:
        case Vote(subject) | Certificate(subject):
            return subject.epoch
        case Proposal(block):
            return block.epoch
        case CertificateRequest(epoch):
            return epoch


def get_view(message: Message) -> int:
    """The view that a message is about."""
    match message:
        case Vote(subject) | Certificate(subject):
            return subject.view
        case Proposal(block):
            return block.view
        case CertificateRequest(_, view, _):
            return view
