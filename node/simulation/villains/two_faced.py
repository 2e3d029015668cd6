"""Villains that say one thing to some and another to others: equivocation, and one key on two machines.

All their signatures are genuine, so honest nodes can only catch them by evidence. Sources: Bano et al.,
"Twins: BFT Systems Made Robust" (2021) for the double identity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final, cast

from consensus import crypto
from consensus.bft.contract import (
    BlockBuilt,
    Broadcast,
    Build,
    CancelTimer,
    Effect,
    Event,
    Persist,
    Proposal,
    Received,
    Send,
    SetTimer,
    Timer,
    TimerFired,
)
from consensus.bft.restore import Record
from consensus.vote import FINALIZE, NO_BLOCK, NOTARIZE, NULLIFY, Vote
from node.simulation.villains.villain import Means, Villain, get_parent, get_view


class EquivocatingLeader(Villain):
    """Leading, it shows one block to some and another to the rest, and votes for both.

    Half of the time the other block forgets all that came after the last final one.
    """

    def rewrite(self, effect: Effect) -> Iterable[Effect]:
        match effect:
            case Broadcast(Proposal() as proposal):
                return self.show_two_faces(proposal)
            case _:
                return (effect,)

    def show_two_faces(self, proposal: Proposal) -> list[Effect]:
        second = self.make_second(proposal) or proposal
        effects: list[Effect] = []
        for peer in self.others:
            faces = self.rng.choice([(proposal,), (second,), (proposal, second), (second, proposal)])
            effects += self.send_to([peer], *faces)
        return effects

    def make_second(self, proposal: Proposal) -> Proposal | None:
        parent = get_parent(proposal.block)
        certificate, gap = proposal.parent_certificate, proposal.nullifications
        final = self.find_block(self.engine.finalized_hash)
        if self.rng.random() < 0.5 and final is not None:
            parent, certificate, gap = final, self.engine.finalization, ()
        return self.make_proposal(parent, proposal.block.view, certificate, gap)


class EquivocatingVoter(Villain):
    """Votes for every block anybody shows, and for one that nobody has; nullifies what it finalizes."""

    def rewrite(self, effect: Effect) -> Iterable[Effect]:
        match effect:
            case Broadcast(Vote() as vote) if vote.subject.kind == NOTARIZE:
                return (effect, Broadcast(self.make_vote(NOTARIZE, vote.subject.view, self.invent_hash())))
            case Broadcast(Vote() as vote) if vote.subject.kind == FINALIZE:
                return (effect, Broadcast(self.make_vote(NULLIFY, vote.subject.view, NO_BLOCK)))
            case _:
                return (effect,)

    def add(self, event: Event) -> Iterable[Effect]:
        if isinstance(event, Received) and isinstance(event.message, Proposal):
            block = event.message.block
            if block.proposer != self.index and self.rng.random() < 0.5:
                return [Broadcast(self.make_vote(NOTARIZE, block.view, block.hash))]
        return ()

    def invent_hash(self) -> bytes:
        return crypto.hash_bytes(self.rng.randbytes(8))


class Equivocator(EquivocatingLeader, EquivocatingVoter):
    """Two-faced as leader and as voter."""

    def rewrite(self, effect: Effect) -> Iterable[Effect]:
        if isinstance(effect, Broadcast) and isinstance(effect.message, Proposal):
            return EquivocatingLeader.rewrite(self, effect)
        return EquivocatingVoter.rewrite(self, effect)


class SecondTimer(Enum):
    """The second machine's timers: the host tells timers apart by name."""

    LEADER = "second leader"
    ADVANCE = "second advance"
    RETRY = "second retry"
    STANDSTILL = "second standstill"
    INTERVAL = "second interval"


_SECOND: Final = {timer: SecondTimer[timer.name] for timer in Timer}

# (machine 0 or 1, peer, view of the message) -> whether they hear each other about this view
Split = Callable[[int, int, int], bool]


def split_evenly(machine: int, peer: int, view: int) -> bool:  # noqa: ARG001 - as Split has it
    """Even peers know the first machine, odd ones the second."""
    return peer % 2 == machine


class DoubleIdentity(Villain):
    """Two honest engines with one key (Twins). Neither hears the other; each thinks it is alone."""

    def __init__(self, means: Means, split: Split = split_evenly) -> None:
        super().__init__(means)
        self.engines = (self.engine, means.make_engine())
        self.split = split
        self._builds: list[tuple[int, int, bytes]] = []  # machine, view, parent: asked for, not built yet

    @property
    def view(self) -> int:
        return max(engine.view for engine in self.engines)

    @property
    def finalized_view(self) -> int:
        return max(engine.finalized_view for engine in self.engines)

    def start(self, records: Iterable[Record]) -> tuple[Effect, ...]:
        del records  # its journals are its own affair: neither machine ever restarts
        return tuple(
            lie
            for machine, engine in enumerate(self.engines)
            for effect in engine.start(())
            for lie in self._route(machine, effect)
        )

    def step(self, event: Event) -> tuple[Effect, ...]:
        effects: list[Effect] = []
        for machine in self._choose_machines(event):
            mine: Event = event
            if isinstance(event, TimerFired):
                mine = TimerFired(Timer[event.timer.name], event.view)
            for effect in self._disguise(self.engines[machine].step(mine)):
                effects += self._route(machine, effect)
        return tuple(effects)

    def _choose_machines(self, event: Event) -> tuple[int, ...]:
        match event:
            case Received(message, sender):
                view = get_view(message)
                return tuple(
                    machine for machine in (0, 1) if self.split(machine, self.find_peer(sender), view)
                )
            case TimerFired(timer):
                return (0,) if isinstance(timer, Timer) else (1,)
            case BlockBuilt(view, block):
                for asked in self._builds:
                    if asked[1] == view and (block is None or asked[2] == block.parent_hash):
                        self._builds.remove(asked)
                        return (asked[0],)
                return ()
            case _:
                return (0, 1)

    def _route(self, machine: int, effect: Effect) -> Iterable[Effect]:
        match effect:
            case Broadcast(message):
                view = get_view(message)
                return self.send_to((p for p in self.others if self.split(machine, p, view)), message)
            case Send(peer, message):
                return (effect,) if self.split(machine, self.find_peer(peer), get_view(message)) else ()
            case Persist():
                return ()
            case Build():
                self._builds.append((machine, effect.view, effect.parent.hash))
                return (effect,)
            case SetTimer(timer, view, delay_ms) if machine == 1:
                return (SetTimer(cast(Any, _SECOND[timer]), view, delay_ms),)
            case CancelTimer(timer) if machine == 1:
                return (CancelTimer(cast(Any, _SECOND[timer])),)
            case _:
                return (effect,)
