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
from node.chain import Chain
from node.clock import Clock
from node.mempool.mempool import Mempool
from node.mempool.receipts import Receipt

Submit = Callable[[Sequence[bytes]], Coroutine[Any, Any, list[Receipt]]]
Spawn = Callable[[Coroutine[Any, Any, None]], None]


def sign_next(
    key: crypto.PrivateKey,
    rules: Rules,
    chain: Chain,
    mempool: Mempool,
    clock: Clock,
    *,
    kind: int,
    receiver: bytes,
    payload: bytes,
    state_bytes: int = 0,
) -> Transaction:
    """The account's next transaction, at the lowest fee. state_bytes: of records that it pays for."""
    parameters, view = rules.parameters, chain.final_view
    account = view.get_account(key.address)
    pending = mempool.get_pending(key.address)
    nonce = 0 if account is None else account.nonce_next
    now_ms = view.header.timestamp_ms
    if parameters.clock != CLOCK_WORKLOAD:
        now_ms = max(now_ms, clock.now_ms())
    return sign_transaction(
        key,
        rules.chain_id,
        kind=kind,
        nonce=max(nonce, pending[-1].nonce + 1) if pending else nonce,
        receiver=receiver,
        amount=0,
        fee=parameters.fee_units_min + state_bytes * parameters.account_byte_fee_units,
        timestamp_ms=now_ms,
        expires_ms=now_ms + parameters.lifetime_ms_max,
        payload=payload,
    )
