"""One engine on a bench: toy blocks and signatures, and short words for what is done to it."""

from __future__ import annotations

from collections.abc import Iterable

from consensus.bft.contract import (
    BlockBuilt,
    BlockFetched,
    BlockJudged,
    BlockRef,
    Broadcast,
    Build,
    Effect,
    Event,
    Finalize,
    Halt,
    Judge,
    Judgement,
    Message,
    Persist,
    Proposal,
    Received,
    Timer,
    TimerFired,
)
from consensus.bft.simplex import EngineConfig, SimplexEngine
from consensus.vote import FINALIZE, NO_BLOCK, NOTARIZE, NULLIFY, Certificate, Subject, Vote
from node.simulation import toys

PEER = b"\x07"
GENESIS = toys.GENESIS


class Bench:
    """An engine among `stakes`; with equal ones validator (view - 1) % n leads. Effects pile up in `log`."""

    def __init__(
        self, own: int | None = 3, stakes: tuple[int, ...] = (1, 1, 1, 1), **settings: object
    ) -> None:
        self.validators = toys.make_validators(stakes)
        self.own = own
        self.settings = settings
        self.log: list[Effect] = []
        self.payloads: dict[bytes, bytes] = {}
        self.engine = self.make_engine()

    def make_engine(self) -> SimplexEngine:
        config = EngineConfig(
            chain_id=toys.CHAIN_ID,
            epoch=toys.EPOCH,
            validators=self.validators,
            own_index=self.own,
            genesis=GENESIS,
            **self.settings,  # type: ignore[arg-type]
        )
        return SimplexEngine(config, None if self.own is None else self.sign_as(self.own))

    def sign_as(self, signer: int):
        key = self.validators.validators[signer].public_key
        return lambda digest: toys.sign(key, digest)

    # --- making things ---

    def vote(self, signer: int, kind: int, view: int, block: BlockRef | None = None) -> Vote:
        subject = Subject(toys.EPOCH, kind, view, NO_BLOCK if block is None else block.hash)
        return Vote(subject, signer, self.sign_as(signer)(subject.compute_digest(toys.CHAIN_ID)))

    def certificate(
        self, kind: int, view: int, block: BlockRef | None = None, signers: Iterable[int] = (0, 1, 2)
    ) -> Certificate:
        votes = [self.vote(signer, kind, view, block) for signer in signers]
        return Certificate(votes[0].subject, tuple((vote.signer, vote.signature) for vote in votes))

    def block(self, view: int, parent: BlockRef = GENESIS, salt: int = 0) -> BlockRef:
        leader = (view - 1) % len(self.validators)
        payload = toys.make_payload(parent, view, leader, salt)
        ref = toys.read_block(payload)
        self.payloads[ref.hash] = payload
        return ref

    def proposal(
        self, block: BlockRef, parent: Certificate | None = None, gap: Iterable[Certificate] = ()
    ) -> Proposal:
        vote = self.vote(block.proposer, NOTARIZE, block.view, block)
        return Proposal(block, self.payloads[block.hash], vote, parent, tuple(gap))

    # --- doing things ---

    def start(self, records: Iterable[Vote | Certificate | Proposal] = ()) -> list[Effect]:
        return self._take(self.engine.start(records))

    def step(self, event: Event) -> list[Effect]:
        return self._take(self.engine.step(event))

    def receive(self, *messages: Message, sender: bytes = PEER) -> list[Effect]:
        return [effect for message in messages for effect in self.step(Received(message, sender))]

    def judge(self, block: BlockRef, judgement: Judgement = Judgement.VALID) -> list[Effect]:
        return self.step(BlockJudged(block.hash, judgement))

    def fetch(self, block: BlockRef) -> list[Effect]:
        return self.step(BlockFetched(block, self.payloads[block.hash]))

    def fire(self, timer: Timer, view: int | None = None) -> list[Effect]:
        return self.step(TimerFired(timer, self.engine.view if view is None else view))

    def build(self, build: Build, salt: int = 0) -> tuple[BlockRef, list[Effect]]:
        block = self.block(build.view, build.parent, salt)
        return block, self.step(BlockBuilt(build.view, block, self.payloads[block.hash]))

    def restart(self) -> list[Effect]:
        """A new engine from what the old one persisted."""
        records = [effect.record for effect in self.log if isinstance(effect, Persist)]
        self.engine = self.make_engine()
        return self.start(records)

    def _take(self, effects: tuple[Effect, ...]) -> list[Effect]:
        self.log.extend(effects)
        return list(effects)

    # --- common walks ---

    def accept(self, block: BlockRef, parent: Certificate | None = None) -> list[Effect]:
        """The leader's proposal arrives and is judged valid."""
        return self.receive(self.proposal(block, parent)) + self.judge(block)

    def notarize(
        self, view: int, parent: BlockRef = GENESIS, certificate: Certificate | None = None
    ) -> BlockRef:
        """A block of `view` is proposed, judged valid and notarized by 0, 1 and 2."""
        block = self.block(view, parent)
        self.accept(block, certificate)
        self.receive(self.certificate(NOTARIZE, view, block))
        return block


def votes(effects: Iterable[Effect], kind: int | None = None) -> list[tuple[int, int]]:
    """(kind, view) of the votes broadcast, own proposals' included."""
    found = []
    for effect in effects:
        if isinstance(effect, Broadcast):
            message = effect.message.vote if isinstance(effect.message, Proposal) else effect.message
            if isinstance(message, Vote) and kind in (None, message.subject.kind):
                found.append((message.subject.kind, message.subject.view))
    return found


def of_type(effects: Iterable[Effect], kind: type[Effect]) -> list[Effect]:
    return [effect for effect in effects if isinstance(effect, kind)]


def broadcasts(effects: Iterable[Effect], kind: type[Message]) -> list[Message]:
    return [
        effect.message
        for effect in effects
        if isinstance(effect, Broadcast) and isinstance(effect.message, kind)
    ]


def builds(effects: Iterable[Effect]) -> list[Build]:
    return [effect for effect in effects if isinstance(effect, Build)]


def judges(effects: Iterable[Effect]) -> list[bytes]:
    return [effect.block.hash for effect in effects if isinstance(effect, Judge)]


def finals(effects: Iterable[Effect]) -> list[int]:
    return [effect.certificate.subject.view for effect in effects if isinstance(effect, Finalize)]


def is_halting(effects: Iterable[Effect]) -> bool:
    return any(isinstance(effect, Halt) for effect in effects)


__all__ = ["FINALIZE", "GENESIS", "NOTARIZE", "NULLIFY", "PEER", "Bench"]
