"""`assay model train`: learn a model from labelled traces, over features that may be stated in a file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from consensus.errors import Rejected
from ml.calibration import Budget
from ml.definitions import DEFAULT_DEFINITIONS, Definitions, parse_definitions
from ml.model import Model
from ml.training import import_lightgbm, train_model
from node.modelling.files import (
    Progress,
    check_folder,
    check_seed,
    get_days,
    hash_data,
    print_json,
    read_data,
    replace_file,
)
from node.modelling.inspection import describe_artifact

DEFINITIONS_BYTES_MAX = 65_536  # 32 features take some 2 kB


def train(args: argparse.Namespace) -> int:
    import_lightgbm()  # say so before minutes of reading
    check_seed(args.seed)
    budget = Budget(args.flag_fpr, args.refuse_fpr)
    out = Path(args.out)
    check_folder(out)
    definitions = (
        DEFAULT_DEFINITIONS if args.definitions is None else read_definitions(Path(args.definitions))
    )
    trace = read_data(args)
    model = train_model(
        trace,
        *get_days(args, trace),
        args.seed,
        hash_data(args),
        Progress(),
        definitions,
        budget,
    )
    write_model(out, model, args.json)
    return 0


def read_definitions(path: Path) -> Definitions:
    """The definitions in a JSON file, alone or as `assay model inspect --json` prints them."""
    try:
        with path.open("rb") as file:
            data = file.read(DEFINITIONS_BYTES_MAX + 1)
        document = json.loads(data)
    except OSError as error:
        raise Rejected(f"cannot be read ({error.strerror or error})", field=str(path)) from None
    except (ValueError, RecursionError) as error:
        raise Rejected(f"is not JSON ({error})", field=str(path)) from None
    if isinstance(document, dict) and "definitions" in document:
        document = document["definitions"]
    return parse_definitions(document)


def write_model(out: Path, model: Model, as_json: bool) -> None:
    """Write the artifact, and print what it is."""
    replace_file(out, model.encode())
    if as_json:
        print_json(describe_artifact(model.encode()))
        return
    card, metrics = model.card, {name: value / 10_000 for name, value in model.card.metrics}
    print(f"{out}: {out.stat().st_size} bytes, {len(model.forest.trees)} trees")
    if metrics:
        print(
            f"trained on {card.rows} rows, {card.positives} frauds, days {card.day_start} to {card.day_end}"
        )
        print(
            f"out of fold: average precision {metrics['average_precision']:.3f}, ROC {metrics['roc_auc']:.3f}"
        )
    limits = model.thresholds
    print(f"suggests flag at {limits.flag_score_min}, refuse at {limits.refuse_score_min} of 10000")
