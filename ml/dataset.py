"""Workload files: labelled transactions as CSV or CSV.gz, read into frozen integer columns.

Columns: `t` (whole seconds or milliseconds since any epoch, non-decreasing), `sender`, `receiver`
(any text; one namespace), `amount` or `amount_cents` (whole smallest units), and optionally
`label` or `fraud` (0/1), and `pattern` (the kind of fraud, for reports by kind; nothing learns from it).
Other names are mapped: `columns={"t": "time"}`; `"label": "rating<0"` labels what is below 0, and
`"amount": "#1"` stands for a column that is always 1. Several files are one trace, in the order given.
Rows with sender = receiver and amounts of 0 are legal.

Seconds or milliseconds: times are milliseconds when one reaches 10^11 (as seconds that is the year
5138), or when they span 10^9 or more (31 years of seconds); else seconds. `time_unit` overrides.
Invariant: a file is read whole or refused with file, line, field and mend; nothing is repaired.
Leaves out: Parquet and JSONL.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from consensus.codec import TIME_MS_MAX
from consensus.errors import Rejected
from ml.fields import BELOW_ZERO, CONSTANT, check_names, parse_amounts, parse_integers, parse_labels

SECONDS_MAX: Final = 10**11  # larger times can only be milliseconds
SECONDS_SPAN_MAX: Final = 10**9  # 31 years: no trace in seconds is longer
PATTERNS_MAX: Final = 64  # a kind is one byte, and a line of a report
CHUNK_ROWS: Final = 50_000  # rows held as text at a time: some 20 MB
GZIP_MAGIC: Final = b"\x1f\x8b"

TimeUnit = Literal["auto", "s", "ms"]

# Each field and the column names it is looked for under when none is mapped.
FIELD_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "t": ("t",),
    "sender": ("sender",),
    "receiver": ("receiver",),
    "amount": ("amount", "amount_cents"),
    "label": ("label", "fraud"),
    "pattern": ("pattern",),
}
OPTIONAL_FIELDS: Final = frozenset({"label", "pattern"})


@dataclass(frozen=True, slots=True)
class Trace:
    """n transactions in time order.

    time_ms, sender, receiver, amount: int64[n]; sender and receiver index `names`; amount in smallest
    units, 0..2^53-1. fraud: uint8[n] of 0/1, or None when the files carry no labels. pattern: uint8[n] into
    `patterns`, or None where kinds of fraud are not known.
    """

    time_ms: NDArray[np.int64]
    sender: NDArray[np.int64]
    receiver: NDArray[np.int64]
    amount: NDArray[np.int64]
    fraud: NDArray[np.uint8] | None
    names: tuple[str, ...]
    pattern: NDArray[np.uint8] | None = None
    patterns: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.amount)


def read_trace(
    paths: Sequence[str | Path],
    columns: Mapping[str, str] | None = None,
    time_unit: TimeUnit = "auto",
    limit: int | None = None,
) -> Trace:
    """Read `paths` in order as one trace, at most `limit` rows of it. Raises Rejected."""
    if not paths:
        raise Rejected("no file given", field="data", mend="name at least one CSV or CSV.gz file")
    names: dict[str, int] = {}
    times: list[NDArray[np.int64]] = []
    senders: list[NDArray[np.int64]] = []
    receivers: list[NDArray[np.int64]] = []
    amounts: list[NDArray[np.int64]] = []
    labels: list[NDArray[np.int64]] = []
    patterns: dict[str, int] = {}
    kinds: list[NDArray[np.int64]] = []
    unlabelled = ""
    left = limit
    last_time: int | None = None
    for path in map(Path, paths):
        if left == 0:
            break
        for chunk in _read_chunks(path, columns or {}, left):
            last_time = _check_order(chunk.time, last_time, chunk)
            times.append(chunk.time)
            senders.append(_factorise(chunk.sender, names))
            receivers.append(_factorise(chunk.receiver, names))
            amounts.append(chunk.amount)
            if chunk.pattern is not None:
                kinds.append(_factorise(chunk.pattern, patterns))
            if chunk.label is None:
                unlabelled = unlabelled or str(path)
            else:
                labels.append(chunk.label)
            if left is not None:
                left -= len(chunk.time)
    if labels and unlabelled:
        raise Rejected(
            "has no label column while another file has one",
            field=unlabelled,
            mend="give labels in all files or in none",
        )
    if len(patterns) > PATTERNS_MAX:
        raise Rejected(f"more than {PATTERNS_MAX} patterns", field="pattern", mend="map another column")
    time = np.concatenate(times)
    return Trace(
        time_ms=_to_milliseconds(time, time_unit),
        sender=np.concatenate(senders),
        receiver=np.concatenate(receivers),
        amount=np.concatenate(amounts),
        fraud=np.concatenate(labels).astype(np.uint8) if labels else None,
        names=tuple(names),
        pattern=np.concatenate(kinds).astype(np.uint8) if len(kinds) == len(times) else None,
        patterns=tuple(patterns) if len(kinds) == len(times) else (),
    )


def parse_columns(text: str) -> dict[str, str]:
    """The mapping that `t=time,sender=from,…` writes down; "" maps nothing. Raises Rejected."""
    columns: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        field, equals, name = (word.strip() for word in part.partition("="))
        if not (field and equals and name) or field in columns:
            raise Rejected(f"{part!r} maps no column", field="columns", mend="write t=NAME,sender=NAME,…")
        columns[field] = name
    return columns


def write_trace(path: Path, trace: Trace) -> None:
    """Write `trace` as the CSV (or, by suffix, CSV.gz) that read_trace reads; times in milliseconds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    labelled = trace.fraud is not None
    writer.writerow(["t", "sender", "receiver", "amount", *(["fraud"] if labelled else [])])
    columns = [
        trace.time_ms.tolist(),
        [trace.names[i] for i in trace.sender.tolist()],
        [trace.names[i] for i in trace.receiver.tolist()],
        trace.amount.tolist(),
    ]
    if trace.fraud is not None:
        columns.append(trace.fraud.tolist())
    writer.writerows(zip(*columns, strict=True))
    data = text.getvalue().encode()
    # mtime=0: the same trace gives the same file
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


