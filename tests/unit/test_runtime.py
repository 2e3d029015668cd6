"""The loop around the engine: durable before audible, effects in order, timers, and silence after a fault."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from consensus.bft.contract import (
    Broadcast,
    CancelTimer,
    CertificateRequest,
    Effect,
    Event,
    Persist,
    Send,
    SetTimer,
    Timer,
    TimerFired,
    WorkWaiting,
)
from consensus.bft.restore import Record
from consensus.errors import Fault
from consensus.vote import NOTARIZE, Subject, Vote
from node.engine.runtime import TURN_EVENTS_MAX, WAITING_EVENTS_MAX, Runtime

REQUEST = CertificateRequest(0, 1, NOTARIZE)
RECORD = Vote(Subject(0, NOTARIZE, 1, bytes(32)), 0, bytes(64))


class World:
    """Engine, journal and host in one: `log` is what happened, in order."""

    view = finalized_view = 0

    def __init__(self, answer: Callable[[Event], Sequence[Effect]] = lambda event: ()) -> None:
        self.log: list[Any] = []
        self.answer = answer
        self.faults: list[BaseException] = []
        self.is_disk_broken = False
        self.runtime = Runtime(self, self, self, self.faults.append)  # type: ignore[arg-type]

    # engine
    def start(self, records: Iterable[Record]) -> tuple[Effect, ...]:
        self.log.append("start")
        return ()

    def step(self, event: Event) -> tuple[Effect, ...]:
        self.log.append(event)
        return tuple(self.answer(event))

    # journal
    def append(self, records: Sequence[Record]) -> None:
        self.log.append(("append", len(records)))

    def sync(self) -> None:
        if self.is_disk_broken:
            raise Fault("cannot make it durable", field="disk")
        self.log.append("sync")

    # host
    def broadcast(self, message: object, peers_max: int | None) -> None:
        self.log.append("broadcast")

    def send(self, peer: bytes, message: object) -> None:
        self.log.append(("send", peer))

    async def run(self) -> list[Any]:
        """What happened since the last call."""
        for _ in range(20):
            await asyncio.sleep(0)
        log, self.log = self.log, []
        return log


async def test_all_records_of_a_turn_share_one_sync_that_comes_before_every_word() -> None:
    world = World(lambda event: [Broadcast(REQUEST), Persist(RECORD), Send(b"p", REQUEST)])
    world.runtime.start(())
    for view in range(3):
        world.runtime.post(TimerFired(Timer.RETRY, view))
    said = ["broadcast", ("send", b"p")]
    assert (await world.run())[4:] == [("append", 3), "sync", *said, *said, *said]


async def test_a_turn_without_records_syncs_nothing() -> None:
    world = World(lambda event: [Broadcast(REQUEST)])
    world.runtime.start(())
    world.runtime.post(WorkWaiting())
    assert await world.run() == ["start", WorkWaiting(), "broadcast"]


async def test_events_posted_before_the_start_are_stepped_after_it() -> None:
    world = World()
    world.runtime.post(WorkWaiting())
    assert await world.run() == []
    world.runtime.start(())
    assert await world.run() == ["start", WorkWaiting()]


async def test_events_that_effects_make_wait_for_the_next_turn() -> None:
    world = World()
    second = TimerFired(Timer.RETRY, 9)
    world.answer = lambda event: [Broadcast(REQUEST), Send(b"p", REQUEST)] if event == WorkWaiting() else []
    world.broadcast = lambda message, peers_max: world.runtime.post(second)  # type: ignore[method-assign]
    world.runtime.start(())
    world.runtime.post(WorkWaiting())
    assert await world.run() == ["start", WorkWaiting(), ("send", b"p"), second]


async def test_a_burst_is_cut_into_turns_and_nothing_is_lost() -> None:
    world = World(lambda event: [Persist(RECORD)])
    world.runtime.start(())
    count = 2 * TURN_EVENTS_MAX + 3
    for view in range(count):
        world.runtime.post(TimerFired(Timer.RETRY, view))
    log = await world.run()
    assert [entry.view for entry in log if isinstance(entry, TimerFired)] == list(range(count))
    assert log.count("sync") == 3


async def test_after_a_failed_sync_nothing_is_sent_stepped_or_timed_any_more() -> None:
    world = World(lambda event: [Persist(RECORD), Broadcast(REQUEST), SetTimer(Timer.RETRY, 1, 0)])
    world.runtime.start(())
    world.is_disk_broken = True
    world.runtime.post(WorkWaiting())
    world.runtime.post(WorkWaiting())
    log = await world.run()
    assert "broadcast" not in log
    assert [type(fault) for fault in world.faults] == [Fault]
    world.runtime.post(WorkWaiting())
    await asyncio.sleep(0.01)  # a timer would have fired by now
    assert await world.run() == []


async def test_a_fault_that_an_effect_brings_to_light_ends_the_turn() -> None:
    world = World(lambda event: [Send(b"p", REQUEST), Broadcast(REQUEST)])
    world.send = lambda peer, message: world.runtime.stop()  # type: ignore[method-assign]
    world.runtime.start(())
    world.runtime.post(WorkWaiting())
    assert "broadcast" not in await world.run()


async def test_an_effect_that_raises_is_our_fault_and_stops_the_engine() -> None:
    world = World(lambda event: [Send(b"p", REQUEST), Broadcast(REQUEST)])

    def fail(peer: bytes, message: object) -> None:
        raise KeyError("ours")

    world.send = fail  # type: ignore[method-assign]
    world.runtime.start(())
    world.runtime.post(WorkWaiting())
    assert "broadcast" not in await world.run()
    assert [type(fault) for fault in world.faults] == [KeyError]


async def test_a_timer_fires_with_the_view_it_was_set_for() -> None:
    world = World(lambda event: [SetTimer(Timer.LEADER, 7, 1)] if event == WorkWaiting() else [])
    world.runtime.start(())
    world.runtime.post(WorkWaiting())
    await asyncio.sleep(0.02)
    assert TimerFired(Timer.LEADER, 7) in await world.run()


async def test_a_timer_that_is_set_again_replaces_the_earlier_one() -> None:
    world = World(
        lambda event: (
            [SetTimer(Timer.LEADER, 1, 1), SetTimer(Timer.LEADER, 2, 2), SetTimer(Timer.ADVANCE, 3, 1)]
            if event == WorkWaiting()
            else []
        )
    )
    world.runtime.start(())
    world.runtime.post(WorkWaiting())
    await asyncio.sleep(0.02)
    fired = [event for event in await world.run() if isinstance(event, TimerFired)]
    assert sorted(event.view for event in fired) == [2, 3]


async def test_a_cancelled_timer_stays_silent_and_cancelling_none_is_harmless() -> None:
    world = World(
        lambda event: (
            [SetTimer(Timer.LEADER, 1, 1), CancelTimer(Timer.LEADER), CancelTimer(Timer.RETRY)]
            if event == WorkWaiting()
            else []
        )
    )
    world.runtime.start(())
    world.runtime.post(WorkWaiting())
    await asyncio.sleep(0.01)
    assert await world.run() == ["start", WorkWaiting()]
    assert world.faults == []


async def test_stopping_cancels_timers_and_drops_what_waits() -> None:
    world = World(lambda event: [SetTimer(Timer.LEADER, 1, 1)] if event == WorkWaiting() else [])
    world.runtime.start(())
    world.runtime.post(WorkWaiting())
    await world.run()
    world.runtime.post(WorkWaiting())
    world.runtime.stop()
    await asyncio.sleep(0.01)
    assert await world.run() == []


async def test_who_posts_what_peers_say_waits_while_much_is_unstepped_and_not_after_the_end() -> None:
    world = World()
    for view in range(WAITING_EVENTS_MAX):
        world.runtime.post(TimerFired(Timer.RETRY, view))
    waiting = asyncio.ensure_future(world.runtime.wait_for_room())
    await world.run()
    assert not waiting.done()  # nothing is stepped before the start
    world.runtime.start(())
    await waiting
    for view in range(2 * WAITING_EVENTS_MAX):
        world.runtime.post(TimerFired(Timer.RETRY, view))
    waiting = asyncio.ensure_future(world.runtime.wait_for_room())
    world.runtime.stop()
    await waiting
