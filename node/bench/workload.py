"""Transactions signed before anything is measured, and kept on disk for the next run.

Number i of a seed is always the same transaction: sender i mod ACCOUNTS with nonce i div ACCOUNTS, a
random receiver and amount, on the clock of a busy town (one payment every nine seconds, as the card trace
has them). The chain id is made from the seed, so that every network of a run takes the same ones.
Invariant: a file holds numbers 0 to n - 1 without holes; asked for more, the rest is signed and added.
"""

from __future__ import annotations

import mmap
import os
import random
import struct
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from consensus import crypto
from consensus.errors import Fault, Rejected
from consensus.parameters import DAY_MS
from consensus.transaction import TRANSACTION_BYTES_MAX, sign_transaction
from node.bench.offspring import leave_signals_to_parent
from node.store.disk import RealDisk

ACCOUNTS: Final = 10_000  # with 100,000 waiting ten of each sender: far from a nonce window of 64
BALANCE: Final = 10**11  # 10,000 of them are a ninth of the supply that is left beside a local network's own
START_MS: Final = 1_700_000_000_000
STEP_MS: Final = 9_000  # the card trace has 9,500 payments a day
LIFETIME_MS: Final = 30 * DAY_MS
CHUNK: Final = 1_000  # transactions that share a random source; also what a worker signs at once
PIECE: Final = 100  # chunks in memory at once
PROCESSES_FROM: Final = 8_000  # starting workers takes as long as signing so many
_LENGTH: Final = struct.Struct(">H")


def make_chain_id(seed: int) -> str:
    return f"bench-{seed}"


def make_keys(seed: int, count: int = ACCOUNTS) -> list[crypto.PrivateKey]:
    """The accounts of a seed, in order."""
    return [crypto.PrivateKey.from_seed(f"bench/{seed}/{number}".encode()) for number in range(count)]


def make_accounts(keys: Sequence[crypto.PrivateKey]) -> tuple[tuple[bytes, int], ...]:
    """What genesis gives them."""
    return tuple((key.address, BALANCE) for key in keys)


def sign_chunk(seed: int, keys: Sequence[crypto.PrivateKey], chain_id: str, chunk: int) -> list[bytes]:
    """Transactions chunk * CHUNK and the following, encoded."""
    rng = random.Random(f"bench/{seed}/{chunk}")
    raws = []
    for number in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        time_ms = START_MS + number * STEP_MS
        transaction = sign_transaction(
            keys[number % len(keys)],
            chain_id,
            nonce=number // len(keys),
            receiver=keys[rng.randrange(len(keys))].address,
            amount=rng.randrange(1, 20_000),
            fee=1,
            timestamp_ms=time_ms,
            expires_ms=time_ms + LIFETIME_MS,
        )
        raws.append(transaction.raw)
    return raws


def sign_transactions(seed: int, first_chunk: int, end_chunk: int) -> list[bytes]:
    """The chunks from first_chunk to before end_chunk, over all cores when they are many."""
    chunks = range(first_chunk, end_chunk)
    processes = os.cpu_count() or 1
    if processes == 1 or len(chunks) * CHUNK < PROCESSES_FROM:
        sign = partial(sign_chunk, seed, make_keys(seed), make_chain_id(seed))
        return [raw for chunk in chunks for raw in sign(chunk)]
    with ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=_prepare, initargs=(seed,)
    ) as pool:
        try:
            return [raw for raws in pool.map(_sign_prepared, chunks) for raw in raws]
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C waits for no more than is begun


_prepared: dict[int, list[crypto.PrivateKey]] = {}  # of this worker process


def _prepare(seed: int) -> None:
    leave_signals_to_parent()
    _prepared[seed] = make_keys(seed)


def _sign_prepared(chunk: int) -> list[bytes]:
    ((seed, keys),) = _prepared.items()
    return sign_chunk(seed, keys, make_chain_id(seed), chunk)


def provide_transactions(folder: Path, seed: int, count: int) -> Path:
    """The file with at least `count` transactions of `seed`; what it lacks is signed now. Raises Fault."""
    path = folder / f"signed-{ACCOUNTS}-{STEP_MS}-{seed}.bin"
    have = SignedFile.open(path) if path.exists() else None
    if have is not None and (len(have) < CHUNK or have[:CHUNK] != sign_transactions(seed, 0, 1)):
        have = None  # cut short, or of an older form of transactions
    first = 0 if have is None else len(have) // CHUNK
    if first * CHUNK < count:
        chunks = _write_chunks(have, seed, first, -(-count // CHUNK))
        RealDisk().write_file(path, chunks)
    return path


def _write_chunks(have: SignedFile | None, seed: int, first: int, end: int) -> Iterator[bytes]:
    """The file's bytes piece by piece: what there is, then what is signed now."""
    if have is not None:
        for start in range(0, first, PIECE):
            yield _join(have[start * CHUNK : min(start + PIECE, first) * CHUNK])
    for start in range(first, end, PIECE):
        yield _join(sign_transactions(seed, start, min(start + PIECE, end)))


def _join(raws: Sequence[bytes]) -> bytes:
    return b"".join(_LENGTH.pack(len(raw)) + raw for raw in raws)


class SignedFile:
    """Transactions by number, read where they lie: ten million of them take 80 MB of memory."""

    def __init__(self, data: mmap.mmap | bytes) -> None:
        self._data = data
        self._offsets = array("Q")
        place = 0
        while place + _LENGTH.size <= len(data):
            (length,) = _LENGTH.unpack_from(data, place)
            if length > TRANSACTION_BYTES_MAX or place + _LENGTH.size + length > len(data):
                break  # damaged from here on
            self._offsets.append(place)
            place += _LENGTH.size + length

    @classmethod
    def open(cls, path: Path) -> SignedFile:
        """Raises Fault when it cannot be read."""
        try:
            with path.open("rb") as file:
                is_empty = path.stat().st_size == 0
                return cls(b"" if is_empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except OSError as error:
            raise Fault(f"cannot be read ({error.strerror})", field=str(path)) from None

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, numbers: slice) -> list[bytes]:
        found = []
        for place in self._offsets[numbers]:
            (length,) = _LENGTH.unpack_from(self._data, place)
            found.append(self._data[place + _LENGTH.size : place + _LENGTH.size + length])
        return found


def read_transactions(path: Path, first: int, end: int) -> list[bytes]:
    """Numbers first to end - 1. Raises Rejected when there are not so many."""
    signed = SignedFile.open(path)
    if len(signed) < end:
        raise Rejected(f"holds fewer than {end} transactions", field=str(path), mend="remove it")
    return signed[first:end]
