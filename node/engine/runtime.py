"""The loop around the engine: takes events, steps, makes records durable, then performs effects.

One turn drains what has arrived, steps the engine for each event, appends every record of those steps
to the journal with one sync, and only then performs the other effects in order: durable before audible
(consensus.md, What must survive a crash). A journal that cannot be synced ends the node: nothing unsynced may be said.

Invariant: `step` is called from one place, never reentrantly; events made by effects wait for the next
turn. Leaves out: what judging, building, fetching and finalising mean; those are the doors it is given.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol, assert_never

from consensus.bft import contract
from consensus.bft.contract import (
    Broadcast,
    Build,
    CancelTimer,
    Effect,
    Engine,
    Event,
    FetchBlock,
    FetchCertificate,
    Finalize,
    Halt,
    Judge,
    Persist,
    ReportEvidence,
    Send,
    SetTimer,
    Timer,
    TimerFired,
)
from consensus.bft.restore import Record

log = logging.getLogger("assay.runtime")

TURN_EVENTS_MAX: Final = 64  # a burst of votes shares one sync; a longer turn would delay timers
WAITING_EVENTS_MAX: Final = 256  # four turns, some 10 ms: then who reads a peer's frames waits


class RecordLog(Protocol):
    """The journal as the runtime needs it."""

    def append(self, records: Sequence[Record]) -> None: ...

    def sync(self) -> None: ...


class Host(Protocol):
    """What the node does with effects that are not the runtime's own. None of these may block."""

    def broadcast(self, message: contract.Message, peers_max: int | None) -> None: ...

    def send(self, peer: bytes, message: contract.Message) -> None: ...

    def fetch_certificate(self, fetch: FetchCertificate) -> None: ...

    def fetch_block(self, fetch: FetchBlock) -> None: ...

    def build(self, build: Build) -> None: ...

    def judge(self, judge: Judge) -> None: ...

    def finalize(self, finalize: Finalize) -> None: ...

    def report_evidence(self, report: ReportEvidence) -> None: ...

    def halt(self, halt: Halt) -> None: ...


class Runtime:
    """Drives one engine. Time is the running loop's; a simulated loop brings its own."""

    def __init__(
        self, engine: Engine, journal: RecordLog, host: Host, on_fault: Callable[[BaseException], None]
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._host = host
        self._on_fault = on_fault
        self._events: deque[Event] = deque()
        self._room = asyncio.Event()  # set while few events wait
        self._room.set()
        self._timers: dict[Timer, asyncio.TimerHandle] = {}
        self._turn_due = False
        self._started = False
        self._stopped = False

    def start(self, records: Iterable[Record]) -> None:
        """Restore the engine from its journal and perform its first effects."""
        self._perform(self._engine.start(records))
        self._started = True
        self._schedule_turn()

    def stop(self) -> None:
        """Take no further events; timers are cancelled."""
        self._stopped = True
        for handle in self._timers.values():
            handle.cancel()
        self._timers.clear()
        self._events.clear()
        self._room.set()

    async def wait_for_room(self) -> None:
        """For who posts what peers say: returns once few enough events wait, or none are taken any more.

        So a peer that talks without end is held by its own connection, and nothing waits long behind it. Never
        awaited by what the engine waits for.
        """
        await self._room.wait()

    def post(self, event: Event) -> None:
        """Hand the engine an event; it is stepped in this loop's next turn, and not before `start`."""
        if not self._stopped:
            self._events.append(event)
            if len(self._events) >= WAITING_EVENTS_MAX:
                self._room.clear()
            self._schedule_turn()

    def _schedule_turn(self) -> None:
        if self._events and self._started and not self._turn_due and not self._stopped:
            self._turn_due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_due = False
        effects: list[Effect] = []
        try:
            for _ in range(min(len(self._events), TURN_EVENTS_MAX)):
                effects.extend(self._engine.step(self._events.popleft()))
            if len(self._events) < WAITING_EVENTS_MAX:
                self._room.set()
            self._perform(effects)
        except Exception as error:  # the node must stop: it may not speak again with an unsure journal
            self.stop()
            self._on_fault(error)
            return
        self._schedule_turn()

    def _perform(self, effects: Sequence[Effect]) -> None:
        records = [effect.record for effect in effects if isinstance(effect, Persist)]
        if records:
            self._journal.append(records)
            self._journal.sync()
        host = self._host
        for effect in effects:
            if self._stopped:
                return  # an effect before this one brought a fault to light: not a word more
            match effect:
                case Persist():
                    pass  # done above, for all of this turn at once
                case Broadcast(message, peers_max):
                    host.broadcast(message, peers_max)
                case Send(peer, message):
                    host.send(peer, message)
                case FetchCertificate():
                    host.fetch_certificate(effect)
                case FetchBlock():
                    host.fetch_block(effect)
                case Build():
                    host.build(effect)
                case Judge():
                    host.judge(effect)
                case SetTimer(timer, view, delay_ms):
                    self._set_timer(timer, view, delay_ms)
                case CancelTimer(timer):
                    handle = self._timers.pop(timer, None)
                    if handle is not None:
                        handle.cancel()
                case Finalize():
                    host.finalize(effect)
                case ReportEvidence():
                    host.report_evidence(effect)
                case Halt():
                    host.halt(effect)
                case _:
                    assert_never(effect)

    def _set_timer(self, timer: Timer, view: int, delay_ms: int) -> None:
        earlier = self._timers.pop(timer, None)
        if earlier is not None:
            earlier.cancel()
        loop = asyncio.get_running_loop()
        self._timers[timer] = loop.call_later(delay_ms / 1_000, self.post, TimerFired(timer, view))
