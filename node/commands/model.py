"""`assay model`: train, evaluate, inspect and exchange fraud models, and let a chain decide on them."""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Any, Final

from node.client.endpoints import add_api_arguments, add_send_arguments

HELP = "train, evaluate, inspect and exchange fraud models; publish, approve, retire them on a chain"

DAYS_HELP: Final = "day (t / 86400, from t = 0)"

# Each action and the function that does it; imported only when it is the one asked for.
ACTIONS: Final = {
    "train": ("node.modelling.training", "train"),
    "evaluate": ("node.modelling.measuring", "evaluate"),
    "inspect": ("node.modelling.inspection", "inspect_model"),
    "features": ("node.modelling.exchange", "write_features"),
    "import": ("node.modelling.exchange", "import_model"),
    "export": ("node.modelling.exchange", "export_model"),
    "publish": ("node.modelling.publishing", "publish"),
    "approve": ("node.modelling.deciding", "approve"),
    "retire": ("node.modelling.deciding", "retire"),
    "rollback": ("node.modelling.deciding", "roll_back"),
    "list": ("node.modelling.listing", "list_models"),
    "compare": ("node.modelling.comparing", "compare_models"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    train = commands.add_parser("train", help="learn a model from labelled traces")
    _add_data_arguments(train)
    _add_budget_arguments(train)
    train.add_argument("--seed", type=int, default=1, metavar="S", help="of every draw (default 1)")
    train.add_argument("--out", required=True, metavar="MODEL", help="the file to write")
    train.add_argument(
        "--definitions", metavar="FILE", help="features and windows (JSON, as `inspect --json` prints them)"
    )
    train.add_argument("--json", action="store_true", help="print the model's card as JSON")

    evaluate = commands.add_parser("evaluate", help="measure a model, labels revealed as late reports")
    evaluate.add_argument("--model", metavar="MODEL", help="a model file (default: the one that ships)")
    _add_data_arguments(evaluate, required=False)
    _add_report_arguments(evaluate)
    evaluate.add_argument(
        "--protocol", choices=("handbook",), help="leave out senders with known frauds, as published"
    )
    evaluate.add_argument(
        "--regimes",
        choices=("all",),
        help="every way of reporting: on time, late, missing, false, all at once",
    )
    evaluate.add_argument("--weekly", action="store_true", help="also week by week, and their mean")
    evaluate.add_argument(
        "--variants", action="store_true", help="instead of --data: synthetic traces with other frauds"
    )
    evaluate.add_argument("--html", metavar="FILE", help="write tables and curves as one HTML page")
    evaluate.add_argument("--scores", metavar="FILE", help="write one integer score per row of the days")
    evaluate.add_argument("--json", action="store_true", help="print one JSON document")

    inspect = commands.add_parser("inspect", help="what a model file holds")
    inspect.add_argument("model", nargs="?", metavar="MODEL", help="(default: the one that ships)")
    inspect.add_argument("--json", action="store_true", help="print one JSON document")

    features = commands.add_parser("features", help="write the features that a chain would compute")
    _add_data_arguments(features)
    _add_report_arguments(features)
    _add_like_argument(features)
    features.add_argument("--out", required=True, metavar="FILE", help="a .npz or .csv file")

    take = commands.add_parser("import", help="take over a forest of another library")
    take.add_argument("source", metavar="FILE", help="LightGBM .txt, XGBoost .json or .ubj, .onnx, .joblib")
    take.add_argument("--out", required=True, metavar="MODEL", help="the file to write")
    take.add_argument(
        "--library", choices=("lightgbm", "xgboost", "sklearn", "onnx"), help="(default: by the suffix)"
    )
    _add_like_argument(take)
    take.add_argument(
        "--trust-pickle", action="store_true", help="load a pickle, which runs code: your own only"
    )
    take.add_argument("--prove", action="store_true", help="fail unless equality with the library is shown")
    _add_data_arguments(take, required=False)
    _add_budget_arguments(take)
    take.add_argument("--seed", type=int, default=1, metavar="S", help="of drawn reports (default 1)")
    take.add_argument("--json", action="store_true", help="print the model's card as JSON")

    give = commands.add_parser("export", help="write a model as ONNX: exact margin and score")
    give.add_argument("--model", metavar="MODEL", help="a model file (default: the one that ships)")
    give.add_argument("--out", required=True, metavar="FILE", help="the .onnx file to write")

    _add_life(commands)


def _add_life(commands: Any) -> None:
    """What happens to a model on a chain."""
    publish = commands.add_parser("publish", help="bring a model to a chain, where validators may approve it")
    publish.add_argument("model", metavar="MODEL", help="a model file")
    publish.add_argument("--name", default="fraud", help="the module that reads it (default fraud)")
    publish.add_argument("--key", metavar="FILE", help="the account that pays (hex, mode 600)")
    publish.add_argument("--timeout", default="120s", metavar="D", help="how long to wait (default 120s)")
    add_api_arguments(publish)

    approve = commands.add_parser(
        "approve", help="as a validator: let a published model judge from a block on"
    )
    approve.add_argument("digest", metavar="DIGEST", help="hex, or its first eight digits or more")
    place = approve.add_mutually_exclusive_group()
    place.add_argument(
        "--in-place-of", metavar="DIGEST", help="whose seat it takes (default: that of the one that judges)"
    )
    place.add_argument("--beside", action="store_true", help="give it a seat of its own")
    _add_seat_arguments(approve)
    _add_vote_arguments(approve)

    retire = commands.add_parser("retire", help="as a validator: let a model judge no more")
    retire.add_argument("digest", metavar="DIGEST", help="hex, or its first eight digits or more")
    _add_vote_arguments(retire)

    back = commands.add_parser("rollback", help="as a validator: back to the model before the present one")
    _add_seat_arguments(back)
    _add_vote_arguments(back)

    compare = commands.add_parser(
        "compare", help="a published model beside those that judge, on what came since"
    )
    compare.add_argument("digest", metavar="DIGEST", help="hex, or its first eight digits or more")
    add_api_arguments(compare)

    add_api_arguments(
        commands.add_parser("list", help="who judges, what is published, what is being decided")
    )


def _add_seat_arguments(parser: argparse.ArgumentParser) -> None:
    same = "(default: as that model's whose seat it takes)"
    parser.add_argument("--flag", type=int, metavar="N", help=f"the lowest score that is flagged {same}")
    parser.add_argument("--refuse", type=int, metavar="N", help=f"the lowest score that is refused {same}")
    parser.add_argument("--weight", type=int, metavar="N", help=f"in a weighted score; 0: it watches {same}")


def _add_vote_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--at", type=int, metavar="HEIGHT", help="from this block on (default: as in an open motion, or soon)"
    )
    parser.add_argument("--key", metavar="FILE", help="the operator's private key (hex, mode 600)")
    parser.add_argument(
        "--all-validators", action="store_true", help="with --home of a local network: approve with all keys"
    )
    add_send_arguments(parser)
    add_api_arguments(parser)


def _add_data_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    parser.add_argument(
        "--data", nargs="+", required=required, metavar="FILE", help="CSV or CSV.gz, in order, as one trace"
    )
    parser.add_argument(
        "--columns",
        default="",
        metavar="t=NAME,…",
        help="names of the columns (t, sender, receiver, amount, label, pattern); amount=#1: always 1;"
        " label=NAME<0: what is below 0",
    )
    parser.add_argument("--from", dest="day_start", type=int, metavar="DAY", help=f"first {DAYS_HELP}")
    parser.add_argument("--to", dest="day_end", type=int, metavar="DAY", help=f"end {DAYS_HELP}, exclusive")


def _add_report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--report-delay", default="7", metavar="DAYS", help="7, or 7..21 to draw each (default 7)"
    )
    parser.add_argument(
        "--report-share", type=float, default=1.0, metavar="P", help="share of frauds reported at all"
    )
    parser.add_argument(
        "--report-false", type=float, default=0.0, metavar="P", help="share of reports on clean rows"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of drawn reports (default 1)")


def _add_budget_arguments(parser: argparse.ArgumentParser) -> None:
    for name, share, done in (("flag", 0.005, "flagged"), ("refuse", 0.001, "refused")):
        parser.add_argument(
            f"--{name}-fpr",
            type=float,
            default=share,
            metavar="P",
            help=f"share of the clean that may be {done} (default {share}): chooses the threshold",
        )


def _add_like_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--like", metavar="MODEL", help="whose definitions and scale to use (default: the model that ships)"
    )


def run(args: argparse.Namespace) -> int:
    """Exit code 0; raises Rejected for bad input and Fault for a failed run."""
    module, name = ACTIONS[args.action]
    code: int = getattr(import_module(module), name)(args)
    return code
