"""Villains that hold something back: they sign no lie, they only do less, later, or for fewer.

No evidence exists against them; finality must go on without them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from consensus.bft.contract import Broadcast, Effect, Event, Proposal, Send
from consensus.vote import NO_BLOCK, NULLIFY, Certificate, Vote
from node.simulation.villains.villain import Means, Villain

LATE_VIEWS: Final = 2  # a vote this late is useless for its own view, and must harm no other


class Silent(Villain):
    """Listens and says nothing at all."""

    def rewrite(self, effect: Effect) -> Iterable[Effect]:
        return () if isinstance(effect, Broadcast | Send) else (effect,)

    def answer_body(self, block_hash: bytes) -> bytes | None:  # noqa: ARG002 - as Villain has it
        return None


class SelectiveSender(Villain):
    """Speaks to half of the others, ever the same; the rest never hears from it directly."""

    def __init__(self, means: Means) -> None:
        super().__init__(means)
        self.friends = self.others[: (len(self.others) + 1) // 2]

    def rewrite(self, effect: Effect) -> Iterable[Effect]:
        match effect:
            case Broadcast(message):
                return self.send_to(self.friends, message)
            case Send(peer, _) if self.find_peer(peer) not in self.friends:
                return ()
            case _:
                return (effect,)


class Nullifier(Villain):
    """Nullifies each view as it enters it, its own too, and supports no block."""

    _nullified = 0

    def rewrite(self, effect: Effect) -> Iterable[Effect]:
        match effect:
            case Broadcast(Proposal() | Vote()):
                return ()
            case Broadcast(Certificate(_, pairs)) | Send(_, Certificate(_, pairs)) if self.index in dict(
                pairs
            ):
                return ()  # its own engine voted, and counted itself in
            case _:
                return (effect,)

    def add(self, event: Event) -> Iterable[Effect]:
        del event
        if self.view > self._nullified:
            self._nullified = self.view
            yield Broadcast(self.make_vote(NULLIFY, self.view, NO_BLOCK))


class VoteWithholder(Villain):
    """Proposes and relays like anybody, and keeps its votes to itself."""

    def rewrite(self, effect: Effect) -> Iterable[Effect]:
        match effect:
            case Broadcast(Vote()):
                return ()
            case Broadcast(Certificate(_, pairs)) | Send(_, Certificate(_, pairs)) if self.index in dict(
                pairs
            ):
                return ()  # made with its own vote
            case _:
                return (effect,)


class LateVoter(Villain):
    """Votes properly, two views too late."""

    def __init__(self, means: Means) -> None:
        super().__init__(means)
        self._held: list[Vote] = []

    def rewrite(self, effect: Effect) -> Iterable[Effect]:
        match effect:
            case Broadcast(Vote() as vote):
                self._held.append(vote)
                return ()
            case _:
                return (effect,)

    def add(self, event: Event) -> Iterable[Effect]:
        del event
        ripe = [vote for vote in self._held if vote.subject.view + LATE_VIEWS <= self.view]
        self._held = [vote for vote in self._held if vote.subject.view + LATE_VIEWS > self.view]
        return [Broadcast(vote) for vote in ripe]


class BodyWithholder(Villain):
    """Shows its blocks' headers and serves nobody a body."""

    def answer_body(self, block_hash: bytes) -> bytes | None:  # noqa: ARG002 - as Villain has it
        return None
