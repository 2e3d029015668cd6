"""The shelf: modules that can judge on this chain, by digest: those of genesis, and what artifacts make.

Consensus knows no module's code: a loader (`ml.discovery.load_module`) is handed in with the rules. It is
asked for the names of genesis alone, whose code every node of the chain has.

Invariant: loading is a function of name and artifact. What was made of one, or why nothing was, is
remembered, so that mempool, proposer and judge pay once. Leaves out: where artifacts lie (models.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

import numpy as np

from consensus.errors import Fault, Rejected
from consensus.ledger.scoring import (
    MODULE_ROW_BYTES_MAX,
    ModuleLoader,
    ValidationModule,
    get_rows_key,
)

MADE_MAX: Final = 32  # modules remembered, four times as many as judge at once; a model takes a megabyte


class ModuleShelf:
    """Remembers, and is otherwise a function. Shared by all that asks one chain's rules."""

    def __init__(self, given: Sequence[ValidationModule], load: ModuleLoader | None) -> None:
        self._given = {module.digest: module for module in given}
        self._load = load
        self._made: dict[bytes, ValidationModule | str] = {}  # or why there is none
        self.names = tuple(sorted({module.name for module in given}))

    def get_given(self, digest: bytes) -> ValidationModule | None:
        """A module of genesis, or None."""
        return self._given.get(digest)

    def make(self, name: str, artifact: bytes) -> ValidationModule:
        """The module of an artifact. Raises Rejected when there is none, Fault when it cannot be tried."""
        key = sha256(name.encode() + b"\x00" + artifact).digest()
        made = self._made.get(key)
        if made is None:
            made = self._try(name, artifact)
            while len(self._made) >= MADE_MAX:
                self._made.pop(next(iter(self._made)), None)
            self._made[key] = made
        if isinstance(made, str):
            raise Rejected(made, field=f"module {name}", mend="publish a sound artifact", code="model")
        return made

    def _try(self, name: str, artifact: bytes) -> ValidationModule | str:
        if self._load is None:
            raise Fault("no loader was given for published models", field="modules")
        if name not in self.names:
            return f"is none of this chain's: {', '.join(self.names)}"
        try:
            with np.errstate(all="ignore"):  # not as the process is set: the same on every node
                module = self._load(name, artifact)
            rows_key = get_rows_key(module)
        except MemoryError as error:
            raise Fault(f"out of memory while loading module {name}", field="modules") from error
        except (ImportError, OSError) as error:  # this machine's, and no verdict on the artifact
            raise Fault(f"module {name} could not be loaded here ({error})", field="modules") from error
        except Exception as error:
            return f"nothing can be made of the artifact ({error})"
        if module.name != name:
            return f'calls itself "{module.name}"'
        if type(rows_key) is not bytes or len(rows_key) != 32:
            return "its rows_key is not 32 bytes"
        if not 0 <= module.row_bytes <= MODULE_ROW_BYTES_MAX:
            return f"keeps {module.row_bytes} bytes, at most {MODULE_ROW_BYTES_MAX} allowed"
        return module
