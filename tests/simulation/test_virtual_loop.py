"""The virtual loop: asyncio as the world's clock has it, and processes that end without a last word."""

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from node.simulation.full_nodes.loop import InlineExecutor, VirtualLoop
from node.simulation.world import Crash


class Clockwork:
    """A world's time, and nothing else of it."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.errors: list[str] = []
        self._queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._tokens = 0

    def push(self, delay_ms: int, act: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        assert delay_ms >= 0
        self._tokens += 1
        heapq.heappush(self._queue, (self.now_ms + delay_ms, self._tokens, act, arguments))

    def run(self, until_ms: int = 1_000_000) -> None:
        while self._queue and self._queue[0][0] <= until_ms:
            self.now_ms, _, act, arguments = heapq.heappop(self._queue)
            act(*arguments)

    def early(self, loop: VirtualLoop, when: float) -> None:
        if loop.time() < when:
            self.errors.append(f"{when} has not come at {loop.time()}")

    def make_loop(self) -> VirtualLoop:
        return VirtualLoop(self, self.errors.append)  # type: ignore[abstract]


@pytest.fixture
def time() -> Clockwork:
    return Clockwork()


def run(time: Clockwork, work: Coroutine[Any, Any, Any]) -> Any:
    """Run it to its end in a loop of its own; its result, or its error raised."""
    task = time.make_loop().create_task(work)
    time.run()
    return task.result()


# --- asyncio as it is used ----------------------------------------------------------------------------


def test_callbacks_run_in_the_order_of_their_calls_and_new_ones_in_the_next_turn(time: Clockwork) -> None:
    loop, seen = time.make_loop(), []

    def first() -> None:
        seen.append("first")
        loop.call_soon(seen.append, "third")

    loop.call_soon(first)
    loop.call_soon(seen.append, "second")
    time.run()
    assert (seen, time.now_ms) == (["first", "second", "third"], 0)


def test_loops_take_turns_in_the_order_of_the_world(time: Clockwork) -> None:
    seen: list[str] = []

    async def count(name: str) -> None:
        for number in range(3):
            seen.append(f"{name}{number}")
            await asyncio.sleep(0)

    for name in "ab":
        time.make_loop().create_task(count(name))
    time.run()
    assert seen == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_timers_fire_when_the_world_says_so_and_cancelled_ones_never(time: Clockwork) -> None:
    loop, seen = time.make_loop(), []
    for delay in (0.3, 0.1, 0.2):
        loop.call_later(delay, lambda delay=delay: seen.append((delay, time.now_ms, loop.time())))
    loop.call_later(0.15, seen.append, "never").cancel()
    time.run()
    assert seen == [(0.1, 100, 0.1), (0.2, 200, 0.2), (0.3, 300, 0.3)]


@pytest.mark.parametrize("start_ms", [0, 1, 930, 1_001, 123_457])
def test_a_timer_is_never_early_and_at_most_a_ms_late(time: Clockwork, start_ms: int) -> None:
    time.now_ms = start_ms
    loop, delays = time.make_loop(), (0.0001, 0.1, 0.299, 0.3, 0.7, 1.0)
    seen: list[int] = []
    for delay in delays:
        when = loop.time() + delay
        loop.call_later(delay, lambda when=when: seen.append(time.now_ms) or time.early(loop, when))
    time.run()
    lateness = [at_ms - start_ms - delay * 1_000 for at_ms, delay in zip(seen, delays, strict=True)]
    assert all(-1e-6 < late < 1 + 1e-6 for late in lateness)
    assert time.errors == []


def test_sleep_takes_simulated_time(time: Clockwork) -> None:
    async def work() -> float:
        await asyncio.sleep(12.5)
        return asyncio.get_running_loop().time()

    assert run(time, work()) == 12.5


def test_a_timeout_strikes_at_its_time(time: Clockwork) -> None:
    async def work() -> int:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await asyncio.Event().wait()
        return time.now_ms

    assert run(time, work()) == 300


def test_events_wake_all_who_wait_in_their_order(time: Clockwork) -> None:
    async def work() -> list[int]:
        event, woken = asyncio.Event(), []

        async def wait(number: int) -> None:
            await event.wait()
            woken.append(number)

        tasks = [asyncio.create_task(wait(number)) for number in range(5)]
        await asyncio.sleep(0.01)
        event.set()
        await asyncio.gather(*tasks)
        return woken

    assert run(time, work()) == [0, 1, 2, 3, 4]


def test_gather_and_wait_collect_what_tasks_return(time: Clockwork) -> None:
    async def answer(number: int) -> int:
        await asyncio.sleep(1 - number / 10)
        return number

    async def work() -> list[int]:
        done, _ = await asyncio.wait(
            [asyncio.create_task(answer(number)) for number in range(3)], return_when=asyncio.FIRST_COMPLETED
        )
        return [*await asyncio.gather(*map(answer, range(4))), *(task.result() for task in done)]

    assert run(time, work()) == [0, 1, 2, 3, 2]


def test_a_shielded_future_outlives_its_waiter(time: Clockwork) -> None:
    async def work() -> str:
        future = asyncio.get_running_loop().create_future()

        async def wait() -> str:
            return str(await asyncio.shield(future))

        first, second = asyncio.create_task(wait()), asyncio.create_task(wait())
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        future.set_result("here")
        with pytest.raises(asyncio.CancelledError):
            await first
        return await second

    assert run(time, work()) == "here"


def test_a_thread_is_virtual_too(time: Clockwork) -> None:
    async def work() -> tuple[str, int]:
        return await asyncio.to_thread("".join, "abc"), time.now_ms

    assert run(time, work()) == ("abc", 1)


def test_an_error_in_a_thread_is_raised_to_who_waits(time: Clockwork) -> None:
    async def work() -> None:
        with pytest.raises(ValueError, match="invalid literal"):
            await asyncio.to_thread(int, "x")

    run(time, work())


def test_the_inline_executor_has_the_answer_at_once() -> None:
    executor = InlineExecutor()
    assert executor.submit(pow, 2, 10).result() == 1_024
    assert isinstance(executor.submit(int, "x").exception(), ValueError)


def test_names_of_tasks_are_those_of_their_work(time: Clockwork) -> None:
    async def work() -> None:
        pass

    assert time.make_loop().create_task(work()).get_name().endswith("work")
    time.run()


# --- what nobody caught -------------------------------------------------------------------------------


def test_an_error_in_a_callback_is_told_with_its_place(time: Clockwork) -> None:
    def fail() -> None:
        raise ValueError("no")

    time.make_loop().call_soon(fail)
    time.run()
    assert len(time.errors) == 1
    assert time.errors[0].startswith("unhandled: ValueError: no in ")
    assert time.errors[0].endswith("fail")


def test_a_failed_task_that_nobody_looks_at_is_told(time: Clockwork) -> None:
    async def fail() -> None:
        raise ValueError("no")

    loop = time.make_loop()
    task = loop.create_task(fail())
    time.run()
    assert [text.split(" in ")[0] for text in loop.list_failures()] == ["unhandled: ValueError: no"]
    assert isinstance(task.exception(), ValueError)
    assert loop.list_failures() == []


# --- processes that end -------------------------------------------------------------------------------


def test_nothing_of_a_dead_process_acts_afterwards(time: Clockwork) -> None:
    loop, seen = time.make_loop(), []

    async def work() -> None:
        try:
            await asyncio.sleep(1)
            seen.append("slept")
        finally:
            seen.append("closed")
            asyncio.get_running_loop().call_soon(seen.append, "a callback after the end")
            asyncio.get_running_loop().create_task(work())

    loop.create_task(work())
    loop.call_later(0.7, seen.append, "a timer")
    time.run(500)
    loop.call_soon(seen.append, "ready")
    loop.kill()
    loop.call_soon(seen.append, "called after the end")
    time.run()
    assert (seen, time.errors) == (["closed"], [])


def test_open_tasks_are_closed_in_the_order_of_their_creation(time: Clockwork) -> None:
    loop, seen = time.make_loop(), []

    async def work(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append(number)

    for number in range(100):
        loop.create_task(work(number))
    time.run()
    loop.kill()
    assert seen == list(range(100))
    assert loop.list_pending() == []


def test_a_process_that_ends_within_a_task_runs_nothing_after_it(time: Clockwork) -> None:
    loop, seen = time.make_loop(), []

    async def die() -> None:
        try:
            loop.call_soon(seen.append, "ready")
            loop.kill()
            raise Crash
        except Exception:
            seen.append("caught")

    async def stand_by() -> None:
        try:
            await asyncio.sleep(9)
        except Exception:
            seen.append("told")

    loop.create_task(stand_by())
    loop.create_task(die())
    time.run()
    assert (seen, time.errors, loop.list_failures()) == ([], [], [])


def test_what_fails_while_it_is_closed_is_no_news(time: Clockwork) -> None:
    loop = time.make_loop()

    async def work() -> None:
        try:
            await asyncio.sleep(9)
        finally:
            raise OSError("the disk is gone")

    loop.create_task(work())
    time.run(10)
    loop.kill()
    assert time.errors == []


def test_a_thread_of_a_dead_process_does_nothing(time: Clockwork) -> None:
    loop, seen = time.make_loop(), []

    async def work() -> None:
        await asyncio.to_thread(seen.append, "done")

    loop.create_task(work())
    time.run(0)
    loop.kill()
    time.run()
    assert seen == []


# --- processes that stop and go on --------------------------------------------------------------------


def test_a_paused_process_does_nothing_and_then_all_that_waited_in_order(time: Clockwork) -> None:
    loop, seen = time.make_loop(), []
    loop.call_later(0.1, lambda: seen.append(("timer 1", time.now_ms)))
    loop.call_later(0.2, lambda: seen.append(("timer 2", time.now_ms)))
    loop.call_later(0.6, lambda: seen.append(("timer 3", time.now_ms)))
    loop.pause()
    time.push(150, lambda: loop.call_soon(lambda: seen.append(("call", time.now_ms))), ())
    time.run(499)
    assert seen == []
    time.now_ms = 500
    loop.unpause()
    time.run()
    assert seen == [("timer 1", 500), ("call", 500), ("timer 2", 500), ("timer 3", 600)]


def test_a_paused_process_can_be_killed(time: Clockwork) -> None:
    loop, seen = time.make_loop(), []
    loop.call_soon(seen.append, "ready")
    loop.pause()
    loop.kill()
    loop.unpause()
    time.run()
    assert seen == []
