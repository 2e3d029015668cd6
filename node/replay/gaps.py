"""When 64 rows of one sender in a row were refused, the next nonce is too far ahead for any mempool.

Refused transactions use no nonce, so one of theirs is free: a filler (the sender pays itself nothing with
the highest of them) brings the account's nonce near enough. Ids of rows do not change by it.
"""

from __future__ import annotations

from node.replay.delivery import Delivery, Fate, Parcel, Place
from node.replay.signer import Signer


class Gaps:
    """Posts at most one filler for a row."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._tried: set[bytes] = set()
        self._failed: set[bytes] = set()
        self.filled = 0

    def close(self, parcel: Parcel) -> bool:
        """A node found this parcel's nonce too far ahead. True: it cannot be helped any more."""
        row, signer = parcel.tx, parcel.signer
        if next(iter(signer.open_nonces), row.nonce) != row.nonce or row.nonce == 0:
            return False  # lower ones are still on their way
        if row.id not in self._tried:
            self._tried.add(row.id)
            self._post_filler(parcel)
        return row.id in self._failed

    def _post_filler(self, parcel: Parcel) -> None:
        row = parcel.tx
        signer = Signer(parcel.signer.key, parcel.signer.chain_id, row.nonce - 1)
        filler = signer.sign(
            receiver=row.sender,
            amount=0,
            fee=row.fee,
            timestamp_ms=row.timestamp_ms,
            expires_ms=row.expires_ms,
        )

        def on_fate(_: Parcel, fate: Fate) -> None:
            if isinstance(fate, Place):
                self.filled += 1
                self._failed.discard(row.id)
            else:
                self._failed.add(row.id)

        self._delivery.post(Parcel(filler, signer, on_fate), is_urgent=True)
