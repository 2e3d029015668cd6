"""The text of a CSV column as integers, labels or names; a bad value is refused with file, line and mend.

Invariant: nothing is repaired, rounded or guessed. Leaves out: which columns there are (ml/dataset.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consensus.codec import MONEY_MAX
from consensus.errors import Rejected

NAME_CHARACTERS_MAX: Final = 256  # a name becomes an account; longer text is a shifted column
CONSTANT: Final = "#"  # before a number in place of a column's name
BELOW_ZERO: Final = "<0"  # after the name of the label's column


def parse_amounts(
    text: Sequence[tuple[str, ...]],
    place: Mapping[str, int],
    columns: Mapping[str, str],
    path: Path,
    first_line: int,
    count: int,
) -> NDArray[np.int64]:
    """int64[count] of the column that `columns` names, or its constant. Raises Rejected."""
    if "amount" in place:
        return parse_integers(text[place["amount"]], path, first_line, "amount", MONEY_MAX)
    constant = columns["amount"].removeprefix(CONSTANT)
    return np.repeat(parse_integers((constant,), path, first_line, "amount", MONEY_MAX), count)


def parse_labels(
    text: tuple[str, ...], path: Path, first_line: int, columns: Mapping[str, str]
) -> NDArray[np.int64]:
    """int64[n] of 0 and 1: the column as it stands, or whether it is below 0. Raises Rejected."""
    if not columns.get("label", "").endswith(BELOW_ZERO):
        return parse_integers(text, path, first_line, "label", 1)
    negative = [value.strip().startswith("-") for value in text]
    sizes = parse_integers(
        tuple(v.strip().removeprefix("-") for v in text), path, first_line, "label", MONEY_MAX
    )
    return (np.array(negative) & (sizes > 0)).astype(np.int64)


def parse_integers(
    text: Sequence[str], path: Path, first_line: int, field: str, high: int
) -> NDArray[np.int64]:
    """int64[n] of whole numbers of 0 to `high`. Raises Rejected with the first bad line."""
    try:
        values = list(map(int, text))
        if min(values) >= 0 and max(values) <= high and "_" not in "".join(text):
            return np.array(values, dtype=np.int64)
    except ValueError:
        pass  # the slow look below says which line is wrong, and why
    bad, problem = next((i, p) for i, p in enumerate(_find_problem(t, high) for t in text) if p)
    mends = {
        "t": "write whole seconds or milliseconds",
        "amount": "write whole smallest units (cents, not 12.50)",
        "label": "write 0 or 1",
    }
    raise Rejected(
        f"{text[bad][:40]!r} {problem}", field=f"{path}, line {first_line + bad}, {field}", mend=mends[field]
    )


def _find_problem(text: str, high: int) -> str:
    """What is wrong with an integer's text, or "" if nothing is."""
    stripped = text.strip()
    if not stripped:
        return "is missing"
    if stripped.lstrip("+-").lower() in {"nan", "inf", "infinity", "none", "null"}:
        return "is not a number"
    digits = stripped.lstrip("+-")
    if not (digits.isascii() and digits.isdigit()):
        return "is not a whole number"
    if stripped.startswith("-") and digits.strip("0"):
        return "is negative"
    if len(digits.lstrip("0")) > len(str(high)) or int(digits) > high:
        return f"is above the largest allowed, {high}"
    return ""


def check_names(text: tuple[str, ...], path: Path, first_line: int, field: str) -> tuple[str, ...]:
    """The names of accounts or kinds, none missing or too long. Raises Rejected with the first bad line."""
    if not all(text) or max(map(len, text)) > NAME_CHARACTERS_MAX:
        bad = next(i for i, name in enumerate(text) if not 0 < len(name) <= NAME_CHARACTERS_MAX)
        raise Rejected(
            "is missing" if not text[bad] else f"is longer than {NAME_CHARACTERS_MAX} characters",
            field=f"{path}, line {first_line + bad}, {field}",
            mend="name the account",
        )
    return text
