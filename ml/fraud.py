"""The fraud module: features, integer forest, calibrated score, and why, in words.

Invariant: `evaluate` is a pure function of artifact, columns and rows, in integers only. `digest` covers
the artifact, the version of the feature definitions, the row layout and what this code answers to a fixed
probe set, so that code which computes anything differently is found at start and not in a vote.
The entry point is `load`. Leaves out: which thresholds hold (the chain's parameters, in the view).
"""

from __future__ import annotations

from hashlib import sha256
from importlib.resources import files
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consensus.codec import encode
from consensus.ledger.scoring import (
    Contribution,
    Explanation,
    ModuleView,
    ReportColumns,
    Thresholds,
    TransferColumns,
    Verdicts,
)
from ml.features import (
    BYTE_MAX,
    COUNTER_MAX,
    DAY_MS,
    FEATURE_NAMES,
    FEATURES_VERSION,
    ROW,
    ROW_BYTES,
    Observation,
    describe_row,
    observe,
)
from ml.model import Model, decode_model

PROBE_BLOCKS: Final = 12  # days of the probe: enough for reports to come and clean days to ripen
PROBE_ROWS: Final = 48  # transactions a block, among 16 accounts
DIGEST_DOMAIN: Final = b"assay/module/fraud"

# Of features counted by others: how the words put a value (0, 1 or more).
_COUNT_WORDS: Final = {
    "sent_lately": "the sender sent {} others in the same ten minutes",
    "run_reports": "the receiver has {} unexplained reports since its last clean day",
    "reports": "the receiver has {} unexplained reports within 40 days",
    "clean_since": "the receiver had {} clean transactions since its newest report",
    "clean_between": "the receiver had {} clean transactions between its reports",
}
_AGE_WORDS: Final = {
    "run_age_days": ("the receiver's reports since its last clean day began {} days ago", "no such reports"),
    "clean_age_days": ("the receiver's last clean day is {} days old", "the receiver has no clean day yet"),
    "newest_report_age_days": (
        "the receiver's newest reported day is {} days old",
        "no report on the receiver",
    ),
    "oldest_report_age_days": (
        "the receiver's oldest reported day is {} days old",
        "no report on the receiver",
    ),
}


def load(artifact: bytes) -> FraudModule:
    """The module that an artifact makes. Raises Rejected if it is not a model of this version."""
    return FraudModule(artifact)


def read_default_artifact() -> bytes:
    """The model that ships: trained on synthetic workloads (docs/scoring.md has the command)."""
    return files("ml").joinpath("models/fraud.model").read_bytes()


class FraudModule:
    """A ValidationModule over one model artifact; holds no state but the artifact."""

    name: Final = "fraud"
    row_bytes: Final = ROW_BYTES

    def __init__(self, artifact: bytes) -> None:
        self.model: Model = decode_model(artifact)
        self._digest = self._compute_digest(artifact)

    @property
    def digest(self) -> bytes:
        """32 bytes over the artifact, the feature definitions and the verdicts on the probe set."""
        return self._digest

    @property
    def thresholds(self) -> Thresholds:
        """What the artifact suggests for a chain's parameters."""
        return self.model.thresholds

    def evaluate(
        self, transactions: TransferColumns, reports: ReportColumns, view: ModuleView
    ) -> tuple[Verdicts, NDArray[np.uint8]]:
        """Score a block in one pass; rows are uint8[k, 226]."""
        seen = observe(transactions, reports, view.rows, self.model.scale)
        score = self.model.compute_scores(seen.features)
        return Verdicts.from_scores(score, view.thresholds), seen.rows

    def explain(self, transactions: TransferColumns, view: ModuleView, index: int) -> Explanation:
        """Why transactions[index] gets its score: Saabas contributions, which add up to the margin."""
        seen = observe(transactions, _NO_REPORTS, view.rows, self.model.scale)
        forest = self.model.forest
        features = seen.features[index]
        shares = forest.explain_margin(features)
        margin = forest.base + int(shares.sum())
        score = self.model.calibration.compute_scores(np.array([margin]))
        outcome = Verdicts.from_scores(score, view.thresholds).outcome[0]
        amount = int(transactions.amount[index])
        contributions = tuple(
            Contribution(
                feature=FEATURE_NAMES[number],
                value=_measure(number, int(features[number]), amount, int(seen.ratio_64[index])),
                contribution=int(shares[number]),
                words=_describe(number, int(features[number]), amount, seen, index),
            )
            for number in np.argsort(-np.abs(shares), kind="stable").tolist()
        )
        return Explanation(int(score[0]), int(outcome), forest.base, margin, contributions)

    def describe_row(self, row: bytes) -> dict[str, int]:
        """What the module keeps of an account, for people."""
        return describe_row(row)

    def _compute_digest(self, artifact: bytes) -> bytes:
        seen = sha256()
        rows = np.zeros((16, ROW_BYTES), dtype=np.uint8)
        for transactions, reports in _make_probe():
            view = ModuleView(rows, _PROBE_THRESHOLDS)
            verdicts, rows = self.evaluate(transactions, reports, view)
            seen.update(verdicts.score.astype("<i8").tobytes() + verdicts.outcome.tobytes() + rows.tobytes())
        layout = tuple(f"{name} {ROW[name].str} {ROW[name].shape}" for name in ROW.names or ())
        return sha256(
            encode((DIGEST_DOMAIN, sha256(artifact).digest(), FEATURES_VERSION, layout, seen.digest()))
        ).digest()


