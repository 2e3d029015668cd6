"""How clients of a simulated network sign for accounts that others write for as well.

Invariant: a nonce is above what is final of its account and above what this signer gave out.
Leaves out: what is signed (`stakers.py`, `model_life.py`); payments, whose cheats choose their nonces.
"""

from __future__ import annotations

from collections.abc import Callable

from consensus.crypto import PrivateKey
from consensus.ledger.rules import Rules
from consensus.transaction import Transaction, sign_transaction


class Signer:
    """One crowd's. get_nonce: the next one of an address, by what is final. Receivers are the senders."""

    def __init__(self, rules: Rules, get_nonce: Callable[[bytes], int], lifetime_ms: int) -> None:
        self._rules = rules
        self._get_nonce = get_nonce
        self._lifetime_ms = lifetime_ms
        self._nonces: dict[bytes, int] = {}

    def sign(
        self,
        key: PrivateKey,
        kind: int,
        wall_ms: int,
        *,
        amount: int = 0,
        payload: bytes = b"",
        fee: int | None = None,
        is_vain: bool = False,
    ) -> Transaction:
        """fee: the least unless told. is_vain: it can enter no block, and uses up no nonce."""
        nonce = max(self._get_nonce(key.address), self._nonces.get(key.address, 0))
        if not is_vain:
            self._nonces[key.address] = nonce + 1
        return sign_transaction(
            key,
            self._rules.chain_id,
            kind=kind,
            nonce=nonce,
            receiver=key.address,
            amount=amount,
            fee=self._rules.parameters.fee_units_min if fee is None else fee,
            timestamp_ms=wall_ms,
            expires_ms=wall_ms + self._lifetime_ms,
            payload=payload,
        )
