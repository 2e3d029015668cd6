"""`assay model`: train, evaluate and inspect the fraud model."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

    from ml.dataset import Trace

HELP = "train, evaluate and inspect the fraud model"

PUBLISHED_TEST: Final = (58_264, 385)  # rows and frauds of the published test week
DAYS_HELP: Final = "day (t / 86400, from t = 0)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    train = commands.add_parser("train", help="learn a model from labelled traces")
    _add_data_arguments(train)
    train.add_argument("--seed", type=int, default=1, metavar="S", help="of every draw (default 1)")
    train.add_argument("--out", required=True, metavar="MODEL", help="the file to write")
    train.add_argument("--json", action="store_true", help="print the model's card as JSON")

    evaluate = commands.add_parser("evaluate", help="measure a model, labels revealed as late reports")
    evaluate.add_argument("--model", metavar="MODEL", help="a model file (default: the one that ships)")
    _add_data_arguments(evaluate)
    evaluate.add_argument(
        "--protocol", choices=("handbook",), help="leave out senders with known frauds, as published"
    )
    evaluate.add_argument(
        "--report-delay", default="7", metavar="DAYS", help="7, or 7..21 to draw each (default 7)"
    )
    evaluate.add_argument(
        "--report-share", type=float, default=1.0, metavar="P", help="share of frauds reported at all"
    )
    evaluate.add_argument(
        "--report-false", type=float, default=0.0, metavar="P", help="share of reports on clean rows"
    )
    evaluate.add_argument("--seed", type=int, default=1, metavar="S", help="of drawn reports (default 1)")
    evaluate.add_argument("--scores", metavar="FILE", help="write one integer score per row of the days")
    evaluate.add_argument("--json", action="store_true", help="print one JSON document")

    inspect = commands.add_parser("inspect", help="what a model file holds")
    inspect.add_argument("model", nargs="?", metavar="MODEL", help="(default: the one that ships)")
    inspect.add_argument("--json", action="store_true", help="print one JSON document")


def _add_data_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", nargs="+", required=True, metavar="FILE", help="CSV or CSV.gz, in order, as one trace"
    )
    parser.add_argument("--columns", default="", metavar="t=NAME,…", help="names of the columns")
    parser.add_argument("--from", dest="day_start", type=int, metavar="DAY", help=f"first {DAYS_HELP}")
    parser.add_argument("--to", dest="day_end", type=int, metavar="DAY", help=f"end {DAYS_HELP}, exclusive")


def run(args: argparse.Namespace) -> int:
    """Exit code 0; raises Rejected for bad input and Fault for a failed run."""
    actions = {"train": _train, "evaluate": _evaluate, "inspect": _inspect}
    return actions[args.action](args)


def _train(args: argparse.Namespace) -> int:
    from hashlib import file_digest
    from pathlib import Path

    from consensus.errors import Rejected
    from ml.training import import_lightgbm, train_model

    import_lightgbm()  # say so before minutes of reading
    _check_seed(args.seed)
    out = Path(args.out)
    if not out.parent.is_dir():
        raise Rejected("its folder does not exist", field=str(out), mend="make the folder first")
    trace = _read_data(args)
    hashes = []
    for name in args.data:
        with open(name, "rb") as file:
            hashes.append(file_digest(file, "sha256").digest())
    day_start, day_end = _get_days(args, trace)
    model = train_model(trace, day_start, day_end, args.seed, tuple(hashes), _Progress())
    _replace_file(out, model.encode())
    if args.json:
        _print_json(_describe_file(out))
    else:
        metrics = {name: value / 10_000 for name, value in model.card.metrics}
        print(f"{out}: {out.stat().st_size} bytes, {len(model.forest.trees)} trees")
        print(
            f"trained on {model.card.rows} rows, {model.card.positives} frauds, days {day_start} to {day_end}"
        )
        print(
            f"out of fold: average precision {metrics['average_precision']:.3f}, ROC {metrics['roc_auc']:.3f}"
        )
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    from pathlib import Path

    from ml.evaluation import PUBLISHED, evaluate_module
    from ml.fraud import FraudModule
    from ml.playback import ReportPlan

    _check_seed(args.seed)
    plan = ReportPlan(_parse_delay(args.report_delay), args.report_share, args.report_false)
    module = FraudModule(_read_artifact(args.model))
    trace = _read_data(args)
    day_start, day_end = _get_days(args, trace)
    figures, scores = evaluate_module(
        trace, module, day_start, day_end, plan, args.seed, args.protocol == "handbook", _Progress()
    )
    if args.scores:
        _replace_file(Path(args.scores), ("\n".join(map(str, scores.tolist())) + "\n").encode())
    if args.json:
        _print_json(
            {
                "rows": figures.rows,
                "positives": figures.positives,
                "average_precision": figures.average_precision,
                "roc_auc": figures.roc_auc,
                "card_precision_at_100": figures.card_precision_at_100,
                "recall_at_fpr": {_name_fpr(fpr): recall for fpr, recall, _ in figures.at_fpr},
                "precision_at_fpr": {_name_fpr(fpr): precision for fpr, _, precision in figures.at_fpr},
                "microseconds_per_transaction": figures.microseconds_per_transaction,
            }
        )
        return 0
    print(f"{figures.rows:,} rows, {figures.positives} frauds, days {day_start} to {day_end} (exclusive)")
    print(f"{'':30}    AP    ROC  CP@100")
    lines = [
        (
            "this model",
            figures.average_precision,
            figures.roc_auc,
            figures.card_precision_at_100,
        )
    ]
    if args.protocol == "handbook":
        lines += [(f"published: {name}", *values) for name, *values in PUBLISHED]  # type: ignore[misc]
    for name, precision, roc, cards in lines:
        print(f"{name:30} {precision:5.3f}  {roc:5.3f}   {cards:5.3f}")
    if args.protocol == "handbook" and (figures.rows, figures.positives) != PUBLISHED_TEST:
        print("the published figures are of another test: {:,} rows, {} frauds".format(*PUBLISHED_TEST))
    for fpr, recall, precision in figures.at_fpr:
        print(f"at false-positive rate {fpr * 100:.2f} %: recall {recall:.3f}, precision {precision:.3f}")
    print(f"{figures.microseconds_per_transaction:.2f} µs a transaction, features and score")
    return 0


def _inspect(args: argparse.Namespace) -> int:
    from pathlib import Path

    from ml.features import FEATURE_NAMES

    about = _describe_file(None if args.model is None else Path(args.model))
    if args.json:
        _print_json(about)
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
    for name in FEATURE_NAMES:
        print(f"feature  {name:24} {about['splits'][name]} splits")
    return 0


def _describe_file(path: Path | None) -> dict[str, Any]:
    from hashlib import sha256

    from ml.features import FEATURE_NAMES
    from ml.forest import LEAF
    from ml.fraud import FraudModule

    artifact = _read_artifact(None if path is None else str(path))
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
        "splits": {name: nodes.count(number) for number, name in enumerate(FEATURE_NAMES)},
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


def _read_artifact(path: str | None) -> bytes:
    from pathlib import Path

    from ml.fraud import read_default_artifact
    from ml.model import read_model

    if path is None:
        return read_default_artifact()
    return read_model(Path(path)).encode()  # canonical: the same bytes


def _read_data(args: argparse.Namespace) -> Trace:
    from ml.dataset import parse_columns, read_trace

    return read_trace(args.data, parse_columns(args.columns))


def _get_days(args: argparse.Namespace, trace: Trace) -> tuple[int, int]:
    from consensus.errors import Rejected
    from ml.features import DAY_MS

    start = int(trace.time_ms[0]) // DAY_MS if args.day_start is None else args.day_start
    end = int(trace.time_ms[-1]) // DAY_MS + 1 if args.day_end is None else args.day_end
    if not 0 <= start < end:
        raise Rejected(f"{start} to {end} holds no day", field="--from, --to", mend="--to is exclusive")
    return start, end


def _parse_delay(text: str) -> tuple[int, int]:
    from consensus.errors import Rejected

    least, dots, most = text.partition("..")
    if not least.isdecimal() or (dots and not most.isdecimal()) or len(text) > 12:
        raise Rejected(f"{text!r} is not a number of days", field="--report-delay", mend="write 7 or 7..21")
    return int(least), int(most or least)


def _check_seed(seed: int) -> None:
    from consensus.errors import Rejected

    if not 0 <= seed < 2**53:
        raise Rejected(f"{seed} is out of range", field="--seed", mend="use 0 to 2^53 - 1")


def _name_fpr(fpr: float) -> str:
    return f"{fpr:.4f}".rstrip("0")


def _print_json(document: dict[str, Any]) -> None:
    import json

    print(json.dumps(document, indent=2))


def _replace_file(path: Path, data: bytes) -> None:
    """Write beside it and rename: a file is whole or is not there."""
    from consensus.errors import Rejected

    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise Rejected(
            f"cannot be written ({error.strerror or error})", field=str(path), mend="choose another file"
        ) from None


class _Progress:
    """One line on a terminal's stderr; nothing in a pipe."""

    def __init__(self) -> None:
        import sys

        self._stream = sys.stderr if sys.stderr.isatty() else None
        self._shown = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._stream is None:
            return
        text = f"{what} {100 * done // max(total, 1)} %"
        if text != self._shown:
            self._shown = text
            self._stream.write(f"\r{text:24}" + ("\r" + " " * 24 + "\r" if done >= total else ""))
            self._stream.flush()
