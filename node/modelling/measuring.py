"""`assay model evaluate`: figures beside the published ones, for people, as JSON and as one HTML file.

Every regime plays the trace from its first row (state warms up; labels come as reports only). Bands and
curves are of the first regime; the threshold they are taken at is the model's own, chosen before it saw
these rows.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from consensus.errors import Rejected
from consensus.ledger.scoring import SCORE_MAX, Thresholds
from ml.bands import Band, compute_bands
from ml.charts import draw_curves, draw_scores, trace_precision_recall, trace_reliability
from ml.dataset import Trace
from ml.evaluation import (
    PUBLISHED,
    REGIMES,
    Evaluation,
    Run,
    measure_run,
    measure_weeks,
    play_run,
    select_rows,
)
from ml.fraud import FraudModule
from ml.metrics import ReliabilityBin, compute_calibration_error, compute_reliability
from ml.report import Section, write_page
from ml.training import find_rows
from node.display import print_table
from node.modelling.files import (
    Progress,
    check_folder,
    check_seed,
    get_days,
    get_plan,
    print_json,
    read_artifact,
    read_data,
    replace_file,
)
from node.modelling.variants import measure_variants

PUBLISHED_TEST: Final = (58_264, 385)  # rows and frauds of the published test week


@dataclass(frozen=True, slots=True)
class Operation:
    """What one of the model's own thresholds does to the measured rows."""

    name: str
    score_min: int
    recall: float
    precision: float
    false_positive_rate: float


@dataclass(frozen=True)
class Measurement:
    """All that is told of one model on one trace; lists are of the first regime."""

    module: FraudModule
    days: tuple[int, int]
    handbook: bool
    figures: dict[str, Evaluation]  # by regime
    weeks: dict[str, list[tuple[int, Evaluation]]]
    operations: list[Operation]
    reliability: list[ReliabilityBin]
    bands: list[Band]
    run: Run
    rows: np.ndarray[Any, np.dtype[np.int64]]


def evaluate(args: argparse.Namespace) -> int:
    check_seed(args.seed)
    if args.html:
        check_folder(Path(args.html))
    module = FraudModule(read_artifact(args.model))
    if args.variants:
        return measure_variants(module, args)
    if not args.data:
        raise Rejected("names no file", field="--data", mend="name a CSV, or measure on --variants")
    plans = REGIMES if args.regimes else {"as asked": get_plan(args)}
    trace = read_data(args)
    days = get_days(args, trace)
    first, end = find_rows(trace, *days)
    handbook = args.protocol == "handbook"
    rows = select_rows(trace, *days, handbook)
    figures, weeks, first_run = {}, {}, None
    for name, plan in plans.items():
        run = play_run(trace, module, end, plan, args.seed, Progress())
        first_run = first_run or run
        figures[name] = measure_run(run, rows)
        if args.weekly:
            weeks[name] = measure_weeks(run, *days, handbook)
    assert first_run is not None
    if args.scores:
        text = "\n".join(map(str, first_run.score[first:end].tolist())) + "\n"
        replace_file(Path(args.scores), text.encode())
    measured = _complete(module, days, handbook, figures, weeks, first_run, rows)
    if args.html:
        replace_file(Path(args.html), write_html(measured).encode())
    if args.json:
        print_json(describe(measured, bool(args.regimes)))
    else:
        _print(measured, bool(args.regimes))
    return 0


def _complete(
    module: FraudModule,
    days: tuple[int, int],
    handbook: bool,
    figures: dict[str, Evaluation],
    weeks: dict[str, list[tuple[int, Evaluation]]],
    run: Run,
    rows: np.ndarray[Any, np.dtype[np.int64]],
) -> Measurement:
    assert run.trace.fraud is not None
    fraud, score = run.trace.fraud[rows], run.score[rows]
    limits: Thresholds = module.thresholds
    operations = []
    for name, score_min in (("flag", limits.flag_score_min), ("refuse", limits.refuse_score_min)):
        hit = score >= score_min
        caught, troubled = int((hit & (fraud == 1)).sum()), int((hit & (fraud == 0)).sum())
        operations.append(
            Operation(
                name,
                score_min,
                recall=caught / max(int(fraud.sum()), 1),
                precision=caught / max(caught + troubled, 1),
                false_positive_rate=troubled / max(int((fraud == 0).sum()), 1),
            )
        )
    bands = compute_bands(run.trace, run.score, rows, limits.refuse_score_min)
    reliability = compute_reliability(fraud, score)
    return Measurement(module, days, handbook, figures, weeks, operations, reliability, bands, run, rows)


