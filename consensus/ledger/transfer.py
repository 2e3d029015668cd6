"""Transfer: money from one account to another. The envelope says it all; the payload is empty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from consensus.codec import TIME_MS_MAX
from consensus.errors import Rejected
from consensus.genesis import Parameters
from consensus.transaction import KIND_TRANSFER, Transaction

if TYPE_CHECKING:
    from consensus.ledger.work import Work


@dataclass(frozen=True, slots=True)
class TransferKind:
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

    def get_accounts(self, tx: Transaction) -> tuple[bytes, ...]:  # noqa: ARG002 (as the door has it)
        return ()

    def get_deadline_ms(self, tx: Transaction, parameters: Parameters) -> int:  # noqa: ARG002
        return TIME_MS_MAX

    def check(self, tx: Transaction, work: Work) -> None:
        """Nothing besides the envelope."""

    def apply(self, tx: Transaction, work: Work) -> None:
        """Nothing besides the envelope."""

    def close(self, work: Work) -> None:
        """Keeps no records."""


TRANSFER: Final = TransferKind()
