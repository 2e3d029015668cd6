"""Rows and their budgets; the table for people and the document for programs.

A budget of a rate is a multiple of the raw rate of the same minutes (machines differ, ratios travel); all
others are in the row's own unit. Names up to million_accounts_rss_mb are fixed: scripts rely on them.
Invariant: a row whose measurement failed has no value and did not meet its budget.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from consensus import crypto

TPS: Final = "tx/s"


@dataclass(frozen=True, slots=True)
class Spec:
    """What a row is. budget: None where the row only informs. is_ratio: the budget is a multiple of raw."""

    name: str
    unit: str
    budget: float | None = None
    is_ratio: bool = False
    is_more_better: bool = False


def _rate(name: str, budget: float | None = None) -> Spec:
    return Spec(name, TPS, budget, is_ratio=True, is_more_better=True)


SPECS: Final = (
    _rate("reexecute", 0.60),
    _rate("one_validator_tps", 0.35),
    _rate("four_validator_tps", 0.12),
    Spec("latency_unloaded_p50_ms", "ms", 60),
    Spec("latency_unloaded_p99_ms", "ms", 200),
    Spec("latency_loaded_p50_ms", "ms", 600),
    Spec("latency_loaded_p99_ms", "ms", 2_000),
    Spec("idle_cpu_percent", "%", 2),
    Spec("idle_rss_mb", "MB", 120),
    Spec("first_final_seconds", "s", 2),
    _rate("catch_up", 0.45),
    Spec("score_us_per_tx", "us/tx", 4),
    Spec("block_cost_growth", "x", 1.3),
    Spec("million_accounts_rss_mb", "MB", 1_000),
    # What helps to read those above; nothing outside relies on these names.
    Spec("all_up_seconds", "s", 1),
    _rate("reexecute_all_cores"),
    Spec("block_us_per_tx", "us/tx"),
    Spec("block_us_per_tx_million", "us/tx"),
    Spec("million_accounts_peak_mb", "MB"),
    Spec("store_bytes_per_tx", "B/tx"),
    Spec("load_us_per_tx", "us/tx"),
    Spec("simulate_engines", "runs/s", is_more_better=True),
    Spec("simulate_nodes", "runs/s", is_more_better=True),
    # Overload and the long run: asked for by name.
    Spec("overload_peak_tps", TPS, is_more_better=True),
    Spec("overload_offered_tps", TPS, is_more_better=True),
    Spec("overload_load_cores", "cores"),
    Spec("overload_finality", "x", 0.8, is_more_better=True),
    Spec("overload_lost", "tx", 0),
    Spec("overload_rss_mb", "MB"),
    Spec("overload_rss_growth", "x", 1.3),
    Spec("overload_api_p99_ms", "ms", 5_000),
    Spec("overload_recovery_seconds", "s", 10),
    Spec("long_run_tps", TPS, is_more_better=True),
    Spec("long_run_lost", "tx", 0),
    Spec("long_run_rss_mb", "MB"),
    Spec("long_run_own_mb", "MB"),
    Spec("long_run_rss_growth", "x", 1.15),
    Spec("long_run_backlog_growth", "x", 1.5),
    Spec("long_run_slowdown", "x", 1.5),
    Spec("long_run_store_bytes_per_tx", "B/tx"),
)
SPEC_BY_NAME: Final = {spec.name: spec for spec in SPECS}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the document. value None: it could not be measured. met None: there is no budget."""

    name: str
    value: float | None
    unit: str
    ratio_to_raw: float | None
    budget: float | None
    met: bool | None


def make_row(name: str, value: float | None, raw_per_second: float) -> Row:
    """The row of a value, measured while the raw rate was `raw_per_second`."""
    spec = SPEC_BY_NAME[name]
    if value is None:
        return Row(name, None, spec.unit, None, spec.budget, None if spec.budget is None else False)
    ratio = compute_ratio(spec, value, raw_per_second)
    met = None
    if spec.budget is not None:
        judged = ratio if spec.is_ratio else value
        assert judged is not None
        met = judged >= spec.budget if spec.is_more_better else judged <= spec.budget
    return Row(name, round_figure(value), spec.unit, ratio, spec.budget, met)


def compute_ratio(spec: Spec, value: float, raw_per_second: float) -> float | None:
    """A rate as a multiple of the raw rate, a cost as a multiple of one verification; None for the rest."""
    if spec.unit == TPS:
        return round(value / raw_per_second, 4)
    if spec.unit == "us/tx":
        return round(value * raw_per_second / 1e6, 4)
    return None


def round_figure(value: float) -> float:
    """Four figures are more than any of it is good for; counts stay whole."""
    return round(value) if abs(value) >= 1_000 or value == round(value) else float(f"{value:.4g}")


def form_document(raw_per_second: float, rows: Sequence[Row]) -> dict[str, Any]:
    return {"raw_verify_per_second": round(raw_per_second), "rows": [asdict(row) for row in rows]}


def describe(raw_per_second: float, rows: Sequence[Row], notes: Sequence[str] = ()) -> str:
    """The table, and below it the machine and what went wrong."""
    titles = ("row", "value", "unit", "ratio to raw", "budget", "met")
    lines = [titles, *map(_show, rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(titles))]
    shown = [
        "  ".join(
            cell.ljust(width) if place in (0, 2) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    shown += ["", f"raw: {raw_per_second:,.0f} verifications a second on one core ({crypto.BACKEND.name})"]
    shown += [describe_machine(), *notes]
    return "\n".join(shown)


def describe_machine() -> str:
    version = platform.python_version()
    return f"machine: {os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {version}"


def _show(row: Row) -> tuple[str, ...]:
    spec = SPEC_BY_NAME[row.name]
    budget = ""
    if row.budget is not None:
        sign = ">=" if spec.is_more_better else "<="
        budget = f"{sign} {row.budget:,g}" + (" x raw" if spec.is_ratio else "")
    return (
        row.name,
        "failed" if row.value is None else f"{row.value:,}",
        row.unit,
        "" if row.ratio_to_raw is None else f"{row.ratio_to_raw:.3f}",
        budget,
        "" if row.met is None else ("yes" if row.met else "NO"),
    )
