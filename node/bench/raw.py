"""The unit of the table: ECDSA verifications a second, one core, the key parsed from 33 bytes each time.

What a block costs at the least is its signatures; every rate is quoted as a multiple of this one, measured
just before and just after it. Invariant: nothing but the library is timed. Leaves out: the form checks
around a signature, which are ours and count as everything else does.
"""

from __future__ import annotations

from typing import Final

from consensus import crypto
from consensus.secp256k1 import Signed
from node.bench.stopwatch import compute_median, measure_s

KEYS: Final = 64  # different ones: no branch predictor knows them all
REPEATS: Final = 5


def make_items(count: int) -> list[Signed]:
    """Valid signatures of KEYS keys."""
    keys = [crypto.PrivateKey.from_seed(f"bench/raw/{number}".encode()) for number in range(KEYS)]
    digests = [crypto.hash_bytes(number.to_bytes(4, "big")) for number in range(count)]
    return [
        (keys[number % KEYS].public_key, digest, keys[number % KEYS].sign(digest))
        for number, digest in enumerate(digests)
    ]


class RawRate:
    """Measures it again and again. `measurements`: all of them, verifications a second."""

    def __init__(self, count: int) -> None:
        self._items = make_items(count)
        self.measurements: list[float] = []

    def measure(self) -> float:
        """Verifications a second now: the median of REPEATS."""
        verify_all = crypto.BACKEND.verify_all
        answers: list[bool] = []
        seconds = [measure_s(lambda: answers.extend(verify_all(self._items))) for _ in range(REPEATS)]
        assert all(answers), "the benchmark made these signatures itself"
        rate = len(self._items) / compute_median(seconds)
        self.measurements.append(rate)
        return rate
