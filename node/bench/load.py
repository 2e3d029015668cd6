"""Who submits: processes of their own that post transactions signed beforehand, in msgpack batches.

Three ways to pace them. *Closed*: as fast as the nodes take them while at most so many wait for finality,
which finds the rate that a network sustains. *Open*: a fixed rate, each batch due at its moment whatever
became of the one before, as people's payments are; what a busy node does not take waits in one queue, and
is posted together when it is asked for. *Storm*: a fixed rate of posts, far above what the network can take;
what was not accepted is offered again before anything new is.
Answers are read only as far as counting; what a process spends on a
transaction is one of the figures. Invariant: `accepted` names exactly what a node said yes to.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from http import HTTPStatus
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgpack

from node.bench.offspring import leave_signals_to_parent
from node.bench.stopwatch import cpu_s, monotonic_s
from node.bench.workload import SignedFile

HEADERS: Final = {"Content-Type": "application/msgpack"}
GATE_S: Final = 0.01  # between two looks at what is final: a twentieth of a block
TIMEOUT_S: Final = 30.0
AGAIN_S: Final = 0.2  # before what was not accepted is tried again
POST_MAX: Final = 250  # open: what is due is posted together up to so many
CONNECTIONS: Final = 2  # of a process to each node: one batch is on its way while another is judged
STORM_POSTS_MAX: Final = 64  # of a process at once: more would only measure its own memory
FINAL, STOP, FIRST_COUNT = 0, 1, 2  # places on the board: final on all nodes, stop, submitted by process 0, …
IN: Final = ("accepted", "known")  # known: taken by a post whose answer was lost, or brought by another node
CLOSED, OPEN, STORM = "closed", "open", "storm"

Range = tuple[int, int]  # of transactions' numbers: the first, and the one after the last
_Due = tuple[Range, float | None]  # and since when; None: it was tried before


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What one process does. rate: its own share, transactions a second (open, storm).

    waiting_max: of all processes together (closed). offset: when its first batch is due, seconds.
    """

    number: int
    path: Path
    urls: tuple[str, ...]
    batches: tuple[Range, ...]
    pace: str = CLOSED
    rate: float = 0.0
    offset_s: float = 0.0
    waiting_max: int = 0


@dataclass(slots=True)
class LoadReport:
    """What one process did. sent: (range, node, when it was due; closed: posted)."""

    cpu_s: float = 0.0
    offered: int = 0  # transactions posted, each time counted
    pushed_back: int = 0  # requests answered with 429, 503 or not at all
    problem: str = ""  # a "no" for good to a transaction: the first one
    accepted: list[Range] = field(default_factory=list)
    sent: list[tuple[Range, int, float]] = field(default_factory=list)
    late_s_max: float = 0.0  # open: how far behind its moments the process fell

    @property
    def accepted_count(self) -> int:
        return sum(end - start for start, end in self.accepted)


def split_batches(first: int, end: int, size: int, processes: int) -> tuple[tuple[Range, ...], ...]:
    """Transactions first to end - 1 in batches, dealt out to processes in turn."""
    batches = [(start, min(start + size, end)) for start in range(first, end, size)]
    return tuple(tuple(batches[number::processes]) for number in range(processes))


def run_load(plan: LoadPlan, board: Any, pipe: Connection) -> None:
    """The process: open the file, say "ready", wait for the starting moment, submit, send the report."""
    leave_signals_to_parent()
    load = _Load(plan, board, SignedFile.open(plan.path))
    pipe.send("ready")
    try:
        start_s = pipe.recv()
    except EOFError:
        return  # it was called off
    pipe.send(asyncio.run(load.run(start_s)))


