"""The door for a new kind of transaction: what one module of the ledger supplies.

The envelope (who, nonce, receiver, amount, fee, times) is handled for all kinds in one place
(work.py): amount moves from sender to receiver, the nonce is used, the fee is kept for the proposer. A
kind adds what is its own: the form of its payload, its check against the state, its effect, and a
namespace of records (`records.get_kind_namespace(number)`).

Invariant: `check` changes nothing and `apply` cannot fail after it, so that a transaction happens
wholly or not at all; kinds run in block order, each seeing all earlier transactions of the block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from consensus.codec import TIME_MS_MAX
from consensus.parameters import Parameters
from consensus.transaction import Transaction

if TYPE_CHECKING:
    from consensus.ledger.work import Work


class Kind(Protocol):
    """One kind of transaction. Instances hold no state."""

    @property
    def number(self) -> int:
        """`Transaction.kind`, 0..127."""
        ...

    @property
    def name(self) -> str: ...

    @property
    def is_scored(self) -> bool:
        """Whether the modules judge it as a transfer; otherwise its score is 0 and it is accepted."""
        ...

    def check_form(self, tx: Transaction) -> None:
        """Raises Rejected unless payload and envelope fit the kind. Without state, and cheap."""
        ...

    def get_accounts(self, tx: Transaction) -> tuple[bytes, ...]:
        """Addresses it reads or writes besides sender and receiver. `check_form` came before."""
        ...

    def get_deadline_ms(self, tx: Transaction, parameters: Parameters) -> int:
        """The last block time at which it can be valid, as far as the kind limits it."""
        ...

    def check(self, tx: Transaction, work: Work) -> None:
        """Raises Rejected or NotYet unless it may happen now; changes nothing."""
        ...

    def apply(self, tx: Transaction, work: Work) -> None:
        """Its effect besides the envelope's, on `work`: the same whatever the block's time will be."""
        ...

    def close(self, work: Work) -> None:
        """Once per block, after its transactions: bounded upkeep of the kind's own records."""
        ...


class UsualKind:
    """What most kinds have: no score, no account besides sender and receiver, no deadline, no upkeep."""

    __slots__ = ()
    is_scored: bool = False

    def get_accounts(self, tx: Transaction) -> tuple[bytes, ...]:  # noqa: ARG002 (as the door has it)
        return ()

    def get_deadline_ms(self, tx: Transaction, parameters: Parameters) -> int:  # noqa: ARG002
        return TIME_MS_MAX

    def close(self, work: Work) -> None:
        """Keeps nothing that expires."""
