"""What a policy module must keep: less than a consensus module, for nobody recomputes it.

It answers one opinion per transaction, in time, whatever comes; alters nothing; takes a second look. Each
check raises NonConforming, or says what it saw. Leaves out: whether its opinions are any good.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from consensus.codec import MONEY_MAX, TIME_MS_MAX
from consensus.crypto import PrivateKey
from consensus.transaction import Transaction, sign_transaction
from ml.discovery import load_policy
from ml.policy import Decision, Opinion, Policy, PolicyBatch
from node.conformance.playing import NonConforming
from node.policies.attendant import find_problem

BATCH: Final = 1_000  # the most that a node hands over at once
ROUNDS: Final = 5
NOW_MS: Final = 1_750_000_000_000


@dataclass(frozen=True, slots=True)
class PolicySubject:
    name: str
    settings: Mapping[str, Any]
    deadline_ms: int
    seed: int

    def load(self) -> Policy:
        return load_policy(self.name, dict(self.settings))

    def make_batch(self, count: int, *, is_extreme: bool = False, is_new: bool = True) -> PolicyBatch:
        """Signed transfers among 32 accounts."""
        random = np.random.Generator(np.random.PCG64(self.seed))
        keys = [PrivateKey.from_seed(f"conformance/{self.seed}/{n}".encode()) for n in range(32)]

        def draw(below: int) -> int:
            return int(random.integers(0, below))

        def pick(*values: int) -> int:
            return values[draw(len(values))]

        def make(nonce: int) -> Transaction:
            sent_ms = pick(0, NOW_MS, TIME_MS_MAX - 1) if is_extreme else NOW_MS - draw(60_000)
            return sign_transaction(
                keys[draw(32)],
                "conformance",
                nonce=nonce,
                receiver=keys[draw(32)].address,
                amount=pick(0, 1, MONEY_MAX - 1) if is_extreme else draw(100_000),
                fee=1,
                timestamp_ms=sent_ms,
                expires_ms=sent_ms + 1,
            )

        score = random.integers(0, 10_001, count)
        outcome = (score >= 2_000).astype(np.uint8)
        for array in (score, outcome):
            array.flags.writeable = False
        return PolicyBatch(tuple(map(make, range(count))), score, outcome, NOW_MS, is_new)


def _judge(policy: Policy, batch: PolicyBatch) -> tuple[Opinion, ...]:
    answer = policy.judge(batch)
    if problem := find_problem(answer, len(batch)):
        raise NonConforming(problem)
    return tuple(answer)


def check_form(subject: PolicySubject) -> str:
    """One opinion a transaction, with reasons that fit a line."""
    opinions = _judge(subject.load(), subject.make_batch(200))
    counts = {d.name.lower(): sum(o.decision is d for o in opinions) for d in Decision}
    if any(o.decision is not Decision.ALLOW and not o.reason for o in opinions):
        raise NonConforming("it refuses or holds without a reason")
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def check_extremes(subject: PolicySubject) -> str:
    """Empty batches, amounts of nothing and of all money, the ends of time."""
    policy = subject.load()
    _judge(policy, subject.make_batch(0))
    _judge(policy, subject.make_batch(100, is_extreme=True))
    return "an empty batch and 100 corners"


def check_purity(subject: PolicySubject) -> str:
    """What it is given stays as it is."""
    batch = subject.make_batch(100)
    before = (tuple(tx.raw for tx in batch.transactions), batch.score.tobytes(), batch.outcome.tobytes())
    _judge(subject.load(), batch)
    if before != (tuple(tx.raw for tx in batch.transactions), batch.score.tobytes(), batch.outcome.tobytes()):
        raise NonConforming("it changes the batch that it was given")
    return "every input byte compared"


def check_second_look(subject: PolicySubject) -> str:
    """What was let in may be asked about again; a second look alone refuses nothing that the first allowed."""
    policy = subject.load()
    first = _judge(policy, subject.make_batch(100))
    second = _judge(policy, subject.make_batch(100, is_new=False))
    worse = sum(
        a.decision is Decision.ALLOW and b.decision is not Decision.ALLOW
        for a, b in zip(first, second, strict=True)
    )
    if worse:
        raise NonConforming(
            f"asked again, it turns against {worse} of 100 that it allowed: does it count twice?"
        )
    return "100 asked about twice"


def check_methods(subject: PolicySubject) -> str:
    """`start`, `reload` and `close`, where it has them; reload answers whether something changed."""
    policy = subject.load()
    found = [name for name in ("start", "reload", "close") if callable(getattr(policy, name, None))]
    for name in found:
        answer = getattr(policy, name)()
        if name == "reload" and type(answer) is not bool:
            raise NonConforming(f"reload answers {type(answer).__name__}, not whether something changed")
    return ", ".join(found) or "none of the optional ones"


def check_patience(subject: PolicySubject) -> str:
    """A batch of 1,000 is judged within the deadline."""
    policy, batch = subject.load(), subject.make_batch(BATCH)
    spent_ms = []
    for _ in range(ROUNDS):
        begun = time.perf_counter_ns()
        _judge(policy, batch)
        spent_ms.append((time.perf_counter_ns() - begun) / 1e6)
    words = f"{min(spent_ms):.1f} ms at best for {BATCH}, the deadline is {subject.deadline_ms} ms"
    if min(spent_ms) > subject.deadline_ms:
        raise NonConforming(words)
    return words


POLICY_CHECKS: Final[tuple[tuple[str, Callable[[PolicySubject], str]], ...]] = (
    ("form", check_form),
    ("extremes", check_extremes),
    ("purity", check_purity),
    ("second look", check_second_look),
    ("methods", check_methods),
    ("patience", check_patience),
)