_NONE: Final = np.zeros(0, dtype=np.int64)
_NO_REPORTS: Final = ReportColumns(_NONE, _NONE, _NONE, _NONE, _NONE)
_PROBE_THRESHOLDS: Final = Thresholds(flag_score_min=100, refuse_score_min=5_000)


def _make_probe() -> list[tuple[TransferColumns, ReportColumns]]:
    """Blocks that visit every branch: bursts, late and far days, huge amounts, early and late reports.

    Numbers come from SHA-256 of a counter, so that no random generator has to be the same everywhere.
    """

    def draw(block: int, what: str, count: int, below: int) -> NDArray[np.int64]:
        words = b"".join(sha256(f"{what} {block} {i}".encode()).digest()[:8] for i in range(count))
        return (np.frombuffer(words, dtype="<u8") % below).astype(np.int64)

    blocks: list[tuple[TransferColumns, ReportColumns]] = []
    for block in range(PROBE_BLOCKS):
        n = PROBE_ROWS
        day = 20_000 + 2 * block + (40 if block > 9 else 0) - draw(block, "late", n, 12) // 10 * 9
        amount = draw(block, "amount", n, 20_000) * (1 + 30 * (draw(block, "large", n, 12) == 0))
        amount[0] = (0, 1, 2**40, 2**53 - 1)[block % 4]
        transactions = TransferColumns(
            draw(block, "sender", n, 8),
            draw(block, "receiver", n, 16),
            amount,
            day * DAY_MS + draw(block, "time", n, DAY_MS),
        )
        reports = _NO_REPORTS
        if block >= 3:
            of = blocks[block - 3][0]
            chosen = np.flatnonzero(of.receiver % 5 == 0)
            columns = (of.sender, of.receiver, of.amount, of.timestamp_ms, np.zeros(n, dtype=np.int64))
            reports = ReportColumns(*(column[chosen] for column in columns))
        blocks.append((transactions, reports))
    return blocks


def _measure(number: int, byte: int, amount: int, ratio_64: int) -> int:
    """A feature's value in its own unit: amount in units, the ratio in hundredths, else the byte."""
    name = FEATURE_NAMES[number]
    if name == "amount":
        return amount
    return ratio_64 * 100 // 64 if name == "amount_over_mean" else byte


def _describe(number: int, byte: int, amount: int, seen: Observation, index: int) -> str:
    name = FEATURE_NAMES[number]
    mean_16 = int(seen.mean_16[index])
    if name == "amount":
        return f"the amount is {amount:,}"
    if name == "amount_over_mean":
        if mean_16 == 0:
            return "the sender has no earlier amounts to compare with"
        tenths = int(seen.ratio_64[index]) * 10 // 64
        return f"the amount is {tenths // 10}.{tenths % 10} times the sender's mean ({mean_16 // 16:,})"
    if name == "evidence":
        # the byte counts quarters of a mean
        return f"amounts beyond 2.5 means came to {_or_more(byte, 4)} means in the sender's last 14 days"
    if name in _AGE_WORDS:
        some, none = _AGE_WORDS[name]
        return none if byte == BYTE_MAX else some.format(byte)
    return _COUNT_WORDS[name].format(_or_more(byte, 1) if byte else "no")


def _or_more(byte: int, parts: int) -> str:
    whole, rest = divmod(byte, parts)
    text = f"{whole}" if parts == 1 else f"{whole}.{rest * 100 // parts:02d}"
    return f"{text} or more" if byte == BYTE_MAX else text


assert COUNTER_MAX >= BYTE_MAX << 2  # a ring that is full gives the byte's maximum, in block or out of it
