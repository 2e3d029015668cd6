"""One account's nonces while it sends: the next one, and those whose fate is open.

Invariant: nonces count up from the account's next one on chain, and none is given out while one that is
64 lower is still open: past that the lower one could never come any more (the ledger's nonce window,
RFC 4303 section 3.4.3).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from consensus import crypto, transaction
from consensus.ledger.state import NONCE_WINDOW


@dataclass(slots=True)
class Signer:
    """A key and its nonces. `open_nonces` keeps the order they were given out in."""

    key: crypto.PrivateKey
    chain_id: str
    nonce: int
    open_nonces: dict[int, None] = field(default_factory=dict)

    @property
    def has_room(self) -> bool:
        return not self.open_nonces or self.nonce - next(iter(self.open_nonces)) < NONCE_WINDOW

    def sign(
        self,
        *,
        receiver: bytes,
        amount: int,
        fee: int,
        timestamp_ms: int,
        expires_ms: int,
        kind: int = transaction.KIND_TRANSFER,
        payload: bytes = b"",
    ) -> transaction.Transaction:
        """A transaction with the next nonce. Call only while there is room. Raises Rejected."""
        assert self.has_room
        tx = transaction.sign_transaction(
            self.key,
            self.chain_id,
            kind=kind,
            nonce=self.nonce,
            receiver=receiver,
            amount=amount,
            fee=fee,
            timestamp_ms=timestamp_ms,
            expires_ms=expires_ms,
            payload=payload,
        )
        self.open_nonces[self.nonce] = None
        self.nonce += 1
        return tx

    def settle(self, nonce: int) -> None:
        """Its fate is known."""
        self.open_nonces.pop(nonce, None)
