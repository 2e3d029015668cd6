"""`assay model features`, `import` and `export`: forests of other libraries, to and from.

The round: `features` writes the columns a chain would compute, any library learns from them, `import` takes
its forest over and proves it equal to the library's own predictions, `export` writes ONNX.
"""

from __future__ import annotations

import argparse
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from consensus.errors import Rejected
from ml.calibration import Budget, calibrate_model
from ml.foreign.exchange import make_model, read_source
from ml.foreign.forest import PROOF_ROWS, check_equal_to_source
from ml.foreign.onnx_writer import write_onnx
from ml.playback import play_features, schedule_reports
from node.modelling.files import (
    Progress,
    check_folder,
    check_seed,
    get_days,
    get_plan,
    hash_data,
    read_data,
    read_model_or_default,
    replace_file,
)
from node.modelling.training import write_model


def write_features(args: argparse.Namespace) -> int:
    check_seed(args.seed)
    out, model, plan = Path(args.out), read_model_or_default(args.like), get_plan(args)
    check_folder(out)
    trace = read_data(args)
    day_start, day_end = get_days(args, trace)
    first, end = np.searchsorted(trace.time_ms, (day_start * 86_400_000, day_end * 86_400_000)).tolist()
    seen = play_features(
        trace,
        schedule_reports(trace, plan, args.seed),
        model.scale,
        end,
        Progress(),
        definitions=model.definitions,
    )[first:]
    names = model.definitions.names
    fraud = None if trace.fraud is None else trace.fraud[first:end]
    if out.suffix == ".npz":
        held = io.BytesIO()
        columns: dict[str, Any] = {"features": seen, "names": np.array(names)}
        columns["time_ms"] = trace.time_ms[first:end]
        if fraud is not None:
            columns["fraud"] = fraud
        np.savez(held, **columns)
        data = held.getvalue()
    else:
        table = seen if fraud is None else np.column_stack((seen, fraud))
        head = ",".join([*names, *([] if fraud is None else ["fraud"])])
        text = io.StringIO()
        np.savetxt(text, table, fmt="%d", delimiter=",", header=head, comments="")
        data = text.getvalue().encode()
    replace_file(out, data)
    print(f"{out}: {len(seen)} rows of {len(names)} features, one byte each")
    return 0


def import_model(args: argparse.Namespace) -> int:
    check_seed(args.seed)
    budget = Budget(args.flag_fpr, args.refuse_fpr)
    path, out = Path(args.source), Path(args.out)
    check_folder(out)
    like = read_model_or_default(args.like)
    source = read_source(path, args.library, args.trust_pickle)
    model = make_model(source, like, path.read_bytes())
    proof = f"not proven equal: {source.library} is not installed"
    if source.predict is not None:
        apart = check_equal_to_source(source, model.forest, model.definitions)
        proof = f"equal to {source.library} on {PROOF_ROWS} drawn rows, within {apart:.7f} of a margin"
    elif args.prove:
        raise Rejected(proof, field="--prove", mend=f"install {source.library}")
    if args.data:
        trace = read_data(args)
        model = calibrate_model(model, trace, *get_days(args, trace), args.seed, budget, Progress())
        hashes = (*model.card.data_sha256, *hash_data(args))
        model = replace(model, card=replace(model.card, data_sha256=hashes))
    write_model(out, model, args.json)
    if not args.json:
        print(proof)
    return 0


def export_model(args: argparse.Namespace) -> int:
    out = Path(args.out)
    check_folder(out)
    model = read_model_or_default(args.model)
    data = write_onnx(model)
    replace_file(out, data)
    print(
        f"{out}: {len(data)} bytes; {len(model.definitions)} features of one byte in, exact margin and score out"
    )
    return 0
