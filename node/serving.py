"""Answers what peers ask for: bodies, transactions, certificates, final blocks.

Invariant: an answer is bounded in bytes whatever is asked, and nothing is computed for it beyond
reading; "I do not have it" is an empty answer, never an error. Leaves out: who may ask how often;
the transport's queues bound that.
"""

from __future__ import annotations

from typing import Final

from consensus import block as blocks
from consensus import vote
from consensus.block import Block
from node.chain import Chain
from node.frames import (
    FINAL_BLOCKS_MAX,
    LINKS_MAX,
    BlockBody,
    BodyTransactions,
    FinalBlocks,
    GetBlock,
    GetBodyTransactions,
    GetFinalBlocks,
)
from node.store.store import Store
from node.transport import Peer, Transport

BATCH_BYTES_MAX: Final = 1_000_000  # a batch is checked in half a second; a larger one would time out


class Serving:
    def __init__(self, chain: Chain, store: Store, transport: Transport) -> None:
        self._chain = chain
        self._store = store
        self._transport = transport

    def on_get_block(self, peer: Peer, frame: GetBlock) -> None:
        block = self._find_block(frame.block_hash)
        raw = b"" if block is None else blocks.encode_block(block)
        self._transport.send(peer.node_key, BlockBody(frame.block_hash, raw))

    def on_get_body_transactions(self, peer: Peer, frame: GetBodyTransactions) -> None:
        block = self._find_block(frame.block_hash)
        if block is None:
            return  # the asker falls back to asking for the whole block
        places = [index for index in frame.indices if index < len(block.transactions)]
        raws = tuple(block.transactions[index].raw for index in places)
        self._transport.send(peer.node_key, BodyTransactions(frame.block_hash, tuple(places), raws))

    def on_get_final_blocks(self, peer: Peer, frame: GetFinalBlocks) -> None:
        top = self._chain.finalized.height
        raws: list[bytes] = []
        size = 0
        height = frame.from_height
        while height <= top and len(raws) < min(frame.count, FINAL_BLOCKS_MAX) and height > 0:
            raw = self._store.get_raw_block(height)
            if raw is None or (raws and size + len(raw) > BATCH_BYTES_MAX):
                break
            raws.append(raw)
            size += len(raw)
            height += 1
        last = height - 1
        found = self._store.get_certificate(last) if raws else None
        if found is None:
            self._transport.send(peer.node_key, FinalBlocks(frame.from_height, (), b"", ()))
            return
        certificate, certified = found
        links = []
        for above in range(last + 1, certified + 1)[:LINKS_MAX]:
            header = self._store.get_header(above)
            if header is not None:
                links.append(header.raw)
        answer = FinalBlocks(
            frame.from_height, tuple(raws), vote.encode_certificate(certificate), tuple(links)
        )
        self._transport.send(peer.node_key, answer)

    def _find_block(self, block_hash: bytes) -> Block | None:
        return self._chain.get_block(block_hash) or self._store.get_block(block_hash)
