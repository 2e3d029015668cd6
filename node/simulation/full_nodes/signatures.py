"""Signatures checked once for all nodes of a run: whether one holds depends on its bytes alone.

Four nodes check the same votes and payments; real checks would take half of a run's time. Each distinct
(key, digest, signature) is still checked for real, the first time anybody asks.

Invariant: the answer is `consensus.crypto`'s own. Leaves out: any other process; one run at a time, as
for `guard.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from consensus import crypto
from consensus.secp256k1 import Signed


@contextmanager
def remember_signatures() -> Iterator[None]:
    """Until the block ends, `crypto.verify` and `crypto.verify_batch` remember their answers."""
    verify, verify_batch = crypto.verify, crypto.verify_batch
    known: dict[Signed, bool] = {}

    def verify_once(public_key: bytes, digest: bytes, signature: bytes) -> bool:
        item = (public_key, digest, signature)
        answer = known.get(item)
        if answer is None:
            answer = known[item] = verify(public_key, digest, signature)
        return answer

    def verify_batch_once(items: Sequence[Signed]) -> list[bool]:
        return [verify_once(*item) for item in items]

    crypto.verify = verify_once  # type: ignore[assignment]
    crypto.verify_batch = verify_batch_once  # type: ignore[assignment]
    try:
        yield
    finally:
        crypto.verify, crypto.verify_batch = verify, verify_batch
