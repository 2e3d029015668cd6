"""Answers what peers ask for: bodies, transactions, certificates, final blocks.

Invariant: an answer is bounded in bytes whatever is asked, nothing is computed for it beyond reading,
final blocks end with their epoch (who asks knows its set, and the next only from its boundary on), and a peer gets so many bytes a second: a request of 40 bytes must not buy 4 MB of work without end.
"I do not have it" is an empty answer, never an error; a request above the budget gets none, and its
sender asks somebody else. Leaves out: votes, and finding certificates; the engine answers with those.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from consensus import vote
from consensus.ledger import epochs
from consensus.vote import Certificate
from node.blocks.chain import Chain
from node.network.frames import (
    FINAL_BLOCKS_MAX,
    LINKS_MAX,
    BlockBody,
    BodyTransactions,
    FinalBlocks,
    GetBlock,
    GetBodyTransactions,
    GetFinalBlocks,
)
from node.network.transport import Peer, Transport
from node.store.store import Store

BATCH_BYTES_MAX: Final = 1_000_000  # a batch is checked in half a second; a larger one would time out
BUDGET_BYTES: Final = 16_000_000  # at once: four full blocks, more than a judge ever lacks
BUDGET_BYTES_PER_MS: Final = 8_000  # catching up takes a quarter of it
SIGNER_BYTES: Final = 70  # of a certificate, for each of its signers
REQUEST_BYTES: Final = 4_000  # what any request costs: looking up what we do not have takes time too


class Serving:
    """monotonic_ms: a clock for durations."""

    def __init__(
        self, chain: Chain, store: Store, transport: Transport, monotonic_ms: Callable[[], int]
    ) -> None:
        self._chain = chain
        self._store = store
        self._transport = transport
        self._monotonic_ms = monotonic_ms
        self._budgets: dict[bytes, tuple[int, int]] = {}  # of connected peers: bytes left, and when

    def on_disconnected(self, peer: Peer) -> None:
        self._budgets.pop(peer.node_key, None)

    def on_get_block(self, peer: Peer, frame: GetBlock) -> None:
        if not self._has_budget(peer):
            return
        raw = self._store.get_raw_block(frame.block_hash) or b""
        self._spend(peer, len(raw))
        self._transport.send(peer.node_key, BlockBody(frame.block_hash, raw))

    def on_get_body_transactions(self, peer: Peer, frame: GetBodyTransactions) -> None:
        if not self._has_budget(peer):
            return
        block = self._chain.get_block(frame.block_hash)
        if block is None:
            # Final meanwhile, or none of ours. Decoding it costs as much as sending a batch.
            self._spend(peer, BATCH_BYTES_MAX)
            block = self._store.get_block(frame.block_hash)
        if block is None:
            return  # the asker falls back to asking for the whole block
        places = [index for index in frame.indices if index < len(block.transactions)]
        raws = tuple(block.transactions[index].raw for index in places)
        self._spend(peer, sum(map(len, raws)))
        self._transport.send(peer.node_key, BodyTransactions(frame.block_hash, tuple(places), raws))

    def on_get_final_blocks(self, peer: Peer, frame: GetFinalBlocks) -> None:
        if not self._has_budget(peer):
            return
        raws = self._read_final(frame.from_height, min(frame.count, FINAL_BLOCKS_MAX))
        self._spend(peer, sum(map(len, raws)))
        proof = self._find_proof(frame.from_height, frame.from_height + len(raws) - 1) if raws else None
        if proof is None:
            self._transport.send(peer.node_key, FinalBlocks(frame.from_height, (), b"", ()))
            return
        last, certificate, links = proof
        answer = FinalBlocks(
            frame.from_height,
            tuple(raws[: last - frame.from_height + 1]),
            vote.encode_certificate(certificate),
            links,
        )
        self._transport.send(peer.node_key, answer)

    def _read_final(self, first: int, count: int) -> list[bytes]:
        """Raw final blocks of one epoch from `first` up, at most BATCH_BYTES_MAX unless the first is larger."""
        raws: list[bytes] = []
        size = 0
        blocks = self._chain.epoch_blocks
        boundary = epochs.compute_boundary(epochs.compute_epoch(first, blocks), blocks)
        last = min(first + count - 1, self._chain.finalized.height)
        for height in range(first, (last if boundary is None else min(last, boundary)) + 1):
            raw = self._store.get_raw_block(height) if height > 0 else None
            if raw is None or (raws and size + len(raw) > BATCH_BYTES_MAX):
                break
            raws.append(raw)
            size += len(raw)
        return raws

    def _find_proof(self, first: int, last: int) -> tuple[int, Certificate, tuple[bytes, ...]] | None:
        """(height, certificate, links): the highest block up to `last` that few enough links prove final."""
        found = self._store.get_certificate(last)
        if found is not None and found[1] - last > LINKS_MAX:
            # Who caught up holds one certificate for hundreds of blocks. The highest block up to `last` that
            # is certified itself: for a higher block, the nearest certificate is never a lower one.
            low, high = first - 1, last  # certified: low or none above it; not certified up to last: high
            while high - low > 1:
                middle = (low + high) // 2
                nearest = self._store.get_certificate(middle)
                low, high = (middle, high) if nearest is not None and nearest[1] <= last else (low, middle)
            found = self._store.get_certificate(low) if low >= first else None
            last = last if found is None else found[1]
        if found is None:
            return None
        return last, found[0], tuple(header.raw for header in self._store.get_links(last))

    def spend_certificate(self, peer: Peer, signers: int) -> bool:
        """Whether a peer that asks for a certificate may have it; then it is on its budget."""
        if not self._has_budget(peer):
            return False
        self._spend(peer, signers * SIGNER_BYTES)
        return True

    # --- so many bytes a second -----------------------------------------------------------------------

    def _has_budget(self, peer: Peer) -> bool:
        """Whether the peer may ask for more now. Its debt of one answer is paid off with time."""
        now_ms = self._monotonic_ms()
        left, since_ms = self._budgets.get(peer.node_key, (BUDGET_BYTES, now_ms))
        left = min(BUDGET_BYTES, left + (now_ms - since_ms) * BUDGET_BYTES_PER_MS)
        is_allowed = left > 0
        self._budgets[peer.node_key] = (left - REQUEST_BYTES if is_allowed else left, now_ms)
        return is_allowed

    def _spend(self, peer: Peer, count: int) -> None:
        left, since_ms = self._budgets[peer.node_key]
        self._budgets[peer.node_key] = (left - count, since_ms)
