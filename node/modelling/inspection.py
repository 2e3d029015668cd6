"""`assay model inspect`: what a model file holds, for people and as JSON."""

from __future__ import annotations

import argparse
from hashlib import sha256
from typing import Any

from ml.forest import LEAF
from ml.fraud import FraudModule
from node.modelling.files import print_json, read_artifact


def inspect_model(args: argparse.Namespace) -> int:
    about = describe_artifact(read_artifact(args.model))
    if args.json:
        print_json(about)
        return 0
    card = about["card"]
    print(f"module   {about['module']}  digest {about['digest']}")
    print(f"artifact {about['bytes']} bytes, sha256 {about['artifact_sha256']}")
    print(f"forest   {about['trees']} trees, {about['leaves']} leaves")
    print(f"suggests flag at {about['flag_score_min']}, refuse at {about['refuse_score_min']} of 10000")
    print(f"trained  {card['rows']} rows, {card['positives']} frauds, days {card['day_start']}", end="")
    print(f" to {card['day_end']}, seed {card['seed']}, by {card['code_version']}")
    for digest in card["data_sha256"]:
        print(f"data     {digest}")
    for name, value in card["metrics"].items():
        print(f"measured {name} {value}")
    for name, kind, *arguments in about["definitions"]["features"]:
        meaning = " ".join(map(str, (kind, *arguments)))
        print(f"feature  {name:24} {meaning:24} {about['splits'][name]} splits")
    rules = ", ".join(f"{name} {value}" for name, value in about["definitions"]["rules"].items())
    print(f"rows     {about['row_bytes']} bytes an account: {rules}")
    return 0


def describe_artifact(artifact: bytes) -> dict[str, Any]:
    """What an artifact holds, as JSON has it. `definitions` is what `train --definitions` reads."""
    module = FraudModule(artifact)
    model, card = module.model, module.model.card
    nodes = [feature for tree in model.forest.trees for feature in tree.feature]
    return {
        "module": module.name,
        "digest": f"0x{module.digest.hex()}",
        "artifact_sha256": f"0x{sha256(artifact).hexdigest()}",
        "bytes": len(artifact),
        "trees": len(model.forest.trees),
        "leaves": nodes.count(LEAF),
        "definitions": model.definitions.to_json(),
        "row_bytes": module.row_bytes,
        "splits": {name: nodes.count(number) for number, name in enumerate(model.definitions.names)},
        "flag_score_min": model.thresholds.flag_score_min,
        "refuse_score_min": model.thresholds.refuse_score_min,
        "card": {
            "data_sha256": [f"0x{digest.hex()}" for digest in card.data_sha256],
            "day_start": card.day_start,
            "day_end": card.day_end,
            "rows": card.rows,
            "positives": card.positives,
            "seed": card.seed,
            "code_version": card.code_version,
            "metrics": {name: value / 10_000 for name, value in card.metrics},
        },
    }
