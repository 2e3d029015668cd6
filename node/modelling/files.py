"""What the actions of `assay model` share: data, models, days and seeds, whole files, progress."""

from __future__ import annotations

import argparse
import json
import sys
from hashlib import file_digest
from pathlib import Path
from typing import Any

from consensus.errors import Rejected
from ml.dataset import Trace, parse_columns, read_trace
from ml.definitions import DAY_MS
from ml.fraud import read_default_artifact
from ml.model import Model, decode_model, read_model
from ml.playback import ReportPlan


def read_artifact(path: str | None) -> bytes:
    """A model file's bytes, or those of the model that ships."""
    if path is None:
        return read_default_artifact()
    return read_model(Path(path)).encode()  # canonical: the same bytes


def read_model_or_default(path: str | None) -> Model:
    """A model file's model, or the one that ships."""
    return decode_model(read_artifact(path))


def read_data(args: argparse.Namespace) -> Trace:
    """The trace that --data and --columns name."""
    return read_trace(args.data, parse_columns(args.columns))


def hash_data(args: argparse.Namespace) -> tuple[bytes, ...]:
    """SHA-256 of each file of --data."""
    hashes = []
    for name in args.data:
        with open(name, "rb") as file:
            hashes.append(file_digest(file, "sha256").digest())
    return tuple(hashes)


def get_days(args: argparse.Namespace, trace: Trace) -> tuple[int, int]:
    """--from and --to, by default all days of the trace."""
    start = int(trace.time_ms[0]) // DAY_MS if args.day_start is None else args.day_start
    end = int(trace.time_ms[-1]) // DAY_MS + 1 if args.day_end is None else args.day_end
    if not 0 <= start < end:
        raise Rejected(f"{start} to {end} holds no day", field="--from, --to", mend="--to is exclusive")
    return start, end


def get_plan(args: argparse.Namespace) -> ReportPlan:
    """How labels arrive, from --report-delay, --report-share and --report-false."""
    text = args.report_delay
    least, dots, most = text.partition("..")
    if not least.isdecimal() or (dots and not most.isdecimal()) or len(text) > 12:
        raise Rejected(f"{text!r} is not a number of days", field="--report-delay", mend="write 7 or 7..21")
    return ReportPlan((int(least), int(most or least)), args.report_share, args.report_false)


def check_seed(seed: int) -> None:
    if not 0 <= seed < 2**53:
        raise Rejected(f"{seed} is out of range", field="--seed", mend="use 0 to 2^53 - 1")


def check_folder(path: Path) -> None:
    """Raises Rejected if a file cannot be put there, before minutes of work."""
    if not path.parent.is_dir():
        raise Rejected("its folder does not exist", field=str(path), mend="make the folder first")


def print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document, indent=2))


def replace_file(path: Path, data: bytes) -> None:
    """Write beside it and rename: a file is whole or is not there."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise Rejected(
            f"cannot be written ({error.strerror or error})", field=str(path), mend="choose another file"
        ) from None


class Progress:
    """One line on a terminal's stderr; nothing in a pipe."""

    def __init__(self) -> None:
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
