"""An asyncio event loop whose time and order are the world's: one for each simulated process.

Turns and timers are events of the world, so that every task of every node runs in an order that the seed
decides. Threads are made of virtual time too: what is handed to an executor runs inline, 1 ms later.

Invariant: a turn runs what was ready when it began, in order, as asyncio does. After `kill` nothing of this
process runs again: what waited is dropped, open coroutines are closed in the order of their creation.
A paused process does nothing; what became due meanwhile waits for it, in order.
Leaves out: sockets, pipes, signals and child processes, which raise NotImplementedError.
"""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from math import ceil
from typing import Any, Final, Protocol, TypeVar

from node.simulation.process_disk import EndedProcessError
from node.simulation.world import Crash

THREAD_MS: Final = 1  # what handing work to a thread and back costs
TASKS_KEPT_MIN: Final = 64  # finished ones among them are swept out when there are so many

_Result = TypeVar("_Result")


class Time(Protocol):
    """The world, as a loop needs it."""

    now_ms: int

    def push(self, delay_ms: int, act: Callable[..., None], arguments: tuple[Any, ...]) -> None: ...


class InlineExecutor(Executor):
    """Runs what is submitted at once, on the caller's time."""

    def submit(self, function: Callable[..., _Result], /, *arguments: Any, **named: Any) -> Future[_Result]:
        future: Future[_Result] = Future()
        try:
            future.set_result(function(*arguments, **named))
        except Exception as error:
            future.set_exception(error)
        return future


class VirtualLoop(asyncio.AbstractEventLoop):
    """`on_error(text)` hears of what nobody caught; `on_turn()` is called after every turn, outside of it."""

    def __init__(
        self,
        time: Time,
        on_error: Callable[[str], None],
        on_turn: Callable[[], None] | None = None,
    ) -> None:
        self.is_dead = False
        self.is_paused = False
        self._time = time
        self._on_error = on_error
        self._on_turn = on_turn
        self._ready: deque[asyncio.Handle] = deque()
        self._is_turn_due = False
        self._tasks: list[asyncio.Task[Any]] = []  # in order of creation
        self._tasks_kept_max = TASKS_KEPT_MIN

    # --- the process ----------------------------------------------------------------------------------

    def kill(self) -> None:
        """The process ends at once. The task that runs now, if one does, must end by Crash."""
        if self.is_dead:
            return
        self.is_dead = True
        self._ready.clear()
        running = events._get_running_loop()
        current = asyncio.current_task(self)
        tasks, self._tasks = self._tasks, []
        events._set_running_loop(self)
        try:
            for task in tasks:
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                if task.done():
                    task._log_traceback = False
                elif task is not current:
                    _close(task.get_coro())
        finally:
            events._set_running_loop(running)

    def pause(self) -> None:
        """The process stops, as by SIGSTOP; what comes meanwhile waits."""
        self.is_paused = True

    def unpause(self) -> None:
        self.is_paused = False
        self._wake()

    def list_failures(self) -> list[str]:
        """Tasks that ended by an error which nobody has looked at, so far."""
        return [
            _describe(task.get_name(), task._exception)
            for task in self._tasks
            if task.done() and task._log_traceback
        ]

    def list_pending(self) -> list[asyncio.Task[Any]]:
        """Tasks that have not ended, in the order of their creation."""
        return [task for task in self._tasks if not task.done()]

    def _wake(self) -> None:
        if self._ready and not self._is_turn_due and not self.is_paused:
            self._is_turn_due = True
            self._time.push(0, self._turn, ())

    def _turn(self) -> None:
        self._is_turn_due = False
        if self.is_dead or self.is_paused:
            return
        ready = self._ready
        events._set_running_loop(self)
        try:
            for _ in range(len(ready)):
                if not ready or self.is_paused:
                    break  # ended, or stopped, by itself
                handle = ready.popleft()
                if not handle._cancelled:
                    handle._run()
        finally:
            events._set_running_loop(None)
        if not self.is_dead and self._on_turn is not None:
            self._on_turn()
        self._wake()

    # --- callbacks and timers -------------------------------------------------------------------------

    def call_soon(  # type: ignore[override]
        self,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self.is_dead:
            self._ready.append(handle)
            if not self._is_turn_due:
                self._wake()
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        if not self.is_dead:
            # The first ms at which `time()` is not before `when`: a timer that fires early is asked for again.
            at_ms = ceil(when * 1_000 - 1e-6)
            if at_ms / 1_000 < when:
                at_ms += 1
            self._time.push(max(0, at_ms - self._time.now_ms), self._fire, (handle,))
        return handle

    def _fire(self, handle: asyncio.TimerHandle) -> None:
        if not self.is_dead and not handle._cancelled:
            self._ready.append(handle)
            if not self._is_turn_due:
                self._wake()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass  # it stays in the world's queue, and does nothing there

    def time(self) -> float:
        return self._time.now_ms / 1_000

    # --- tasks and threads ----------------------------------------------------------------------------

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, _Result],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[_Result]:
        # Python's own names are numbered over the whole process: not the same in every run.
        name = name or getattr(coro, "__qualname__", "task")
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        if self.is_dead:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            _close(coro)
            return task
        self._tasks.append(task)
        if len(self._tasks) > self._tasks_kept_max:
            self._sweep()
        return task

    def _sweep(self) -> None:
        # Failures are kept: when the collector would tell of them is not the seed's choice.
        self._tasks = [task for task in self._tasks if not task.done() or task._log_traceback]
        self._tasks_kept_max = max(TASKS_KEPT_MIN, 2 * len(self._tasks))

    def run_in_executor(  # type: ignore[override]
        self,
        executor: Any,  # noqa: ARG002 - there is one time for all
        func: Callable[..., _Result],
        *args: Any,
    ) -> asyncio.Future[_Result]:
        future: asyncio.Future[_Result] = self.create_future()
        self._time.push(THREAD_MS, self._run_thread, (future, func, args))
        return future

    def _run_thread(
        self, future: asyncio.Future[_Result], func: Callable[..., _Result], args: tuple[Any, ...]
    ) -> None:
        if self.is_dead:
            return
        try:
            result = func(*args)
        except Exception as error:
            if not future.done():
                future.set_exception(error)
        except Crash:
            return
        else:
            if not future.done():
                future.set_result(result)

    # --- what went wrong ------------------------------------------------------------------------------

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not self.is_dead and not isinstance(error, Crash):
            self._on_error(_describe(context.get("message", ""), error))

    default_exception_handler = call_exception_handler

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return events._get_running_loop() is self

    def is_closed(self) -> bool:
        return self.is_dead


def _close(coroutine: Any) -> None:
    """Unwind it; what it says about that, nobody hears: the process is gone."""
    try:
        coroutine.close()
    except (Exception, Crash, EndedProcessError):
        return


def _describe(what: str, error: BaseException | None) -> str:
    if error is None:
        return f"unhandled: {what}"
    frame, place = error.__traceback__, ""
    while frame is not None:
        code = frame.tb_frame.f_code
        place = f" in {code.co_qualname}"
        frame = frame.tb_next
    return f"unhandled: {type(error).__name__}: {error}{place}"
