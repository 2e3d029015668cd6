"""What is seen of a network's nodes while a load is on it: memory, CPU, and whether they answer.

Every half second; what grows shows when later samples are compared with earlier ones. Invariant: a node
that is gone counts as nothing, so what ended it is told by whoever runs it. Reads /proc.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from consensus.errors import Fault
from node.bench import stopwatch
from node.bench.driver import LoadRun
from node.bench.network import RunningNetwork
from node.bench.stopwatch import monotonic_s
from node.bench.window import cut_window

LOOK_S: Final = 0.5
PROBE_SECONDS_MAX: Final = 30.0


@dataclass(slots=True)
class Samples:
    """What was seen of the nodes, every half second. moments: monotonic seconds."""

    moments: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)  # of the largest node, pages of its index included
    own: list[int] = field(default_factory=list)  # without pages of files, which the system may drop
    cpu_s: list[float] = field(default_factory=list)  # of all nodes together
    answers_ms: list[float] = field(default_factory=list)
    unanswered: int = 0


async def sample(running: RunningNetwork, samples: Samples) -> None:
    """Until it is cancelled: memory, CPU, and whether every node still answers."""
    families = [stopwatch.list_family(node.pid) for node in running.nodes]
    async with ask_steadily(running.urls, samples) as ask:
        while True:
            samples.moments.append(monotonic_s())
            samples.resident.append(max(stopwatch.read_resident_bytes(node.pid) for node in running.nodes))
            samples.own.append(max(stopwatch.read_anonymous_bytes(node.pid) for node in running.nodes))
            samples.cpu_s.append(sum(stopwatch.read_cpu_seconds(pid) for pids in families for pid in pids))
            ask()
            await asyncio.sleep(LOOK_S)


@asynccontextmanager
async def ask_steadily(urls: Sequence[str], samples: Samples) -> AsyncIterator[Callable[[], None]]:
    """What to call for one question to each node, whatever became of those before: none waits for another.

    At the end, those without an answer have waited at least until now.
    """
    questions: set[asyncio.Task[None]] = set()
    timeout = aiohttp.ClientTimeout(total=PROBE_SECONDS_MAX)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:

        def ask() -> None:
            for url in urls:
                question = asyncio.create_task(_ask(session, url, samples))
                questions.add(question)
                question.add_done_callback(questions.discard)

        try:
            yield ask
        finally:
            for question in questions:
                question.cancel()
            await asyncio.gather(*questions, return_exceptions=True)


async def _ask(session: aiohttp.ClientSession, url: str, samples: Samples) -> None:
    start_s = monotonic_s()
    try:
        async with session.get(url + "/v1/status") as response:
            await response.read()
    except (aiohttp.ClientError, TimeoutError):
        samples.unanswered += 1
        return
    except asyncio.CancelledError:
        samples.answers_ms.append(1e3 * (monotonic_s() - start_s))
        raise
    samples.answers_ms.append(1e3 * (monotonic_s() - start_s))


def compute_growth(values: Sequence[float]) -> float:
    """The mean of the last third as a multiple of that of the second: start-up is over in both."""
    third = len(values) // 3
    if third == 0:
        raise Fault("was seen fewer than three times", field="samples")
    return (sum(values[-third:]) / third) / (sum(values[third : 2 * third]) / third)


def compute_slowdown(samples: Samples, run: LoadRun) -> float:
    """CPU of all nodes a transaction in the last third of the run, as a multiple of that in the second."""
    third = len(samples.moments) // 3
    if third < 2:
        raise Fault("was seen too few times", field="samples")
    costs = []
    for first in (third, 2 * third):
        last = min(first + third, len(samples.moments) - 1)
        start_s, end_s = samples.moments[first], samples.moments[last]
        part = cut_window(run.watch.all_times_s, run.watch.all_totals, start_s, end_s)
        share = (part.end_s - part.start_s) / (end_s - start_s)
        costs.append((samples.cpu_s[last] - samples.cpu_s[first]) * share / part.transactions)
    return costs[1] / costs[0]