def describe(measured: Measurement, regimes: bool) -> dict[str, Any]:
    """The JSON document: the first regime's figures on top, all regimes by name where they were asked for."""
    document = _describe_figures(next(iter(measured.figures.values())))
    document["thresholds"] = [asdict(operation) for operation in measured.operations]
    document["calibration_error"] = compute_calibration_error(measured.reliability)
    document["reliability"] = [asdict(b) for b in measured.reliability]
    document["bands"] = [asdict(band) for band in measured.bands]
    if regimes:
        document["regimes"] = {name: _describe_figures(f) for name, f in measured.figures.items()}
    if measured.weeks:
        document["weeks"] = {
            name: [{"day_start": day, **_describe_figures(figures)} for day, figures in weeks]
            for name, weeks in measured.weeks.items()
        }
    return document


def _describe_figures(figures: Evaluation) -> dict[str, Any]:
    return {
        "rows": figures.rows,
        "positives": figures.positives,
        "average_precision": figures.average_precision,
        "roc_auc": figures.roc_auc,
        "card_precision_at_100": figures.card_precision_at_100,
        "recall_at_fpr": {name_fpr(fpr): recall for fpr, recall, _ in figures.at_fpr},
        "precision_at_fpr": {name_fpr(fpr): precision for fpr, _, precision in figures.at_fpr},
        "microseconds_per_transaction": figures.microseconds_per_transaction,
    }


def name_fpr(fpr: float) -> str:
    return f"{fpr:.4f}".rstrip("0")


def list_figures(measured: Measurement, regimes: bool) -> list[list[str]]:
    """The table of figures, its head first: each regime's, and the published ones beside them."""
    fprs = [f"{fpr * 100:g} %" for fpr, _, _ in next(iter(measured.figures.values())).at_fpr]
    head = [
        "",
        "AP",
        "ROC",
        "CP@100",
        *(f"recall at {f}" for f in fprs),
        *(f"precision at {f}" for f in fprs),
    ]
    table = [head]
    for name, figures in measured.figures.items():
        table.append(
            [
                f"this model, {name}" if regimes else "this model",
                *(f"{v:.3f}" for v in (figures.average_precision, figures.roc_auc)),
                f"{figures.card_precision_at_100:.3f}",
                *(f"{recall:.3f}" for _, recall, _ in figures.at_fpr),
                *(f"{precision:.3f}" for _, _, precision in figures.at_fpr),
            ]
        )
    if measured.handbook:
        for name, *values in PUBLISHED:
            table.append([f"published: {name}", *(f"{v:.3f}" for v in values), *["-"] * (2 * len(fprs))])
    return table


def list_weeks(measured: Measurement) -> list[list[str]]:
    """Average precision by week and regime, and the mean."""
    days = [day for day, _ in next(iter(measured.weeks.values()), [])]
    table = [["average precision", *(f"from day {day}" for day in days), "mean"]]
    for name, weeks in measured.weeks.items():
        values = [figures.average_precision for _, figures in weeks]
        table.append([name, *(f"{v:.3f}" for v in values), f"{sum(values) / len(values):.3f}"])
    return table


def list_operations(measured: Measurement) -> list[list[str]]:
    return [
        ["its own threshold", "from score", "recall", "precision", "of the clean"],
        *(
            [
                o.name,
                str(o.score_min),
                f"{o.recall:.3f}",
                f"{o.precision:.3f}",
                f"{o.false_positive_rate:.3%}",
            ]
            for o in measured.operations
        ),
    ]


def list_reliability(measured: Measurement) -> list[list[str]]:
    return [
        ["scores", "rows", "stated", "found"],
        *(
            [f"{b.low} to {min(b.high - 1, SCORE_MAX)}", f"{b.rows:,}", f"{b.stated:.2%}", f"{b.found:.2%}"]
            for b in measured.reliability
        ),
    ]