class _Load:
    def __init__(self, plan: LoadPlan, board: Any, signed: SignedFile) -> None:
        self._plan = plan
        self._board = board
        self._signed = signed
        self._next = 0
        self._returned: deque[Range] = deque()  # storm: to be offered again
        self._due: asyncio.Queue[_Due | None] = asyncio.Queue()  # open; None: it is over
        self._closed_until_s = [0.0] * len(plan.urls)  # of each node: until when it asked to be left alone
        self._report = LoadReport()
        self._gate = asyncio.Lock()
        self._session: aiohttp.ClientSession

    async def run(self, start_s: float) -> LoadReport:
        plan = self._plan
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(
            timeout=timeout, connector=aiohttp.TCPConnector(limit=0)
        ) as self._session:
            await asyncio.sleep(max(0.0, start_s - monotonic_s()))
            before_s = cpu_s()
            if plan.pace == CLOSED:
                lines = CONNECTIONS * len(plan.urls)
                await asyncio.gather(*(self._run_closed(line % len(plan.urls)) for line in range(lines)))
            elif plan.pace == OPEN:
                await self._run_open(start_s + plan.offset_s)
            else:
                await self._run_storm(start_s + plan.offset_s)
            self._report.cpu_s = cpu_s() - before_s
        return self._report

    @property
    def _is_stopped(self) -> bool:
        return bool(self._board[STOP]) or bool(self._report.problem)

    def _take(self) -> Range | None:
        """The next batch of this process; None at the end."""
        if self._is_stopped:
            return None
        if self._returned:
            return self._returned.popleft()
        if self._next == len(self._plan.batches):
            return None
        self._next += 1
        return self._plan.batches[self._next - 1]

    async def _run_closed(self, node: int) -> None:
        plan, board = self._plan, self._board
        while (batch := self._take()) is not None:
            start, end = batch
            async with self._gate:  # one line looks at the board, the others wait behind it
                while sum(board[FIRST_COUNT:]) - board[FINAL] + end - start > plan.waiting_max:
                    await asyncio.sleep(GATE_S)
                    if self._is_stopped:
                        return
                board[FIRST_COUNT + plan.number] += end - start
            await self._deliver(batch, node, monotonic_s())

    async def _run_open(self, first_s: float) -> None:
        """A batch becomes due at each moment; lines to all nodes post what is due, until all of it is accepted."""
        lines = [
            asyncio.create_task(self._post_due(line % len(self._plan.urls)))
            for line in range(CONNECTIONS * len(self._plan.urls))
        ]
        async for (start, end), due_s in self._make_due(first_s):
            self._board[FIRST_COUNT + self._plan.number] += end - start
            self._due.put_nowait(((start, end), due_s))
        accepted = asyncio.create_task(self._due.join())
        done: set[asyncio.Task[None]] = set()
        while not done and not self._is_stopped:
            done, _ = await asyncio.wait(
                {accepted, *lines}, timeout=GATE_S, return_when=asyncio.FIRST_COMPLETED
            )
        accepted.cancel()
        self._due.put_nowait(None)
        await asyncio.gather(*lines)  # what is on its way is waited for

    async def _make_due(self, first_s: float) -> AsyncIterator[tuple[Range, float]]:
        """This process's batches, each at its moment."""
        due_s = first_s
        while True:
            wait_s = due_s - monotonic_s()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            self._report.late_s_max = max(self._report.late_s_max, -wait_s)
            if (batch := self._take()) is None:
                return
            yield batch, due_s
            due_s += (batch[1] - batch[0]) / self._plan.rate

    async def _post_due(self, node: int) -> None:
        """Post what is due to one node; what it does not take goes back, and it is left alone for a while."""
        while (due := await self._due.get()) is not None:
            if self._is_stopped:
                continue
            found, count = [due], due[0][1] - due[0][0]
            while count < POST_MAX and not self._due.empty():
                more = self._due.get_nowait()
                if more is None:
                    self._due.put_nowait(None)
                    break
                found.append(more)
                count += more[0][1] - more[0][0]
            self._report.sent += [(batch, node, due_s) for batch, due_s in found if due_s is not None]
            left = await self._try([batch for batch, _ in found], node)
            for batch in left:
                self._due.put_nowait((batch, None))
            for _ in found:
                self._due.task_done()
            if left:
                await asyncio.sleep(max(AGAIN_S, self._closed_until_s[node] - monotonic_s()))
        self._due.put_nowait(None)  # for the other lines

    async def _run_storm(self, first_s: float) -> None:
        """A batch at each moment, posted once."""
        turn = self._plan.number
        pending: set[asyncio.Task[None]] = set()
        async for batch, _ in self._make_due(first_s):
            if len(pending) >= STORM_POSTS_MAX:
                await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            task = asyncio.create_task(self._offer(batch, turn % len(self._plan.urls)))
            pending.add(task)
            task.add_done_callback(pending.discard)
            turn += 1
        await asyncio.gather(*pending)

    async def _deliver(self, batch: Range, node: int, due_s: float) -> None:
        """Until every transaction of the batch is accepted, by this node or the next, each when it asks for it."""
        self._report.sent.append((batch, node, due_s))
        left = await self._try([batch], node)
        while left and not self._is_stopped:
            node = (node + 1) % len(self._plan.urls)
            await asyncio.sleep(max(AGAIN_S, self._closed_until_s[node] - monotonic_s()))
            left = await self._try(left, node)

    async def _offer(self, batch: Range, node: int) -> None:
        self._returned += await self._try([batch], node)

    async def _try(self, batches: list[Range], node: int) -> list[Range]:
        """Post them once, together; what was not accepted, as ranges."""
        report = self._report
        raws = [raw for start, end in batches for raw in self._signed[start:end]]
        report.offered += len(raws)
        answer = await self._post(node, msgpack.packb(raws))
        if answer is None:
            return batches
        accepted, left = batches, list[Range]()
        if answer.count(b'"accepted"') != len(raws):
            accepted, left = self._read_receipts(batches, answer)
        report.accepted += accepted
        return left

    def _read_receipts(self, batches: list[Range], answer: bytes) -> tuple[list[Range], list[Range]]:
        """What was accepted (or is in the chain already) and what may be later; a "no" for good is noted."""
        accepted: list[Range] = []
        left: list[Range] = []
        numbers = [number for batch in batches for number in range(*batch)]
        for number, receipt in zip(numbers, json.loads(answer), strict=True):
            is_in = receipt["outcome"] in IN or receipt["code"] in ("nonce_used", "final")
            if not is_in and not receipt["retry_ms"]:
                self._report.problem = self._report.problem or f"{receipt['outcome']}: {receipt['reason']}"
            found = accepted if is_in else left
            if found and found[-1][1] == number:
                found[-1] = (found[-1][0], number + 1)
            else:
                found.append((number, number + 1))
        return accepted, left

    async def _post(self, node: int, body: bytes) -> bytes | None:
        """The answer, or None when the node was not to be had."""
        try:
            url = self._plan.urls[node] + "/v1/transactions"
            async with self._session.post(url, data=body, headers=HEADERS) as response:
                answer = await response.read()
                if response.status == HTTPStatus.OK:
                    return answer
                is_busy = response.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
                if is_busy:
                    self._closed_until_s[node] = monotonic_s() + float(response.headers.get("Retry-After", 0))
                else:
                    self._report.problem = self._report.problem or answer[:200].decode(errors="replace")
        except (aiohttp.ClientError, TimeoutError, ConnectionError):
            pass  # counted below: an overloaded node may cut a connection
        self._report.pushed_back += 1
        return None
