"""A load on a running network, from its first transaction to the last one final: load.py and watch.py together.

The processes start, pack and wait; the streams of all nodes open; then they submit, until told to stop or
at the end of their transactions; then what was accepted becomes final. Invariant: everything accepted is
final on every node when a run ends, or `lost` says how many are not; no process outlives the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from consensus.errors import Fault
from node.bench import window
from node.bench.load import (
    CLOSED,
    FINAL,
    FIRST_COUNT,
    OPEN,
    STOP,
    LoadPlan,
    LoadReport,
    run_load,
    split_batches,
)
from node.bench.stopwatch import cpu_s, monotonic_s
from node.bench.watch import Watch

READY_SECONDS_MAX: Final = 60.0
START_IN_S: Final = 0.2  # between the word and the first batch: for all processes the same moment
OPEN_SLACK_S: Final = 5.0  # a busy node asks to be left alone for a second or two
STOP_SECONDS_MAX: Final = 40.0  # a request that is on its way has 30 s
DRAIN_SECONDS_MAX: Final = 60.0
POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Load:
    """Transactions first to end - 1 of a file, by so many processes. rate: of all of them together."""

    path: Path
    first: int
    end: int
    batch: int
    processes: int
    pace: str = CLOSED
    rate: float = 0.0
    waiting_max: int = 0


@dataclass(frozen=True, slots=True)
class LoadRun:
    """What came of it. started_s and stopped_s: of submitting; lost: accepted and not final at the end."""

    watch: Watch
    reports: tuple[LoadReport, ...]
    started_s: float
    stopped_s: float
    lost: int
    watch_cpu_s: float

    @property
    def accepted(self) -> int:
        return sum(report.accepted_count for report in self.reports)

    @property
    def offered(self) -> int:
        return sum(report.offered for report in self.reports)

    @property
    def cpu_us_per_tx(self) -> float:
        """What submitting and watching spent on a transaction, microseconds of CPU of all their processes."""
        seconds = self.watch_cpu_s + sum(report.cpu_s for report in self.reports)
        return 1e6 * seconds / max(1, self.offered)

    def cut_window(self, ramp_s: float, seconds: float) -> window.Window:
        """The rate of finality on all nodes from `ramp_s` after the start on, while submitting went on."""
        start_s = self.started_s + ramp_s
        end_s = min(start_s + seconds, self.stopped_s)
        return window.cut_window(self.watch.all_times_s, self.watch.all_totals, start_s, end_s)

    def list_due(self) -> tuple[list[float], list[int]]:
        """Rising moments, and how many transactions were due by then; closed: posted."""
        return window.merge_counts(
            [[(due_s, end - start) for (start, end), _, due_s in report.sent] for report in self.reports]
        )

    def list_backlogs(self, part: window.Window, parts: int) -> list[float]:
        """What is due and not final, so that what the nodes do not take in counts too: means of the window's parts."""
        submitted = self.list_due()
        final = self.watch.all_times_s, self.watch.all_totals
        part_s = (part.end_s - part.start_s) / parts
        starts_s = [part.start_s + part_s * number for number in range(parts)]
        return [
            window.compute_mean_backlog(submitted, final, start_s, start_s + part_s) for start_s in starts_s
        ]

    def compute_backlog_growth(self, part: window.Window) -> float:
        """The mean backlog in the window's last third as a multiple of that in its first third."""
        first, _, last = self.list_backlogs(part, 3)
        return max(1.0, last) / max(1.0, first)


async def drive(
    urls: Sequence[str],
    load: Load,
    seconds: float,
    meanwhile: Callable[[Watch], Awaitable[None]] | None = None,
    afterwards: Callable[[Watch, float], Awaitable[None]] | None = None,
) -> LoadRun:
    """Submit for at most so long, then wait for the rest to be final. Raises Fault.

    What is due at fixed moments (open) ends by itself when all of it is accepted, and is a Fault when that is
    not so OPEN_SLACK_S after its time: latencies and backlogs without the slowest would flatter.
    `meanwhile` runs beside it and is cancelled when submitting ends; `afterwards` begins then, and is
    told the moment.
    """
    with _start_processes(urls, load) as (pipes, board):

        def show(total: int) -> None:
            board[FINAL] = total

        async with Watch(urls, show) as watch:
            started_s, before_cpu_s = monotonic_s() + START_IN_S, cpu_s()
            for pipe in pipes:
                pipe.send(started_s)
            beside = None if meanwhile is None else asyncio.ensure_future(meanwhile(watch))
            slack_s = OPEN_SLACK_S if load.pace == OPEN else 0.0
            try:
                reports = await _collect(pipes, board, watch, started_s + seconds + slack_s)
            finally:
                if beside is not None:
                    beside.cancel()
                    with suppress(asyncio.CancelledError):
                        await beside
            stopped_s, watch_cpu_s = monotonic_s(), cpu_s() - before_cpu_s
            problem = next((report.problem for report in reports if report.problem), "")
            if problem:
                raise Fault(f"a node said no for good ({problem})", field="load")
            accepted = sum(report.accepted_count for report in reports)
            if load.pace == OPEN and accepted < load.end - load.first:
                missing = load.end - load.first - accepted
                raise Fault(f"{missing} of its transactions were not accepted in their time", field="load")
            if afterwards is not None:
                await afterwards(watch, stopped_s)
            await watch.wait_total(accepted, DRAIN_SECONDS_MAX)
            lost = max(0, accepted - watch.total)
            return LoadRun(watch, tuple(reports), started_s, stopped_s, lost, watch_cpu_s)


async def _collect(
    pipes: Sequence[Connection], board: Any, watch: Watch, deadline_s: float
) -> list[LoadReport]:
    """The reports, after telling the processes to stop at the deadline."""
    reports: dict[int, LoadReport] = {}
    while len(reports) < len(pipes):
        watch.check()
        now_s = monotonic_s()
        if now_s > deadline_s:
            board[STOP] = 1
        if now_s > deadline_s + STOP_SECONDS_MAX:
            raise Fault("did not stop", field="load")
        for number, pipe in enumerate(pipes):
            if number not in reports and pipe.poll():
                try:
                    reports[number] = pipe.recv()
                except EOFError:
                    raise Fault("one of its processes ended before its time", field="load") from None
        await asyncio.sleep(POLL_S)
    return [reports[number] for number in range(len(pipes))]


@contextmanager
def _start_processes(urls: Sequence[str], load: Load) -> Iterator[tuple[list[Connection], Any]]:
    """The load's processes, ready to start, and the board; they are ended with the block."""
    context = get_context("spawn")
    board = context.RawArray("q", FIRST_COUNT + load.processes)
    batches = split_batches(load.first, load.end, load.batch, load.processes)
    rate = load.rate / load.processes
    pipes: list[Connection] = []
    processes = []
    try:
        for number in range(load.processes):
            offset_s = load.batch / load.rate * number if load.rate else 0.0
            plan = LoadPlan(
                number,
                load.path,
                tuple(urls),
                batches[number],
                load.pace,
                rate,
                offset_s,
                load.waiting_max,
            )
            ours, theirs = context.Pipe()
            # daemon: an end of this process that skips the lines below still takes it along.
            process = context.Process(target=run_load, args=(plan, board, theirs), daemon=True)
            process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
        for pipe in pipes:
            if not pipe.poll(READY_SECONDS_MAX):
                raise Fault(f"not ready after {READY_SECONDS_MAX:.0f} s", field="load")
            pipe.recv()
        yield pipes, board
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.terminate()
            process.join()
