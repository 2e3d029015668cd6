"""The hash over a run's trace: what happened, event by event, in bytes.

Two runs with one hash went the same way. Messages count by a number each, packed many at a time: they
are the most frequent thing in a run, and their bytes enter once.

Invariant: everything enters in the order in which it happened.
"""

from __future__ import annotations

import hashlib
import struct


class TraceHash:
    """`add_number` takes what fits into 64 bits, `add` any bytes."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._numbers: list[int] = []  # packed, not hashed yet
        self.add_number = self._numbers.append

    def add(self, content: bytes) -> None:
        self._flush()
        self._hash.update(content)

    def compute(self) -> str:
        """The hash so far, in hexadecimal."""
        self._flush()
        return self._hash.hexdigest()

    def _flush(self) -> None:
        self._hash.update(struct.pack(f"<{len(self._numbers)}Q", *self._numbers))
        self._numbers.clear()
