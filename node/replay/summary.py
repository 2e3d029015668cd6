"""The report of a replay: counts, pace, latency, quality against the labels, agreement of the nodes.

`build_report` makes the JSON of docs/replay.md, The report; `describe` says it to people.
Quality counts every row that has a score: a final row with its block's, a refused one with its
refusal's. Floats live here and nowhere near a score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from consensus.ledger.scoring import FLAG
from ml import metrics
from node.replay.outcomes import FAILED, FINAL, NO_SCORE, REFUSED, Outcomes

FALSE_POSITIVE_RATES: Final = ("0.0001", "0.0005", "0.001")
PERCENTILES: Final = (50, 95, 99)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the nodes hold at one height that all who answered have made final.

    differing: names and state roots, when they are not all equal; unreachable: names of those without an answer.
    """

    height: int
    block_hash: bytes
    state_root: bytes
    agreeing: int
    differing: tuple[str, ...]
    unreachable: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        return self.agreeing > 0 and not self.differing and not self.unreachable


def build_report(outcomes: Outcomes, seconds: float, agreement: Agreement) -> Json:
    """The report's fixed keys."""
    counts = outcomes.counts
    final = counts[FINAL]
    latencies = outcomes.latency_ms[(outcomes.state == FINAL) & (outcomes.latency_ms >= 0)]
    report: Json = {
        "submitted": outcomes.submitted,
        "final": final,
        "refused": counts[REFUSED],
        "flagged": int(np.count_nonzero((outcomes.state == FINAL) & (outcomes.outcome == FLAG))),
        "failed": counts[FAILED],
        "seconds": round(seconds, 3),
        "tps": round(final / seconds, 1) if seconds > 0 else 0.0,
        "latency_ms": {
            f"p{p}": round(float(np.percentile(latencies, p)), 1) if len(latencies) else None
            for p in PERCENTILES
        },
        "quality": build_quality(outcomes),
        "state_root": "0x" + agreement.state_root.hex(),
        "height": agreement.height,
        "nodes_agree": agreement.is_complete,
    }
    report["block_hash"] = "0x" + agreement.block_hash.hex()
    report["nodes_agreeing"] = agreement.agreeing
    report["unreachable"] = list(agreement.unreachable)
    report["differing"] = list(agreement.differing)
    return report


def build_quality(outcomes: Outcomes) -> Json | None:
    """How well scores rank the labels; None without labels."""
    fraud = outcomes.fraud
    if fraud is None:
        return None
    scored = (outcomes.score != NO_SCORE) & ((outcomes.state == FINAL) | (outcomes.state == REFUSED))
    labels, scores = fraud[scored], outcomes.score[scored]
    positives = int(labels.sum())
    is_rankable = 0 < positives < len(labels)  # with one kind of row there is nothing to rank
    recall: Json = {}
    precision: Json = {}
    for rate in FALSE_POSITIVE_RATES:
        recall_at, precision_at, _ = metrics.compute_at_fpr(labels, scores, float(rate))
        recall[rate], precision[rate] = round(recall_at, 4), round(precision_at, 4)
    return {
        "rows": len(labels),
        "positives": positives,
        "average_precision": round(metrics.compute_average_precision(labels, scores), 4)
        if is_rankable
        else None,
        "roc_auc": round(metrics.compute_roc_auc(labels, scores), 4) if is_rankable else None,
        "recall_at_fpr": recall,
        "precision_at_fpr": precision,
        "confusion": build_confusion(outcomes, fraud),
    }


def build_confusion(outcomes: Outcomes, fraud: NDArray[np.uint8]) -> dict[str, dict[str, int]]:
    """Rows by what became of them (accepted means final without a flag) and by label."""
    is_final = outcomes.state == FINAL
    groups = {
        "refused": outcomes.state == REFUSED,
        "flagged": is_final & (outcomes.outcome == FLAG),
        "accepted": is_final & (outcomes.outcome != FLAG),
    }
    return {
        name: {
            "fraud": int(np.count_nonzero(rows & (fraud == 1))),
            "clean": int(np.count_nonzero(rows & (fraud == 0))),
        }
        for name, rows in groups.items()
    }


def compute_caught(confusion: Mapping[str, Mapping[str, int]]) -> tuple[float, float]:
    """(recall, precision) of refusing or flagging; 0.0 where there is nothing to divide by."""
    caught = confusion["refused"]["fraud"] + confusion["flagged"]["fraud"]
    alarms = caught + confusion["refused"]["clean"] + confusion["flagged"]["clean"]
    frauds = caught + confusion["accepted"]["fraud"]
    return caught / frauds if frauds else 0.0, caught / alarms if alarms else 0.0


def describe(report: Mapping[str, Any], names: Sequence[str]) -> str:
    """The closing summary for people."""
    latency = report["latency_ms"]
    lines = [
        f"  submitted   {report['submitted']:>10,}",
        f"  final       {report['final']:>10,}   ({report['flagged']:,} flagged)",
        f"  refused     {report['refused']:>10,}",
        f"  failed      {report['failed']:>10,}",
    ]
    lines += [f"      {count:,} {reason}" for reason, count in report["failures"].items()]
    lines.append(
        f"  pace        {report['tps']:>10,.0f}   final transactions a second, for {report['seconds']:.1f} s"
    )
    if latency["p50"] is not None:
        p50, p95, p99 = (f"{latency[name] / 1000:.2f} s" for name in ("p50", "p95", "p99"))
        lines.append(f"  latency     {p50:>10}   half of them; 95 % {p95}, 99 % {p99}")
    reports = report["reports"]
    if reports["posted"] or reports["not_due"]:
        lines.append(
            f"  reports     {reports['final']:>10,}   of fraud on chain, {reports['failed']:,} failed, "
            f"{reports['not_due']:,} not due yet"
        )
    if report["quality"] is not None:
        lines += _describe_quality(report["quality"])
    if report["nodes_agree"]:
        lines.append(
            f"  agreement   all {len(names)} nodes hold state root {report['state_root'][:18]}… "
            f"at height {report['height']:,}"
        )
    else:
        lines.append(f"  agreement   NO: {report['nodes_agreeing']} of {len(names)} nodes agree")
        lines += [f"      {name} differs" for name in report["differing"]]
        lines += [f"      {name} does not answer, or stays behind" for name in report["unreachable"]]
    if report["interrupted"]:
        lines.insert(0, "  INTERRUPTED: what follows is what was done until then")
    return "\n".join(lines)


def _describe_quality(quality: Mapping[str, Any]) -> list[str]:
    confusion = quality["confusion"]
    recall, precision = compute_caught(confusion)
    caught = confusion["refused"]["fraud"] + confusion["flagged"]["fraud"]
    lines = [
        f"  frauds      {quality['positives']:>10,}   of {quality['rows']:,} rows by their labels",
        f"  caught      {caught:>10,}   refused or flagged: recall {recall:.1%}, precision {precision:.1%}",
    ]
    if quality["average_precision"] is not None:
        ranking, roc_auc = quality["average_precision"], quality["roc_auc"]
        lines.append(f"  ranking     {ranking:>10.3f}   average precision; ROC AUC {roc_auc:.3f}")
    recalls = ", ".join(
        f"{value:.1%} at {float(rate):.2%}" for rate, value in quality["recall_at_fpr"].items()
    )
    lines.append(f"  recall at false-positive rates: {recalls}")
    return lines
