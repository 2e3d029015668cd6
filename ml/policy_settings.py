"""Reading a policy module's settings: text from a command line and JSON from a file alike.

Invariant: every setting is read by name, type and range, and `check_all_read` refuses what nobody asked
for, so that a misspelt name is an error and not a default. Leaves out: where settings come from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from consensus.codec import MONEY_MAX, check_int
from consensus.errors import Rejected

UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
SPAN_MS_MAX: Final = 366 * UNIT_MS["d"]  # longer windows are history, and belong into a model's state

_SPAN: Final = re.compile(r"(\d{1,12})(ms|s|m|h|d)\Z")


class Settings:
    """`name` is the module's, for messages: `policy NAME: FIELD`."""

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        self._name = name
        self._values = values
        self._read: set[str] = set()

    def get_int(self, field: str, default: int | None, *, low: int = 0, high: int = MONEY_MAX) -> int:
        """A whole number; written as text it is decimal. Without a default it has to be there."""
        value = self._get(field, default)
        if isinstance(value, str) and value.isdecimal() and len(value) <= 16:
            value = int(value)
        return check_int(value, self.place(field), low=low, high=high)

    def get_span_ms(self, field: str, default: str) -> int:
        """A length of time written 500ms, 10s, 5m, 24h or 7d."""
        value = self._get(field, default)
        match = _SPAN.match(value) if isinstance(value, str) else None
        if match is None or not 0 < int(match[1]) * UNIT_MS[match[2]] <= SPAN_MS_MAX:
            raise Rejected(
                f"{value!r} is not a length of time",
                field=self.place(field),
                mend="write it like 10s, 5m or 24h",
            )
        return int(match[1]) * UNIT_MS[match[2]]

    def get_share(self, field: str, default: float) -> float:
        """A number from 0 to 1."""
        value = self._get(field, default)
        try:
            share = float(value) if isinstance(value, str | int | float) and value is not True else -1.0
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            raise Rejected(f"{value!r} is not a number from 0 to 1", field=self.place(field))
        return share

    def get_word(self, field: str, default: str, words: Sequence[str]) -> str:
        """One of `words`."""
        value = self._get(field, default)
        if value not in words:
            raise Rejected(f"{value!r} is not one of {', '.join(words)}", field=self.place(field))
        return str(value)

    def get_path(self, field: str) -> Path:
        value = self._get(field, None)
        if not isinstance(value, str) or not value:
            raise Rejected("must be a path", field=self.place(field))
        return Path(value)

    def check_all_read(self) -> None:
        """Raises Rejected for a setting that nothing read."""
        for field in self._values:
            if field not in self._read:
                known = ", ".join(sorted(self._read)) or "none"
                raise Rejected("is not a setting", field=self.place(field), mend=f"there are: {known}")

    def place(self, field: str) -> str:
        return f"policy {self._name}: {field}"

    def _get(self, field: str, default: Any) -> Any:
        self._read.add(field)
        value = self._values.get(field, default)
        if value is None:
            raise Rejected("is missing", field=self.place(field), mend=f"give {field}=…")
        return value
