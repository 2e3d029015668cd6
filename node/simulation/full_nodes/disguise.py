"""Villains of engines among whole nodes: what a villain needs, made of the node that it lives in.

Its host runs a FullNode with the villain in its engine's place. Blocks that it forges are served at the
node's network door, for the node itself would not keep them.

Invariant: a villain signs with its own key and sends through its own node; nothing else is a lie here.
Leaves out: lies in frames (`liars/`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from consensus import block as blocks
from consensus.bft.contract import BlockRef, Effect, Event, Message
from consensus.bft.restore import Record
from consensus.bft.simplex import EngineConfig, SimplexEngine
from consensus.crypto import hash_bytes
from consensus.vote import Certificate
from node.engine.host import NodeEngine
from node.full_node import FullNode
from node.network.frames import BlockBody, Frame, GetBlock, GetBodyTransactions
from node.simulation.villains import Means, Villain, make_villain

if TYPE_CHECKING:
    from node.simulation.full_nodes.process import NodeProcess

SALT_MS: Final = 4_000  # a block's salt is its time: below the drift that honest clocks allow


class DisguisedEngine:
    """A villain as a node's engine (`engine_host.NodeEngine`)."""

    is_halted = False  # or so it says

    def __init__(self, villain: Villain) -> None:
        self.villain = villain

    @property
    def view(self) -> int:
        return self.villain.view

    @property
    def finalized_view(self) -> int:
        return self.villain.finalized_view

    def start(self, records: Iterable[Record]) -> tuple[Effect, ...]:
        return self.villain.start(records)

    def step(self, event: Event) -> tuple[Effect, ...]:
        return self.villain.step(event)

    def is_needed(self, message: Message) -> bool:
        return self.villain.engine.is_needed(message)

    def list_records(self) -> Sequence[Record]:
        return self.villain.engine.list_records()


class Disguise:
    """One life of a villain's node: makes the engine, forges blocks, and answers for them."""

    def __init__(self, process: NodeProcess, name: str) -> None:
        self._process = process
        self._name = name
        self._forged: dict[bytes, bytes] = {}  # encoded blocks that its node does not have
        self._engine: DisguisedEngine | None = None

    def make_engine(self, config: EngineConfig, sign: Callable[[bytes], bytes] | None) -> NodeEngine:
        self._engine = None
        if config.own_index is None:
            return SimplexEngine(config, sign)  # slashed, and out: nobody hears it any more
        world = self._process.world
        key = world.chain.validator_keys[self._process.index]
        members = world.epochs.get_members(config.epoch)
        means = Means(
            index=config.own_index,
            validators=config.validators,
            chain_id=config.chain_id,
            genesis=config.genesis,
            make_engine=lambda: world.make_disguised(config, sign),
            sign=key.sign,
            make_block=self.forge_block,
            read_block=world.epochs.read_block,
            get_payload=self._get_payload,
            name_peer=lambda validator: world.cables.keys[members[validator]],
            rng=world.rng,
        )
        self._engine = DisguisedEngine(make_villain(self._name, means))
        return self._engine

    # --- what it makes --------------------------------------------------------------------------------

    def forge_block(
        self, parent: BlockRef, view: int, salt: int, *, epoch: int | None = None, is_valid: bool = True
    ) -> tuple[BlockRef, bytes] | None:
        """See `villains.villain.MakeBlock`."""
        node, world = self._process.node, self._process.world
        if node is None:
            return None
        # On a parent that its node does not know: a block of the final one, with other fields.
        base = node.chain.get_view(parent.hash) or node.chain.final_view
        if (base.header.epoch, base.header.view) >= (parent.epoch, view):
            return None  # the chain has passed this view
        is_first = base.header.height == 0 or base.header.epoch != parent.epoch
        certificate = None if is_first else self._find_certificate(base.header.hash)
        if certificate is None and not is_first:
            return None
        built = world.chain.rules.build_block(
            base,
            (),
            epoch=parent.epoch,
            view_number=view,
            proposer_key=world.chain.validator_keys[self._process.index].public_key,
            now_ms=world.get_wall_ms() + salt % SALT_MS,
            certificate=certificate,
        )
        honest = built.block.header
        header = replace(
            honest,
            epoch=honest.epoch if epoch is None else epoch,
            height=honest.height if base.header.hash == parent.hash else parent.height + 1,
            parent_view=parent.view,
            parent_hash=parent.hash,
            state_root=honest.state_root if is_valid else hash_bytes(honest.state_root),
        )
        block = replace(built.block, header=header)
        if header == honest:
            node.store.put_block(block)
            node.store.sync()
            node.chain.add(block, built.delta)
        else:
            self._forged[block.hash] = blocks.encode_block(block)
        return world.epochs.read_block(header.raw), header.raw

    def _find_certificate(self, block_hash: bytes) -> Certificate | None:
        assert self._engine is not None
        for record in self._engine.list_records():
            if isinstance(record, Certificate) and record.subject.block_hash == block_hash:
                return record
        return None

    def _get_payload(self, block_hash: bytes) -> bytes | None:
        raw = self._forged.get(block_hash)
        if raw is not None:
            return blocks.decode_block(raw).header.raw
        node = self._process.node
        header = None if node is None else _find_header(node, block_hash)
        return None if header is None else header.raw

    # --- at its door ----------------------------------------------------------------------------------

    def rewrite(self, frame: Frame, receiver: int) -> tuple[Frame | bytes, ...]:  # noqa: ARG002 - to all alike
        return (frame,)

    def answer(self, frame: Frame, sender: int) -> tuple[Frame | bytes, ...] | None:  # noqa: ARG002
        """As the villain would: silence, another block, or what was asked for."""
        if not isinstance(frame, GetBlock | GetBodyTransactions) or self._engine is None:
            return None
        block_hash = frame.block_hash
        payload = self._engine.villain.answer_body(block_hash)
        if payload is None:
            return ()
        if payload != self._get_payload(block_hash):
            return (BlockBody(block_hash, payload),)
        raw = self._forged.get(block_hash)
        return None if raw is None else (BlockBody(block_hash, raw),)


def _find_header(node: FullNode, block_hash: bytes) -> blocks.Header | None:
    header = node.chain.get_header(block_hash)
    if header is None:
        block = node.store.get_block(block_hash)
        header = None if block is None else block.header
    return header
