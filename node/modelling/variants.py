"""`assay model evaluate --variants`: how far a model falls where frauds go about it differently."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from ml.evaluation import measure_run, play_run
from ml.fraud import FraudModule
from ml.variants import VARIANTS
from node.display import print_table
from node.modelling.files import Progress, get_plan, print_json


def measure_variants(module: FraudModule, args: argparse.Namespace) -> int:
    plan, lines = get_plan(args), []
    for variant in VARIANTS:
        workload = variant.generate()
        run = play_run(workload.trace, module, len(workload.trace), plan, args.seed, Progress())
        figures = measure_run(run, np.arange(len(run.score)))
        score, limit = run.score, module.thresholds.refuse_score_min
        clean = workload.pattern == 0
        lines.append(
            {
                "variant": variant.name,
                "base": variant.base,
                "rows": figures.rows,
                "positives": figures.positives,
                "average_precision": figures.average_precision,
                "recall_at_fpr_0.001": figures.at_fpr[-1][1],
                "refused_clean": float((score[clean] >= limit).mean()),
                "refused_by_pattern": {
                    name: float((score[workload.pattern == number] >= limit).mean())
                    for number, name in enumerate(workload.patterns)
                    if number and (workload.pattern == number).any()
                },
            }
        )
    if args.json:
        print_json({"variants": lines})
    else:
        _print(lines)
    return 0


def _print(lines: list[dict[str, Any]]) -> None:
    base = {line["variant"]: line["average_precision"] for line in lines}
    head = (
        "variant",
        "frauds",
        "AP",
        "falls by",
        "recall at 0.1 %",
        "refused clean",
        "refused frauds, by pattern",
    )
    rows = []
    for line in lines:
        fall = base[line["base"]] - line["average_precision"]
        patterns = ", ".join(f"{name} {share:.2f}" for name, share in line["refused_by_pattern"].items())
        rows.append(
            (
                line["variant"],
                f"{line['positives']:,}",
                f"{line['average_precision']:.3f}",
                "" if line["variant"] == line["base"] else f"{fall:+.3f}",
                f"{line['recall_at_fpr_0.001']:.3f}",
                f"{line['refused_clean']:.3%}",
                patterns,
            )
        )
    print_table(head, rows)
