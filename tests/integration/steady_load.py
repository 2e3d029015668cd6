"""A steady load of transfers while a network is mistreated, and what became of every one of them.

Like a careful client: it signs ahead, keeps a bounded number waiting, submits to a random node that
answers, and submits again what is not final after a while (an id enters a chain once). It notes the
place of everything it ever saw final, and which block a node called final at which height, so that a test
can ask whether that still stands; two nodes that name different blocks are an error at once.
"""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import msgpack

from consensus.crypto import PrivateKey
from consensus.parameters import CLOCK_WALL
from consensus.transaction import sign_transaction
from tests.integration.network_process import NetworkProcess, get_json, request_json, wait_for

BATCH = 10
PAUSE_S = 0.05  # between batches: with ten in each some 200 transfers a second
WAITING_MAX = 400  # signed and not yet final; one sender's nonces stay well within its window
AGAIN_S = 1.0  # what is not final by then is submitted once more
LIFETIME_MS = 86_400_000  # or what the chain allows, if that is less
TIMEOUT_S = 3.0  # a node that was frozen with our request in its hands is not waited for any longer


class SteadyLoad:
    """`with SteadyLoad(network, seed) as load:`; an error of its thread is raised at the end."""

    def __init__(self, network: NetworkProcess, seed: int, batch: int = BATCH) -> None:
        self._network = network
        self._batch = batch
        self._rng = random.Random(seed)
        document = network.description
        self._chain_id = document["chain_id"]
        self._keys = [
            PrivateKey.from_bytes(bytes.fromhex(entry["private_key"][2:])) for entry in document["accounts"]
        ]
        self._receivers = [self._rng.randbytes(20) for _ in range(200)]
        status = network.get_status(0)
        self._clock_ms = status["clock_ms"]
        parameters = status["parameters"]
        self._is_wall = parameters["clock"] == CLOCK_WALL
        self._lifetime_ms = min(LIFETIME_MS, parameters["lifetime_ms_max"])
        self.seen_height = status["finalized"]["height"]
        self.skipped: set[int] = set()  # nodes that are not asked: they are frozen, and would only cost time
        self.rounds = 0  # of asking and submitting, whatever came of it
        self.acknowledged: set[str] = set()  # ids that some node took
        self.hashes: dict[int, str] = {}  # height -> the block that some node called final there
        self._signed = 0
        self._waiting: dict[str, tuple[bytes, float]] = {}  # id -> (raw, when it was submitted last)
        self.places: dict[str, tuple[int, int]] = {}  # id -> (height, index), as first seen final
        self._stop = threading.Event()
        self._draining = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> SteadyLoad:
        self._thread.start()
        self.wait_more(3 * self._batch)
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=30)
        if self._error is not None and kind is None:
            raise self._error

    def wait_more(self, count: int, seconds: float = 60.0) -> float:
        """Until `count` more transfers are seen final; how long that took, in seconds."""
        target, start = len(self.places) + count, time.monotonic()
        wait_for(f"{count} more final transfers", lambda: self._error or len(self.places) >= target, seconds)
        if self._error is not None:
            raise self._error
        return time.monotonic() - start

    def wait_rounds(self, count: int, seconds: float = 60.0) -> None:
        """Until this client went round `count` more times: a measure of work, also while nothing is final."""
        target = self.rounds + count
        wait_for(f"{count} more rounds", lambda: self._error or self.rounds >= target, seconds)
        if self._error is not None:
            raise self._error

    def drain(self, seconds: float = 60.0) -> None:
        """Stop making new ones, and wait until every one that was submitted is final."""
        self._draining.set()
        wait_for("an end of what is waiting", lambda: self._error or not self._waiting, seconds)
        if self._error is not None:
            raise self._error

    def check_places(self) -> None:
        """On every node everything ever seen final stands where it was seen, once."""
        places, hashes = dict(self.places), dict(self.hashes)
        top = max((height for height, _ in places.values()), default=0)
        for index in range(self._network.nodes):
            wait_for(f"height {top} on node {index}", lambda i=index: self._network.get_height(i) >= top)
            found: dict[str, tuple[int, int]] = {}
            for block in read_blocks(self._network, index, 1, timeout=30.0):
                height = block["header"]["height"]
                assert hashes.get(height, block["hash"]) == block["hash"], f"node {index}: height {height}"
                for place, tx in enumerate(block["transactions"]):
                    assert tx["id"] not in found, f"{tx['id']} is final twice"
                    found[tx["id"]] = (height, place)
            moved = {key: place for key, place in places.items() if found.get(key) != place}
            assert not moved, f"node {index}: {moved}"

    def _run(self) -> None:
        try:
            while not self._stop.wait(PAUSE_S):
                index = self._rng.randrange(self._network.nodes)
                if index in self.skipped:
                    continue
                self._note_claim(index)
                self._note_final(index)
                self._submit(index)
                self.rounds += 1
        except BaseException as error:
            self._error = error

    def _note_claim(self, index: int) -> None:
        status = get_json(self._network.get_api(index) + "/v1/status", timeout=TIMEOUT_S)
        if status is not None:
            self._note_hash(index, status["finalized"]["height"], status["finalized"]["hash"])

    def _note_hash(self, index: int, height: int, block_hash: str) -> None:
        known = self.hashes.setdefault(height, block_hash)
        assert known == block_hash, f"height {height}: node {index} names {block_hash}, another {known}"

    def _note_final(self, index: int) -> None:
        for block in read_blocks(self._network, index, self.seen_height + 1):
            self.seen_height = block["header"]["height"]
            self._note_hash(index, self.seen_height, block["hash"])
            for place, tx in enumerate(block["transactions"]):
                self.places[tx["id"]] = (self.seen_height, place)
                self._waiting.pop(tx["id"], None)

    def _submit(self, index: int) -> None:
        now = time.monotonic()
        batch = [key for key, (_, at) in self._waiting.items() if now - at > AGAIN_S][: 2 * self._batch]
        while not self._draining.is_set() and len(batch) < self._batch and len(self._waiting) < WAITING_MAX:
            batch.append(self._sign())
        if not batch:
            return
        raws = [self._waiting[key][0] for key in batch]
        status, receipts = request_json(
            self._network.get_api(index) + "/v1/transactions",
            msgpack.packb(raws),
            "application/msgpack",
            TIMEOUT_S,
        )
        if status == 0:
            return  # that node is down: these are tried again at once, elsewhere
        assert status == 200, receipts
        for key, raw, receipt in zip(batch, raws, receipts, strict=True):
            # A node that is behind answers what it knows (a gap of nonces); later it knows better.
            is_odd = receipt["outcome"] == "refused" or "signature" in (receipt["reason"] or "")
            assert not is_odd, receipt
            self._waiting[key] = (raw, now)
            if receipt["outcome"] == "accepted":
                self.acknowledged.add(key)

    def _sign(self) -> str:
        number, self._signed = self._signed, self._signed + 1
        now_ms = time.time_ns() // 1_000_000 if self._is_wall else self._clock_ms + number
        tx = sign_transaction(
            self._keys[number % len(self._keys)],
            self._chain_id,
            nonce=number // len(self._keys),
            receiver=self._rng.choice(self._receivers),
            amount=self._rng.randrange(1, 10_000),
            fee=1,
            timestamp_ms=now_ms,
            expires_ms=now_ms + self._lifetime_ms,
        )
        key = "0x" + tx.id.hex()
        self._waiting[key] = (tx.raw, 0.0)
        return key


def read_blocks(network: NetworkProcess, index: int, first: int, timeout: float = TIMEOUT_S) -> list[Any]:
    """Final blocks from `first` on, as far as one page and one node go; all of them when first is 1."""
    blocks: list[Any] = []
    while True:
        url = f"{network.get_api(index)}/v1/blocks?from={first + len(blocks)}&limit=100"
        page = get_json(url, timeout=timeout)
        if page is None:
            return blocks
        final = [block for block in page["blocks"] if block["final"]]
        blocks += final
        if len(final) < len(page["blocks"]) or not final:
            return blocks
