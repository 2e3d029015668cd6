"""The attendant of one policy module: asks it within its deadline, counts, and tells when it fails.

Invariant: at most one call is outstanding. One that overran its deadline still runs, for nobody can end
it; until it is over every further batch counts as an overrun at once, so that nothing piles up behind a
module that hangs. What fails is counted each time and logged at most once in LOG_MS, with how often.
Leaves out: taking turns, and what becomes of opinions (room.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from consensus.errors import Fault, Rejected
from ml.policy import REASON_CHARACTERS_MAX, Decision, Opinion, PolicyBatch
from node.clock import Clock
from node.policies.calling import Caller, PolicyError
from node.policies.plan import REFUSE, LoadedPolicy

log = logging.getLogger("assay.policy")

LOG_MS: Final = 10_000  # between two lines about the same failure of the same module
START_MS_MAX: Final = 30_000  # loading a model may take a while; nothing is served meanwhile
CLOSE_MS_MAX: Final = 1_000  # a node that ends waits no longer for a module's farewell

# What became of a call: closed, for labels of metrics.
OK: Final = "ok"
FAILED: Final = "failed"  # it raised
BROKEN: Final = "broken"  # it answered what is no answer
OVERRUN: Final = "overrun"  # it is late, or still busy with a batch that it was late for
CALL_OUTCOMES: Final = (OK, FAILED, BROKEN, OVERRUN)

Count = Callable[[str, str], None]  # (label, outcome of a call)


@dataclass(frozen=True, slots=True)
class PolicyReport:
    """What the node tells of a module. decisions: transactions by decision; calls: by outcome."""

    label: str
    deadline_ms: int
    on_failure: str
    is_stuck: bool
    decisions: dict[str, int]
    calls: dict[str, int]


class Attendant:
    def __init__(self, loaded: LoadedPolicy, caller: Caller, clock: Clock, count: Count) -> None:
        self.label = loaded.label
        self.refuses_on_failure = loaded.on_failure == REFUSE
        self._loaded = loaded
        self._caller = caller
        self._clock = clock
        self._count = count
        self._outstanding: asyncio.Future[Any] | None = None  # that nobody waits for any more
        self._logged_ms: dict[str, int] = {}
        self._unlogged: Counter[str] = Counter()
        self.decisions: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    @property
    def has_reload(self) -> bool:
        return callable(getattr(self._loaded.policy, "reload", None))

    @property
    def is_stuck(self) -> bool:
        """Whether it is still busy with what it was late for."""
        return self._outstanding is not None

    def describe(self) -> PolicyReport:
        plan = self._loaded
        decisions = {decision.name.lower(): self.decisions[decision.name] for decision in Decision}
        calls = {outcome: self.calls[outcome] for outcome in CALL_OUTCOMES}
        return PolicyReport(self.label, plan.deadline_ms, plan.on_failure, self.is_stuck, decisions, calls)

    async def start(self) -> None:
        """Raises Rejected or Fault when the module cannot start."""
        start = getattr(self._loaded.policy, "start", None)
        if not callable(start):
            return
        future = self._caller.call(start)
        if not await self._wait(future, START_MS_MAX):
            raise Fault(f"does not start within {START_MS_MAX} ms", field=f"policy {self.label}")
        if (error := future.exception()) is not None:
            raise Rejected(f"does not start ({error})", field=f"policy {self.label}") from error

    async def ask(self, batch: PolicyBatch) -> Sequence[Opinion] | None:
        """Its opinions; None when it failed."""
        outcome, answer = await self._call(partial(self._loaded.policy.judge, batch))
        if outcome == OK:
            answer = tuple(answer) if type(answer) in (list, tuple) else answer  # ours: nobody changes it
            if problem := find_problem(answer, len(batch)):
                outcome = BROKEN
                self._complain(BROKEN, problem)
        self._note(outcome)
        return answer if outcome == OK else None

    async def reload(self) -> bool:
        """Whether earlier opinions may no longer hold. A module that fails here keeps what it had."""
        reload = getattr(self._loaded.policy, "reload", None)
        if reload is None or self.is_stuck:
            return False
        outcome, answer = await self._call(reload)
        if outcome != OK:
            self._note(outcome)
        return outcome == OK and answer is True

    async def close(self) -> None:
        close = getattr(self._loaded.policy, "close", None)
        if callable(close) and not self.is_stuck:
            future = self._caller.call(close)
            if not await self._wait(future, CLOSE_MS_MAX):
                self._complain(OVERRUN, "it does not close in time, and is left behind")
            elif (error := future.exception()) is not None:
                self._complain(FAILED, str(error))
        self._caller.close()

    async def _call(self, work: Callable[[], Any]) -> tuple[str, Any]:
        if self.is_stuck:
            self._complain(OVERRUN, "still busy with an earlier batch")
            return OVERRUN, None
        future = self._caller.call(work)
        if not await self._wait(future, self._loaded.deadline_ms):
            self._complain(OVERRUN, f"no answer within {self._loaded.deadline_ms} ms")
            return OVERRUN, None
        if (error := future.exception()) is not None:
            self._complain(FAILED, str(error), error)
            return FAILED, None
        return OK, future.result()

    async def _wait(self, future: asyncio.Future[Any], wait_ms: int) -> bool:
        """Whether it was done in time; otherwise, also when who waits gives up, it stays outstanding."""
        try:
            await asyncio.wait((future,), timeout=wait_ms / 1_000)
        finally:
            if not future.done():
                self._outstanding = future
                future.add_done_callback(self._on_late)
        return future.done()

    def _on_late(self, future: asyncio.Future[Any]) -> None:
        self._outstanding = None
        if not future.cancelled() and (error := future.exception()) is not None:
            self._complain(FAILED, str(error), error)
        log.warning("a policy module is back", extra={"policy": self.label})

    def _note(self, outcome: str) -> None:
        self.calls[outcome] += 1
        self._count(self.label, outcome)

    def _complain(self, outcome: str, problem: str, error: BaseException | None = None) -> None:
        now_ms = self._clock.monotonic_ms()
        if outcome in self._logged_ms and now_ms - self._logged_ms[outcome] < LOG_MS:
            self._unlogged[outcome] += 1
            return
        self._logged_ms[outcome] = now_ms
        extra = {
            "policy": self.label,
            "outcome": outcome,
            "problem": problem,
            "unlogged": self._unlogged.pop(outcome, 0),
        }
        cause = None if not isinstance(error, PolicyError) else error.__cause__
        # Where a refusal of its own (a bad file, say) was raised helps nobody; of anything else it does.
        log.warning(
            "a policy module fails; the node goes on",
            extra=extra,
            exc_info=None if isinstance(cause, Rejected) else cause,
        )


def find_problem(answer: Any, count: int) -> str:
    """Why this is no answer about `count` transactions; empty when it is one."""
    if type(answer) not in (list, tuple):
        return f"judge answers {type(answer).__name__}, not a list of opinions"
    if len(answer) != count:
        return f"judge answers {len(answer)} opinions for {count} transactions"
    for opinion in answer:
        if (
            type(opinion) is not Opinion
            or type(opinion.decision) is not Decision
            or type(opinion.reason) is not str
        ):
            return f"judge answers {type(opinion).__name__}, not an opinion"
        if len(opinion.reason) > REASON_CHARACTERS_MAX or not opinion.reason.isprintable():
            return f"a reason is not one line of at most {REASON_CHARACTERS_MAX} characters"
    return ""
