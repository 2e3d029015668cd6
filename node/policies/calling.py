"""Where a policy module's code runs: a thread of its own, so that the loop never waits for it.

Invariant: work of one module runs one piece at a time, in order. The thread is a daemon: a module that
never returns cannot keep the process from ending. It shares the interpreter with the loop, which gets its
turn every few milliseconds; code that holds the interpreter's lock for long belongs into a process of its own.
Leaves out: deadlines and what an answer means (attendant.py).
"""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol

Work = Callable[[], Any]


class PolicyError(Exception):
    """A policy module raised, or broke its contract. For people; never a sender's fault."""


class Caller(Protocol):
    """Runs one module's code somewhere."""

    def call(self, work: Work) -> asyncio.Future[Any]:
        """What `work` returns; PolicyError when it raises."""
        ...

    def close(self) -> None:
        """No more work comes; does not wait for what runs."""
        ...


class ThreadCaller:
    """One daemon thread, started with the first piece of work."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._queue: SimpleQueue[tuple[asyncio.Future[Any], Work] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self, work: Work) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        self._queue.put((future, work))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"policy {self._label}", daemon=True)
            self._thread.start()
        return future

    def close(self) -> None:
        self._queue.put(None)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            future, work = item
            result, error = run_guarded(work)
            loop = future.get_loop()
            try:
                loop.call_soon_threadsafe(settle, future, result, error)
            except RuntimeError:
                if not loop.is_closed():
                    raise
                return  # the node is gone, and nobody waits for an answer any more


def run_guarded(work: Work) -> tuple[Any, PolicyError | None]:
    """What it returns, or why it did not: whatever it raises, SystemExit too, is the module's failure."""
    try:
        return work(), None
    except BaseException as error:
        # Not by str(): that is the module's code too, and may raise.
        failure = PolicyError("".join(traceback.format_exception_only(error)).strip())
        failure.__cause__ = error
        return None, failure


def settle(future: asyncio.Future[Any], result: Any, error: PolicyError | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
