"""The scoring contract: what a validation module sees, what it answers, what it may write.

The ledger owns this contract; modules implement it (`ml/`, or anybody's package). A module is
pure: the same columns and rows give the same verdicts and rows on every machine, bit for bit.
It sees no state but the rows of the accounts that the block touches, so that it can neither read
another account nor write one; what it may write is capped by the shape of `ModuleView.rows`.

Invariant: a transaction's verdict depends on the parent block's rows and on earlier transactions
of the same block that share an account with it, on nothing else (not on batch borders, not on
unrelated accounts, not on reports of the same block: those take effect after it).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

SCORE_MAX: Final = 10_000  # a score reads as hundredths of a per cent of risk
REFUSE_NEVER: Final = SCORE_MAX + 1  # as a threshold: no score reaches it
MODULE_ROW_BYTES_MAX: Final = 256  # a million accounts with one module stay under 256 MB

ACCEPT: Final = 0
FLAG: Final = 1
REFUSE: Final = 2
OUTCOME_NAMES: Final = ("accept", "flag", "refuse")


_NONE_WITHDRAWN: Final[NDArray[np.bool_]] = np.zeros(0, dtype=np.bool_)
_NO_MEMO: Final[NDArray[np.uint8]] = np.zeros(0, dtype=np.uint8)
_NONE_REPEATED: Final[NDArray[np.bool_]] = np.zeros(0, dtype=np.bool_)
_LEFT_OUT: Final[tuple[tuple[str, NDArray[Any]], ...]] = (
    ("is_withdrawn", _NONE_WITHDRAWN),
    ("memo", _NO_MEMO),
    ("is_repeated", _NONE_REPEATED),
)


@dataclass(frozen=True, slots=True)
class TransferColumns:
    """The scored transactions of a block, in block order, as columns of equal length n.

    sender, receiver: int64[n], indices into `ModuleView.rows` (may be equal).
    amount: int64[n], smallest units, 0 <= amount < 2**53.  timestamp_ms: int64[n], since the epoch.
    """

    sender: NDArray[np.int64]
    receiver: NDArray[np.int64]
    amount: NDArray[np.int64]
    timestamp_ms: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.amount)


@dataclass(frozen=True, slots=True)
class ReportColumns:
    """What a block says of fraud, in block order: the columns of the *reported* transactions.

    sender, receiver: int64[m], indices into `ModuleView.rows`; amount, timestamp_ms: int64[m] as
    the reported transaction carried them; score: int64[m], what it scored in its block.
    is_withdrawn: bool[m], the report of an earlier block is taken back; memo: uint8[m], then what this
    module noted when it came (`Verdicts.memo`), otherwise 0. is_repeated: bool[m], another report of the same
    sender and receiver came before it in the same period (`Parameters.report_pair_ms`): true or not, it says
    little that is new of the receiver. Left out: none is any of these.
    A transaction is told of at most once until that is withdrawn, and the order within a block counts.
    They take effect after the block's transfers: the next block is the first to see them.
    """

    sender: NDArray[np.int64]
    receiver: NDArray[np.int64]
    amount: NDArray[np.int64]
    timestamp_ms: NDArray[np.int64]
    score: NDArray[np.int64]
    is_withdrawn: NDArray[np.bool_] = field(default_factory=lambda: _NONE_WITHDRAWN)
    memo: NDArray[np.uint8] = field(default_factory=lambda: _NO_MEMO)
    is_repeated: NDArray[np.bool_] = field(default_factory=lambda: _NONE_REPEATED)

    def __post_init__(self) -> None:
        for name, left_out in _LEFT_OUT:
            if getattr(self, name) is left_out:
                object.__setattr__(self, name, np.zeros(len(self.amount), dtype=left_out.dtype))

    def __len__(self) -> int:
        return len(self.amount)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Chain parameters: the lowest scores that are flagged and refused (0..REFUSE_NEVER)."""

    flag_score_min: int
    refuse_score_min: int


