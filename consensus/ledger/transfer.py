"""Transfer: money from one account to another. The envelope says it all; the payload is empty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from consensus.errors import Rejected
from consensus.ledger.kind import UsualKind
from consensus.transaction import KIND_TRANSFER, Transaction

if TYPE_CHECKING:
    from consensus.ledger.work import Work


@dataclass(frozen=True, slots=True)
class TransferKind(UsualKind):
    """Amount 0 and sender = receiver are legal; a receiver that does not exist is created."""

    number: int = KIND_TRANSFER
    name: str = "transfer"
    is_scored: bool = True

    def check_form(self, tx: Transaction) -> None:
        if tx.payload:
            raise Rejected(
                f"{len(tx.payload)} bytes, a transfer has none",
                field="payload",
                mend="leave it empty",
                code="size",
            )

    def check(self, tx: Transaction, work: Work) -> None:
        """Nothing besides the envelope."""

    def apply(self, tx: Transaction, work: Work) -> None:
        """Nothing besides the envelope."""


TRANSFER: Final = TransferKind()
