"""What a node does with its validator's account by itself: one signed transaction, with the next free nonce.

Two rooms act so, and never more than asked for: `accuser.py` and `onion_keeper.py`. Invariant: the nonce is above
all that is final or pending here, and the time is the chain's or the clock's, whichever is later.
Leaves out: when, and what to do with the answer; that is theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from consensus import crypto
from consensus.ledger.rules import Rules
from consensus.parameters import CLOCK_WORKLOAD
from consensus.transaction import Transaction, sign_transaction
from node.blocks.chain import Chain
from node.clock import Clock
from node.mempool.mempool import Mempool
from node.mempool.receipts import Receipt

Submit = Callable[[Sequence[bytes]], Coroutine[Any, Any, list[Receipt]]]
Spawn = Callable[[Coroutine[Any, Any, None]], None]
Hear = Callable[[Transaction, Receipt], None]


class OwnAccount:
    """One validator's. key: of its operator, and of the account that pays."""

    def __init__(
        self,
        rules: Rules,
        chain: Chain,
        mempool: Mempool,
        clock: Clock,
        key: crypto.PrivateKey,
        submit: Submit,
        spawn: Spawn,
    ) -> None:
        self.key = key
        self._rules = rules
        self._chain = chain
        self._mempool = mempool
        self._clock = clock
        self._submit = submit
        self._spawn = spawn

    def is_waiting(self, transaction_id: bytes) -> bool:
        """Whether it lies in the mempool."""
        return self._mempool.get(transaction_id) is not None

    def send_next(
        self, kind: int, receiver: bytes, payload: bytes, hear: Hear, *, state_bytes: int = 0
    ) -> bytes:
        """Sign the account's next transaction, at the lowest fee, and submit it; its id.

        hear: called with its receipt, later. state_bytes: of records that it pays for.
        """
        tx = self._sign_next(kind, receiver, payload, state_bytes)
        self._spawn(self._send(tx, hear))
        return tx.id

    async def _send(self, tx: Transaction, hear: Hear) -> None:
        (receipt,) = await self._submit((tx.raw,))
        hear(tx, receipt)

    def _sign_next(self, kind: int, receiver: bytes, payload: bytes, state_bytes: int) -> Transaction:
        parameters, view, address = self._rules.parameters, self._chain.final_view, self.key.address
        account = view.get_account(address)
        pending = self._mempool.get_pending(address)
        nonce = 0 if account is None else account.nonce_next
        now_ms = view.header.timestamp_ms
        if parameters.clock != CLOCK_WORKLOAD:
            now_ms = max(now_ms, self._clock.now_ms())
        return sign_transaction(
            self.key,
            self._rules.chain_id,
            kind=kind,
            nonce=max(nonce, pending[-1].nonce + 1) if pending else nonce,
            receiver=receiver,
            amount=0,
            fee=parameters.fee_units_min + state_bytes * parameters.account_byte_fee_units,
            timestamp_ms=now_ms,
            expires_ms=now_ms + parameters.lifetime_ms_max,
            payload=payload,
        )