@dataclass(frozen=True, slots=True)
class ModuleView:
    """All a module may read: uint8[k, row_bytes] of the k touched accounts, at the parent block.

    `rows` is read-only; the row of an account that does not exist yet is all zeros.
    """

    rows: NDArray[np.uint8]
    thresholds: Thresholds


@dataclass(frozen=True, slots=True)
class Verdicts:
    """score: int64[n] in 0..SCORE_MAX, monotone in risk; outcome: uint8[n] (ACCEPT, FLAG, REFUSE).

    memo: uint8[m], for each report what it did to the rows, in the module's own words: the ledger keeps it
    with the report and gives it back if that is withdrawn. None: all 0 (a module that learns nothing).
    """

    score: NDArray[np.int64]
    outcome: NDArray[np.uint8]
    memo: NDArray[np.uint8] | None = None

    @classmethod
    def from_scores(cls, score: NDArray[np.int64], thresholds: Thresholds) -> Verdicts:
        outcome = np.zeros(len(score), dtype=np.uint8)
        outcome[score >= thresholds.flag_score_min] = FLAG
        outcome[score >= thresholds.refuse_score_min] = REFUSE
        return cls(score, outcome)


@dataclass(frozen=True, slots=True)
class Contribution:
    """One feature's share of a score's margin, exact: base + sum of contributions = margin."""

    feature: str  # its name in the module
    value: int  # its value for this transaction, in the feature's own unit
    contribution: int  # signed, in the module's margin units
    words: str  # for a person: "amount is 5.1 times the sender's mean"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a transaction scored what it scored. margin == base + sum(c.contribution for c in ...)."""

    score: int
    outcome: int
    base: int
    margin: int
    contributions: tuple[Contribution, ...]  # largest magnitude first


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """A change with which a module accepts the transaction. what: "amount" (smallest units) or "time_ms"."""

    what: str
    value: int
    score: int
    words: str


class ValidationModule(Protocol):
    """A consensus module: deterministic, identified by `digest`, recomputed by every validator.

    It may also have `rows_key`, 32 bytes, and `thresholds`, those it suggests: see `get_rows_key`.
    """

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> bytes:
        """32 bytes over the artifact, the feature definitions and the verdicts on a probe set."""
        ...

    @property
    def row_bytes(self) -> int:
        """State kept per account, 0..MODULE_ROW_BYTES_MAX bytes; part of the account's leaf."""
        ...

    def evaluate(
        self, transactions: TransferColumns, reports: ReportColumns, view: ModuleView
    ) -> tuple[Verdicts, NDArray[np.uint8]]:
        """Score a block in one pass; return the verdicts and the new rows (shape of view.rows).

        A report that is withdrawn must leave the rows as if it had not come, as far as they still know
        of its day.
        """
        ...

    def explain(self, transactions: TransferColumns, view: ModuleView, index: int) -> Explanation:
        """Why transactions[index] gets the score that `evaluate` gives it."""
        ...


class AdvisingModule(Protocol):
    """What a module may offer beside the contract: what would have to change. Nothing depends on it."""

    def find_counterfactuals(
        self, transactions: TransferColumns, view: ModuleView, index: int
    ) -> tuple[Counterfactual, ...]:
        """The nearest changes of transactions[index], one of each kind at most; () if it is accepted as it is."""
        ...


# What an entry point of the group `assay.modules` names: artifact bytes in, module out.
ModuleFactory = Callable[[bytes], ValidationModule]
# The same with the name to look under; raises Rejected when nothing sound comes of it.
ModuleLoader = Callable[[str, bytes], ValidationModule]


def get_rows_key(module: ValidationModule) -> bytes:
    """32 bytes: modules of equal keys read each other's rows. Its digest, unless it states `rows_key`."""
    key: bytes = getattr(module, "rows_key", module.digest)
    return key