@dataclass(frozen=True, slots=True)
class _Chunk:
    path: Path
    first_line: int  # the line of the file that holds row 0 of the chunk
    time: NDArray[np.int64]
    sender: tuple[str, ...]
    receiver: tuple[str, ...]
    amount: NDArray[np.int64]
    label: NDArray[np.int64] | None
    pattern: tuple[str, ...] | None


def _read_chunks(path: Path, columns: Mapping[str, str], limit: int | None) -> Iterator[_Chunk]:
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == GZIP_MAGIC
        with (gzip.open if packed else open)(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield from _parse_chunks(path, csv.reader(file, strict=True), columns, limit)
    except FileNotFoundError:
        raise Rejected("no such file", field=str(path), mend="check the path") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Rejected(
            f"damaged or cut-short gzip file ({error})", field=str(path), mend="copy or download it again"
        ) from None
    except UnicodeDecodeError as error:
        raise Rejected(f"not UTF-8 text ({error.reason})", field=str(path), mend="save it as UTF-8") from None
    except csv.Error as error:
        raise Rejected(f"not CSV ({error})", field=str(path), mend="separate fields by commas") from None
    except OSError as error:
        raise Rejected(
            f"cannot be read ({error.strerror or error})",
            field=str(path),
            mend="check the path and its rights",
        ) from None


def _parse_chunks(
    path: Path, reader: Iterator[list[str]], columns: Mapping[str, str], limit: int | None
) -> Iterator[_Chunk]:
    header = next(reader, None)
    if not header:
        raise Rejected("is empty", field=str(path), mend="give a CSV file with a header line and rows")
    place = _find_columns(path, [name.strip() for name in header], columns)
    first_line = 2
    while limit is None or limit > 0:
        rows = list(islice(reader, CHUNK_ROWS if limit is None else min(limit, CHUNK_ROWS)))
        if not rows:
            break
        if set(map(len, rows)) != {len(header)}:
            bad = next(i for i, row in enumerate(rows) if len(row) != len(header))
            raise Rejected(
                f"has {len(rows[bad])} fields, the header {len(header)}",
                field=f"{path}, line {first_line + bad}",
                mend="mend or remove the line",
            )
        text = list(zip(*rows, strict=True))
        label, pattern = place.get("label"), place.get("pattern")
        amounts = parse_amounts(text, place, columns, path, first_line, len(rows))
        yield _Chunk(
            path=path,
            first_line=first_line,
            time=parse_integers(text[place["t"]], path, first_line, "t", TIME_MS_MAX),
            sender=check_names(text[place["sender"]], path, first_line, "sender"),
            receiver=check_names(text[place["receiver"]], path, first_line, "receiver"),
            amount=amounts,
            label=None if label is None else parse_labels(text[label], path, first_line, columns),
            pattern=None if pattern is None else check_names(text[pattern], path, first_line, "pattern"),
        )
        first_line += len(rows)
        if limit is not None:
            limit -= len(rows)
    if first_line == 2:
        raise Rejected("has a header but no rows", field=str(path), mend="give at least one transaction")


def _find_columns(path: Path, header: list[str], columns: Mapping[str, str]) -> dict[str, int]:
    unknown = sorted(set(columns) - set(FIELD_NAMES))
    if unknown:
        raise Rejected(
            f"unknown field {unknown[0]!r}", field="columns", mend=f"map only {', '.join(FIELD_NAMES)}"
        )
    place: dict[str, int] = {}
    for field, usual in FIELD_NAMES.items():
        wanted = (columns[field],) if field in columns else usual
        if field == "amount" and wanted[0].startswith(CONSTANT):
            continue
        if field == "label":
            wanted = tuple(name.removesuffix(BELOW_ZERO) for name in wanted)
        found = [name for name in wanted if name in header]
        if found:
            if header.count(found[0]) > 1:
                raise Rejected(
                    f"two columns are named {found[0]!r}", field=f"{path}, line 1", mend="rename one"
                )
            place[field] = header.index(found[0])
        elif field in columns or field not in OPTIONAL_FIELDS:
            raise Rejected(
                f"no column {' or '.join(map(repr, wanted))} among {', '.join(header[:12])!r}",
                field=f"{path}, line 1",
                mend=f"map it with --columns {field}=NAME",
                code="column_missing",
            )
    return place


def _check_order(time: NDArray[np.int64], last: int | None, chunk: _Chunk) -> int:
    before = np.concatenate(([time[0] if last is None else last], time[:-1]))
    if (time < before).any():
        bad = int(np.argmax(time < before))
        raise Rejected(
            f"{int(time[bad])} is earlier than the row before it ({int(before[bad])})",
            field=f"{chunk.path}, line {chunk.first_line + bad}, t",
            mend="sort the rows by time (and name the files in order)",
            code="unsorted",
        )
    return int(time[-1])


def _factorise(text: Sequence[str], names: dict[str, int]) -> NDArray[np.int64]:
    return np.array([names.setdefault(name, len(names)) for name in text], dtype=np.int64)


def _to_milliseconds(time: NDArray[np.int64], unit: TimeUnit) -> NDArray[np.int64]:
    if unit == "auto":
        high, span = int(time[-1]), int(time[-1] - time[0])
        unit = "ms" if high >= SECONDS_MAX or span >= SECONDS_SPAN_MAX else "s"
    if unit == "ms":
        return time
    if int(time[-1]) > TIME_MS_MAX // 1000:
        raise Rejected(f"{int(time[-1])} seconds is out of range", field="t", mend="write milliseconds")
    return time * 1000
