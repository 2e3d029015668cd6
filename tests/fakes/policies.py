"""Policy modules that misbehave in every way, and callers without threads."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

from ml.policy import ALLOW, Opinion, PolicyBatch, hold, refuse
from node.policies.calling import Work, run_guarded, settle


class InlineCaller:
    """Runs work at once, in the loop: for modules that never wait."""

    def __init__(self, _label: str) -> None:
        self.closed = False

    def call(self, work: Work) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        settle(future, *run_guarded(work))
        return future

    def close(self) -> None:
        self.closed = True


class RulePolicy:
    """Says of each transaction what `rule` says; remembers the batches it saw."""

    def __init__(self, rule: Callable[[int], Opinion] = lambda amount: ALLOW) -> None:
        self.rule = rule
        self.batches: list[PolicyBatch] = []

    def judge(self, batch: PolicyBatch) -> Sequence[Opinion]:
        self.batches.append(batch)
        return [self.rule(tx.amount) for tx in batch.transactions]


class StuckPolicy:
    """Every call waits until `release`."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.called = threading.Event()
        self.calls = 0

    def judge(self, batch: PolicyBatch) -> Sequence[Opinion]:
        self.calls += 1
        self.called.set()
        self.release.wait()
        return [refuse("too late")] * len(batch)


class LiarPolicy:
    """By a seed: any opinion at all, no answer, answers of other shapes, exceptions of all kinds."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def judge(self, batch: PolicyBatch) -> Any:
        way = self._random.randrange(10)
        if way == 0:
            raise RuntimeError("out of order")
        if way == 1:
            raise SystemExit(3)
        if way == 2:
            return None
        if way == 3:
            return [ALLOW] * (len(batch) + 1)
        if way == 4:
            return ["allow"] * len(batch)
        if way == 5:
            return [refuse("two\nlines")] * len(batch)
        return [self._random.choice((ALLOW, hold("h"), refuse("r"))) for _ in range(len(batch))]

    def reload(self) -> Any:
        way = self._random.randrange(3)
        if way == 0:
            raise OSError("the disk is gone")
        return way == 1
