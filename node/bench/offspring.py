"""Processes that a measurement starts: begun, ended, and never left behind.

A program of ours in a session of its own (a terminal's Ctrl-C reaches the bench, which ends it), or a
function in a fresh interpreter (so that what it measures is not the bench's own memory). Invariant: each
ends with the block that started it, and on Linux also when the bench is killed. Only processes started
here are signalled, by their ids.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from consensus.errors import Fault
from node.bench.stopwatch import monotonic_s, pause

START_SECONDS_MAX: Final = 60.0
STOP_SECONDS_MAX: Final = 30.0  # localnet itself kills what does not end within ten
APART_SECONDS_MAX: Final = 600.0  # a history of 100,000 blocks; the rows of the table take seconds
LOOK_S: Final = 0.01
LOG_LINES_TOLD: Final = 3
_PR_SET_PDEATHSIG: Final = 1  # prctl(2), Linux


@contextmanager
def run_child(command: Sequence[str], log: Path) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """A program and when it was started; it gets SIGTERM at the end of the block. Output goes to `log`."""
    with log.open("ab") as output:
        started_s = monotonic_s()
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=partial(end_with, os.getpid()),  # noqa: PLW1509 - no threads run here
        )
    try:
        yield child, started_s
    finally:
        end_child(child)


def end_child(child: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL if that is not enough; a second Ctrl-C does not cut it short."""
    earlier = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with suppress(ProcessLookupError):
            child.terminate()
        try:
            child.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    finally:
        signal.signal(signal.SIGINT, earlier)


def wait_until(what: str, ask: Callable[[], bool], child: subprocess.Popen[bytes], log: Path) -> None:
    """Until `ask()` is true. Raises Fault when the child ends before, or it takes too long."""
    deadline_s = monotonic_s() + START_SECONDS_MAX
    while not ask():
        if child.poll() is not None:
            raise Fault(f"ended before it was up ({read_tail(log)})", field=what)
        if monotonic_s() > deadline_s:
            raise Fault(f"was not up within {START_SECONDS_MAX:.0f} s ({read_tail(log)})", field=what)
        pause(LOOK_S)


def read_tail(log: Path) -> str:
    """The last lines that a child printed, as one."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES_TOLD:]
    return " / ".join(line.strip() for line in lines if line.strip()) or "it printed nothing"


def run_apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """What `work` answers in a fresh process, which is ended whatever happens. Raises Fault."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_answer, args=(work, theirs, arguments), daemon=True)
    process.start()
    theirs.close()
    name = work.__name__.removeprefix("_")
    try:
        if not ours.poll(APART_SECONDS_MAX):
            raise Fault(f"took more than {APART_SECONDS_MAX:.0f} s", field=name)
        answer = ours.recv()
    except EOFError:
        raise Fault("ended before its time", field=name) from None
    finally:
        ours.close()
        process.terminate()
        process.join()
    if isinstance(answer, str):
        raise Fault(answer, field=name)
    return answer


def _answer(work: Callable[..., Any], pipe: Connection, arguments: Sequence[Any]) -> None:
    leave_signals_to_parent()
    try:
        pipe.send(work(*arguments))
    except Exception as error:  # told to who asked: a traceback here would reach nobody
        pipe.send(f"{type(error).__name__}: {error}")


def leave_signals_to_parent() -> None:
    """In a process that multiprocessing started: Ctrl-C is its parent's, and it ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        end_with(parent.pid)


def end_with(parent: int) -> None:
    """SIGTERM for this process when its parent is gone; Linux alone knows that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)  # it was gone before we asked
