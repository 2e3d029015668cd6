"""The fraud module: features, integer forest, calibrated score, and why, in words.

Invariant: `evaluate` is a pure function of artifact, columns and rows, in integers only. `digest` covers
the artifact, the version of the feature definitions, the row layout and what this code answers to a fixed
probe set, so that code which computes anything differently is found at start and not in a vote.
The entry point is `load`. Leaves out: which thresholds hold (the chain's parameters, in the view).
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from importlib.resources import files
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consensus.codec import encode
from consensus.ledger.scoring import (
    Contribution,
    Counterfactual,
    Explanation,
    ModuleView,
    ReportColumns,
    Thresholds,
    TransferColumns,
    Verdicts,
)
from ml.counterfactual import find_counterfactuals
from ml.definitions import DAY_MS, FEATURES_VERSION
from ml.features import describe_row, observe
from ml.model import Model, decode_model
from ml.words import describe_feature, measure_feature

PROBE_BLOCKS: Final = 12  # days of the probe: enough for reports to come and clean days to ripen
PROBE_ROWS: Final = 48  # transactions a block, among 16 accounts
DIGEST_DOMAIN: Final = b"assay/module/fraud"


def load(artifact: bytes) -> FraudModule:
    """The module that an artifact makes. Raises Rejected if it is not a model of this version."""
    return FraudModule(artifact)


def read_default_artifact() -> bytes:
    """The model that ships: trained on synthetic workloads (docs/scoring.md has the command)."""
    return files("ml").joinpath("models/fraud.model").read_bytes()


class FraudModule:
    """A ValidationModule over one model artifact; holds no state but the artifact."""

    name: Final = "fraud"

    def __init__(self, artifact: bytes) -> None:
        self.model: Model = decode_model(artifact)
        self.row_bytes: Final = self.model.definitions.row_bytes
        self._digest = self._compute_digest(artifact)

    @property
    def digest(self) -> bytes:
        """32 bytes over the artifact, the feature definitions and the verdicts on the probe set."""
        return self._digest

    @property
    def rows_key(self) -> bytes:
        """Models of equal keys go on with each other's rows."""
        return self.model.definitions.rows_key

    @property
    def thresholds(self) -> Thresholds:
        """What the artifact suggests for a chain's parameters."""
        return self.model.thresholds

    def evaluate(
        self, transactions: TransferColumns, reports: ReportColumns, view: ModuleView
    ) -> tuple[Verdicts, NDArray[np.uint8]]:
        """Score a block in one pass; rows are uint8[k, row_bytes]."""
        seen = observe(transactions, reports, view.rows, self.model.scale, self.model.definitions)
        score = self.model.compute_scores(seen.features)
        return replace(Verdicts.from_scores(score, view.thresholds), memo=seen.memo), seen.rows

    def explain(self, transactions: TransferColumns, view: ModuleView, index: int) -> Explanation:
        """Why transactions[index] gets its score: Saabas contributions, which add up to the margin."""
        definitions = self.model.definitions
        seen = observe(transactions, _NO_REPORTS, view.rows, self.model.scale, definitions)
        forest = self.model.forest
        features = seen.features[index]
        shares = forest.explain_margin(features)
        margin = forest.base + int(shares.sum())
        score = self.model.calibration.compute_scores(np.array([margin]))
        outcome = Verdicts.from_scores(score, view.thresholds).outcome[0]
        amount = int(transactions.amount[index])
        contributions = tuple(
            Contribution(
                feature=feature.name,
                value=measure_feature(feature, byte, amount, int(seen.ratio_64[index])),
                contribution=int(shares[number]),
                words=describe_feature(definitions, feature, byte, amount, seen, index),
            )
            for number in np.argsort(-np.abs(shares), kind="stable").tolist()
            for feature, byte in [(definitions.features[number], int(features[number]))]
        )
        return Explanation(int(score[0]), int(outcome), forest.base, margin, contributions)

    def find_counterfactuals(
        self, transactions: TransferColumns, view: ModuleView, index: int
    ) -> tuple[Counterfactual, ...]:
        """What would have to change for transactions[index] to be accepted (some 50 ms: ask, do not always)."""
        return find_counterfactuals(self.model, transactions, view, index)

    def describe_row(self, row: bytes) -> dict[str, int]:
        """What the module keeps of an account, for people."""
        return describe_row(row, self.model.definitions)

    def _compute_digest(self, artifact: bytes) -> bytes:
        seen = sha256()
        rows = np.zeros((16, self.row_bytes), dtype=np.uint8)
        came: tuple[ReportColumns, NDArray[np.uint8]] | None = None
        for transactions, reports in _make_probe():
            view = ModuleView(rows, _PROBE_THRESHOLDS)
            told = reports if came is None else _join_reports(reports, _withdraw_some(*came))
            verdicts, rows = self.evaluate(transactions, told, view)
            memo = np.zeros(len(told), dtype=np.uint8) if verdicts.memo is None else verdicts.memo
            came = reports, memo[: len(reports)]
            seen.update(verdicts.score.astype("<i8").tobytes() + verdicts.outcome.tobytes())
            seen.update(memo.tobytes() + rows.tobytes())
        row = self.model.definitions.rules.row
        layout = tuple(f"{name} {row[name].str} {row[name].shape}" for name in row.names or ())
        return sha256(
            encode((DIGEST_DOMAIN, sha256(artifact).digest(), FEATURES_VERSION, layout, seen.digest()))
        ).digest()


_NONE: Final = np.zeros(0, dtype=np.int64)
_NO_REPORTS: Final = ReportColumns(_NONE, _NONE, _NONE, _NONE, _NONE)
_PROBE_THRESHOLDS: Final = Thresholds(flag_score_min=100, refuse_score_min=5_000)


def _withdraw_some(reports: ReportColumns, memo: NDArray[np.uint8]) -> ReportColumns:
    """Every third of the block before is taken back."""
    r, chosen = (
        replace(reports, is_withdrawn=np.ones(len(reports), dtype=np.bool_), memo=memo),
        slice(0, None, 3),
    )
    return ReportColumns(*(getattr(r, name)[chosen] for name in ReportColumns.__slots__))


def _join_reports(first: ReportColumns, second: ReportColumns) -> ReportColumns:
    names = ReportColumns.__slots__
    return ReportColumns(*(np.concatenate((getattr(first, n), getattr(second, n))) for n in names))


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
            reports = ReportColumns(
                of.sender[chosen],
                of.receiver[chosen],
                of.amount[chosen],
                of.timestamp_ms[chosen],
                np.zeros(len(chosen), dtype=np.int64),
                is_repeated=of.receiver[chosen] + of.sender[chosen] > 16,
            )
        blocks.append((transactions, reports))
    return blocks
