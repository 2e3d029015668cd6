"""Two benchmark documents side by side: what became better, what worse, by how much.

Rows with a ratio to raw are compared by it (so that two machines compare), the others by value. Less than
NOISE either way is called the same: two runs of one program differ by that on a quiet machine.
Leaves out: significance; for that, run each several times.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from consensus.errors import Rejected
from node.bench.table import SPEC_BY_NAME, Row

NOISE: Final = 0.05


@dataclass(frozen=True, slots=True)
class Difference:
    """One row in both files. change: new / old, None where a side has no value. verdict: a word."""

    name: str
    old: float | None
    new: float | None
    unit: str
    change: float | None
    verdict: str


def read_document(path: Path) -> dict[str, Row]:
    """The rows of a file that `assay bench --json` wrote, by name. Raises Rejected."""
    mend = "name a file that `assay bench --json` wrote"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        rows = [Row(**{field.name: row[field.name] for field in fields(Row)}) for row in document["rows"]]
        is_sound = all(isinstance(row.name, str) and _is_number(row.value) for row in rows)
    except OSError as error:
        raise Rejected(f"cannot be read ({error.strerror})", field=str(path), mend=mend) from None
    except (ValueError, KeyError, TypeError, UnicodeDecodeError):
        is_sound = False
    if not is_sound:
        raise Rejected("is no benchmark's document", field=str(path), mend=mend)
    return {row.name: row for row in rows}


def compare_rows(old: Mapping[str, Row], new: Mapping[str, Row]) -> list[Difference]:
    """Every row of either file, the new file's order first."""
    names = [*new, *(name for name in old if name not in new)]
    return [_compare(name, old.get(name), new.get(name)) for name in names]


def describe_differences(differences: list[Difference]) -> str:
    titles = ("row", "old", "new", "unit", "new / old", "")
    lines = [titles, *map(_show, differences)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(titles))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place in (0, 3, 5) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def form_differences(differences: list[Difference]) -> list[dict[str, Any]]:
    return [{field.name: getattr(item, field.name) for field in fields(Difference)} for item in differences]


def _compare(name: str, old: Row | None, new: Row | None) -> Difference:
    unit = (new or old or Row(name, None, "", None, None, None)).unit
    values = None if old is None else old.value, None if new is None else new.value
    if old is None or new is None:
        return Difference(name, *values, unit, None, "only in the new" if old is None else "only in the old")
    before, after = old.value, new.value
    if old.ratio_to_raw is not None and new.ratio_to_raw is not None:
        before, after = old.ratio_to_raw, new.ratio_to_raw
    if before is None or after is None:
        return Difference(name, *values, unit, None, "failed" if after is None else "was failing")
    if before == after:
        return Difference(name, *values, unit, 1.0, "same")
    if not before:
        return Difference(name, *values, unit, None, "worse" if not _is_more_better(name) else "better")
    change = round(after / before, 4)
    if abs(change - 1) <= NOISE:
        return Difference(name, *values, unit, change, "same")
    return Difference(
        name, *values, unit, change, "better" if (change > 1) == _is_more_better(name) else "worse"
    )


def _is_more_better(name: str) -> bool:
    spec = SPEC_BY_NAME.get(name)
    return spec is not None and spec.is_more_better


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _show(item: Difference) -> tuple[str, ...]:
    def show(value: float | None) -> str:
        return "-" if value is None else f"{value:,}"

    change = "" if item.change is None else f"{item.change:.3f}"
    return item.name, show(item.old), show(item.new), item.unit, change, item.verdict
