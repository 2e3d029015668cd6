"""What commands print: aligned plain text for people, one JSON document for programs.

No colours and no boxes: hashes are long, and what is printed is copied and piped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any


def print_json(document: Any) -> None:
    """One JSON document."""
    print(json.dumps(document, indent=1))


def print_fields(pairs: Iterable[tuple[str, Any]]) -> None:
    """Name and value per line, values aligned; a value of None leaves its line out."""
    shown = [(name, value) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in shown), default=0) + 2
    for name, value in shown:
        print(f"{name:{width}}{value}")


def print_table(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Columns as wide as their widest cell; numbers to the right, words to the left."""
    body = [[_show(cell) for cell in row] for row in rows]
    raw_rows = [list(titles), *body]
    widths = [max(len(row[i]) for row in raw_rows) for i in range(len(titles))]
    is_number = [all(_is_number(row[i]) for row in body) and bool(body) for i in range(len(titles))]
    for row in raw_rows:
        cells = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, is_number, strict=True)
        ]
        print("  ".join(cells).rstrip())


def describe_time(time_ms: int) -> str:
    """A time of the chain as UTC; milliseconds since the epoch where that is no date people know."""
    try:
        moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{time_ms} ms"
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC ({time_ms} ms)"


def describe_score(score: int | None, outcome: str | None) -> str | None:
    """A score in its range, and what came of it; None before it was judged."""
    if score is None:
        return None
    return f"{score} of 10000{f' ({outcome})' if outcome else ''}"


def describe_bp(basis_points: int | None) -> str | None:
    """A share in basis points as per cent; None as it is."""
    return None if basis_points is None else f"{basis_points / 100:.1f}%"


def shorten(text: str, length: int = 18) -> str:
    """The start of a long hash, marked as cut."""
    return text if len(text) <= length else text[: length - 1] + "…"


def _show(cell: Any) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return str(cell)


def _is_number(text: str) -> bool:
    return text.lstrip("+-").isdecimal() or text in ("", "-")