def list_bands(measured: Measurement) -> list[list[str]]:
    return [
        ["band", "", "rows", "frauds", "AP", "refused frauds", "refused clean", "stated", "found"],
        *(
            [
                b.kind,
                b.name,
                f"{b.rows:,}",
                f"{b.positives:,}",
                f"{b.average_precision:.3f}",
                f"{b.recall:.3f}",
                f"{b.false_positive_rate:.3%}",
                f"{b.stated:.2%}",
                f"{b.positives / b.rows:.2%}",
            ]
            for b in measured.bands
        ),
    ]


def _print(measured: Measurement, regimes: bool) -> None:
    figures = next(iter(measured.figures.values()))
    first, end = measured.days
    print(f"{figures.rows:,} rows, {figures.positives} frauds, days {first} to {end} (exclusive)")
    tables = [list_figures(measured, regimes)]
    if measured.weeks:
        tables.append(list_weeks(measured))
    tables += [list_operations(measured), list_reliability(measured), list_bands(measured)]
    for table in tables:
        _print_aligned(table)
        print()
    if measured.handbook and (figures.rows, figures.positives) != PUBLISHED_TEST:
        print("the published figures are of another test: {:,} rows, {} frauds".format(*PUBLISHED_TEST))
    error = compute_calibration_error(measured.reliability)
    print(f"stated and found risk lie {error:.2%} apart on average over rows")
    print(f"{figures.microseconds_per_transaction:.2f} µs a transaction, features and score")


def _print_aligned(table: list[list[str]]) -> None:
    head, *rows = table
    print_table(head, rows)


def write_html(measured: Measurement) -> str:
    """The report page: tables and the three kinds of curves."""
    trace: Trace = measured.run.trace
    assert trace.fraud is not None
    fraud, score = trace.fraud[measured.rows], measured.run.score[measured.rows]
    card, limits = measured.module.model.card, measured.module.thresholds
    first, end = measured.days
    figures = next(iter(measured.figures.values()))
    regimes = len(measured.figures) > 1
    sections = [
        Section(
            "Figures",
            "Labels reach the model as reports only; rows before the measured days warm its state up. "
            + ("Senders with a known fraud are left out, as published." if measured.handbook else ""),
            list_figures(measured, regimes),
        )
    ]
    if measured.weeks:
        sections.append(Section("Week by week", "", list_weeks(measured)))
    curve = trace_precision_recall("this model", fraud, score)
    chart = draw_curves([curve], "recall", "precision")
    sections += [
        Section("Precision and recall", "At every threshold, first regime.", (), [chart]),
        Section(
            "Thresholds",
            "Chosen in training as the lowest scores that keep to a budget of false positives.",
            list_operations(measured),
        ),
        Section(
            "Reliability",
            "A score reads as hundredths of a per cent of risk; on the diagonal it tells the truth.",
            list_reliability(measured),
            [draw_curves([trace_reliability("bins", measured.reliability)], "stated", "found", True)],
        ),
        Section(
            "Distribution of scores",
            "How many rows have which score; the scale is logarithmic.",
            (),
            [
                draw_scores(
                    fraud, score, [("flag", limits.flag_score_min), ("refuse", limits.refuse_score_min)]
                )
            ],
        ),
        Section(
            "By pattern, amount and age",
            "One threshold for all (the model's own for refusing): whom it finds and whom it troubles.",
            list_bands(measured),
        ),
    ]
    facts = [
        ("module digest", f"0x{measured.module.digest.hex()}"),
        (
            "trained on",
            f"{card.rows:,} rows, {card.positives:,} frauds, days {card.day_start} to {card.day_end}",
        ),
        *(("training data SHA-256", f"0x{digest.hex()}") for digest in card.data_sha256),
        ("by", f"{card.code_version}, seed {card.seed}"),
        ("measured on", f"{figures.rows:,} rows, {figures.positives:,} frauds, days {first} to {end}"),
        ("cost", f"{figures.microseconds_per_transaction:.2f} µs a transaction, features and score"),
    ]
    return write_page("How a fraud model did", facts, sections)
