"""The policy contract: what a node's own module sees of a batch, and what it may say about it.

A policy module is one node's own. It may refuse at that node's mempool door and keep transactions out of
that node's proposals; it may use floats, files, models, services. Consensus knows nothing of it: a block
that holds what it would refuse is as valid as any other.

Invariant: an answer is advice to this node. Whatever a module answers, raises or delays changes no verdict,
no state and no vote. The node asks it beside its loop, one batch at a time and within a deadline, and
tells what it does when a module fails (docs/modules.md).
Leaves out: asking (`node/policies/`); modules that all validators recompute (consensus/ledger/scoring.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from consensus.ledger.scoring import TransferColumns
from consensus.transaction import Transaction

REASON_CHARACTERS_MAX: Final = 200  # one line for a person; it travels with the answer to the client


class Decision(IntEnum):
    """ALLOW: nothing against it. HOLD: take it in and pass it on, but do not propose it; it is asked about
    again. REFUSE: not admitted; if it waits already, dropped."""

    ALLOW = 0
    HOLD = 1
    REFUSE = 2


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a module says about one transaction; `reason` is one line for whoever sent it."""

    decision: Decision
    reason: str = ""


ALLOW: Final = Opinion(Decision.ALLOW)


def hold(reason: str) -> Opinion:
    return Opinion(Decision.HOLD, reason)


def refuse(reason: str) -> Opinion:
    return Opinion(Decision.REFUSE, reason)


@dataclass(frozen=True, slots=True)
class PolicyBatch:
    """n transactions of any kind, their signatures checked, in order of arrival.

    score: int64[n], outcome: uint8[n], what the chain's modules say of them as the next block (0 and ACCEPT
    for what they do not judge); both read-only. clock_ms: the chain's clock, as /v1/status tells it.
    is_new: False when these were let in before and are asked about again (count nothing twice).
    """

    transactions: tuple[Transaction, ...]
    score: NDArray[np.int64]
    outcome: NDArray[np.uint8]
    clock_ms: int
    is_new: bool = True

    def __len__(self) -> int:
        return len(self.transactions)

    def to_columns(self) -> TransferColumns:
        """The same as int64[n] columns; sender and receiver number the batch's accounts as they appear."""
        numbers: dict[bytes, int] = {}
        for tx in self.transactions:
            numbers.setdefault(tx.sender, len(numbers))
            numbers.setdefault(tx.receiver, len(numbers))
        return TransferColumns(
            np.array([numbers[tx.sender] for tx in self.transactions], dtype=np.int64),
            np.array([numbers[tx.receiver] for tx in self.transactions], dtype=np.int64),
            np.array([tx.amount for tx in self.transactions], dtype=np.int64),
            np.array([tx.timestamp_ms for tx in self.transactions], dtype=np.int64),
        )


class Policy(Protocol):
    """A policy module. Each method runs in a thread of the module's own, never two at a time.

    It may also have `start() -> None` (before the node serves; what it raises keeps the node from starting),
    `reload() -> bool` (about once a second: look whether something changed; True asks about everything that
    waits anew) and `close() -> None`.
    """

    def judge(self, batch: PolicyBatch) -> Sequence[Opinion]:
        """One opinion per transaction, in order."""
        ...


# What an entry point of the group `assay.policies` names: settings in, module out. Raises Rejected that
# names the setting. Values are strings on the command line and JSON values in a file.
PolicyFactory = Callable[[Mapping[str, Any]], Policy]
