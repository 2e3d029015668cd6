"""The toy ledger of a simulated node: bodies that must be fetched and made durable, judged and committed.

A block is judged valid when its body and all its ancestors are durable, as in a real node; a body comes
from a peer, or the node built it. What is durable is what a restarted node still has.

Invariant: blocks are committed in order, each once; a judgement that is not yet possible is made as soon
as what it waited for arrives.
Leaves out: what a block means (`toys.py` says which are valid).
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from consensus.bft import contract
from consensus.bft.contract import (
    BlockBuilt,
    BlockFetched,
    BlockJudged,
    BlockRef,
    Event,
    Judgement,
    WorkWaiting,
)
from consensus.ledger.epochs import compute_boundary, compute_epoch, is_boundary
from consensus.vote import Certificate
from node.simulation import toys
from node.simulation.toy_epochs import ToySet, make_genesis_ref

if TYPE_CHECKING:
    from node.simulation.engine_world import EngineWorld

BODY_SYNC_MS: Final = 8  # at most; how long a body takes to become durable
JUDGE_MS: Final = 12
BUILD_MS: Final = 10
WORK_MS: Final = 30  # until transactions come, when none were waiting
FETCH_RETRY_MS: Final = 60  # above a round trip at the default latency
FETCH_RETRIES_GROWING: Final = 8  # then the delay stays


class ToyLedger(ABC):
    """Of node `index`. What it has to tell its engine goes through `handle`."""

    def __init__(self, index: int, world: EngineWorld, rng: random.Random) -> None:
        self.index = index
        self.bodies: dict[bytes, bytes] = {}  # durable: hash -> payload
        self.committed: list[BlockRef] = [toys.GENESIS]  # durable
        self.finalization: Certificate | None = None  # durable: of the last committed block
        self.epoch = toys.EPOCH  # whose engine runs
        self.sets: list[ToySet] = list(world.first_sets)  # durable: by epoch, one epoch ahead
        self.ended: dict[int, Certificate] = {}  # durable: what ended each epoch, for those who lag
        self._committed_hashes = {toys.GENESIS.hash}
        self._world = world
        self._random = rng.random
        self._reset()

    # --- epochs -----------------------------------------------------------------------------------------

    @property
    def epoch_set(self) -> ToySet:
        """Of the running epoch."""
        return self.sets[self.epoch]

    @property
    def genesis(self) -> BlockRef:
        """Below the running epoch's first block."""
        blocks = self._world.config.epoch_blocks
        return make_genesis_ref(self.committed[self.epoch * blocks], self.epoch) if blocks else toys.GENESIS

    @property
    def height_max(self) -> int | None:
        """The running epoch's boundary; None when it has none."""
        return compute_boundary(self.epoch, self._world.config.epoch_blocks)

    @property
    def own_index(self) -> int:
        """Of this node among the running epoch's validators; -1: it has no seat."""
        found = self.epoch_set.get_index(self.index)
        return -1 if found is None else found

    def _reset(self) -> None:
        """Forget all that is not durable."""
        self.epoch = compute_epoch(self.committed[-1].height + 1, self._world.config.epoch_blocks)
        self._valid = set(self._committed_hashes)
        self._judging: dict[bytes, BlockRef] = {}  # asked for, without an answer for good
        self._wanted: set[bytes] = set()  # bodies being fetched
        self._engine_wants: set[bytes] = set()  # FetchBlock without an answer
        self._finals: list[Certificate] = []  # finalizations of blocks not yet committed

    def _forget_epoch(self) -> None:
        """What the engine of the epoch before wanted."""
        self._judging.clear()
        self._engine_wants.clear()
        self._finals.clear()

    @abstractmethod
    def handle(self, event: Event) -> None:
        """Step the engine and perform what it says."""

    def _handle_in(self, epoch: int, event: Event) -> None:
        """As `handle`, unless its epoch is over here."""
        if epoch == self.epoch:
            self.handle(event)

    def _tell(self, delay_ms: int, event: Event) -> None:
        self._later(delay_ms, self._handle_in, self.epoch, event)

    @abstractmethod
    def _open_epoch(self) -> None:
        """The boundary is committed: go on with the next epoch's engine."""

    @abstractmethod
    def _later(self, delay_ms: int, act: Callable[..., None], *arguments: Any) -> None:
        """`act(*arguments)` after delay_ms, if the node still lives this life."""

    def _draw_ms(self, ms_max: int) -> int:
        return 1 + int(self._random() * ms_max)

    def has_branch(self, block_hash: bytes) -> bool:
        """Whether this block and all its ancestors down to the committed chain are durable."""
        while block_hash not in self._committed_hashes:
            payload = self.bodies.get(block_hash)
            if payload is None:
                return False
            block_hash = toys.read_block(payload).parent_hash
        return True

    # --- building, judging, committing ----------------------------------------------------------------

    def _build(self, build: contract.Build) -> None:
        if not build.is_empty_allowed and self._random() < 0.5:
            self._tell(self._draw_ms(WORK_MS), WorkWaiting())
            return
        if self._random() < self._world.build_failures:
            self._tell(self._draw_ms(BUILD_MS), BlockBuilt(build.view, None, b""))
            return
        salt = int(self._random() * toys.VALID_SALTS)
        payload = toys.make_payload(
            build.parent, build.view, self.own_index, salt, self.epoch, self.height_max
        )
        self._later(
            self._draw_ms(BUILD_MS), self._finish_build, build.view, toys.read_block(payload), payload
        )

    def _finish_build(self, view: int, block: BlockRef, payload: bytes) -> None:
        self.bodies[block.hash] = payload  # durable before it is answered
        self._valid.add(block.hash)
        self._handle_in(block.epoch, BlockBuilt(view, block, payload))

    def forge_block(
        self, parent: BlockRef, view: int, salt: int, *, epoch: int | None = None, is_valid: bool = True
    ) -> tuple[BlockRef, bytes]:
        """A villain's (villains.villain.MakeBlock): whatever it likes, and it can serve the body."""
        salt += 0 if is_valid else toys.VALID_SALTS
        epoch = self.epoch if epoch is None else epoch
        payload = toys.make_payload(parent, view, self.own_index, salt, epoch, self.height_max)
        block = toys.read_block(payload)
        self.bodies[block.hash] = payload
        return block, payload

    def _judge(self, block_hash: bytes) -> None:
        """Answer if body and ancestors are there; else fetch, and come back when something arrives."""
        block = self._judging.get(block_hash)
        if block is None:
            return
        payload = self.bodies.get(block_hash)
        if payload is None:
            self._fetch(block_hash, self._find_node(block.proposer), 0)
        elif block.parent_hash in self._valid or self._is_committed(block):
            self._later(self._world.draw_judge_ms(self.index), self._answer_judge, block, payload)
            return
        self._tell(0, BlockJudged(block_hash, Judgement.NOT_YET))

    def _is_committed(self, block: BlockRef) -> bool:
        """Whether its view is not above the last committed block's."""
        tip = self.committed[-1]
        return (block.epoch, block.view) <= (tip.epoch, tip.view)

    def _answer_judge(self, block: BlockRef, payload: bytes) -> None:
        if self._judging.pop(block.hash, None) is None:
            return
        parent = self.bodies.get(block.parent_hash)
        is_valid = toys.is_valid_payload(payload) and toys.is_height_right(block, parent, self.height_max)
        if is_valid:
            self._valid.add(block.hash)
        self.handle(BlockJudged(block.hash, Judgement.VALID if is_valid else Judgement.INVALID))
        for child in [ref.hash for ref in self._judging.values() if ref.parent_hash == block.hash]:
            self._judge(child)

    def _commit(self) -> None:
        """Commit final blocks in order, as far as their bodies are there; fetch the rest."""
        for final in list(self._finals):
            branch: list[BlockRef] = []
            block_hash, tip = final.subject.block_hash, self.committed[-1]
            while block_hash != tip.hash:
                payload = self.bodies.get(block_hash)
                if payload is None:
                    self._fetch(block_hash, None, 0)
                    return
                block = toys.read_block(payload)
                if block.height <= tip.height:
                    break  # an earlier one than the tip: committed already
                branch.append(block)
                block_hash = block.parent_hash
            self._finals.remove(final)
            for block in reversed(branch):
                if block.height == self.committed[-1].height:
                    self._world.tails_final += 1  # a tail, and all above it are, too: never committed
                    break
                self._commit_block(block)
            if branch:
                self.finalization = final
                self._world.record("commit", self.index, f"height {self.committed[-1].height}")
                for waiting in list(self._judging):
                    self._judge(waiting)
                if self.committed[-1].height == self.height_max:
                    self.ended[self.epoch] = final
                    self._later(0, self._open_epoch)
                    return

    def _commit_block(self, block: BlockRef) -> None:
        self._world.safety.commit(self.index, block)
        self.committed.append(block)
        self._committed_hashes.add(block.hash)
        self._valid.add(block.hash)
        if is_boundary(block.height, self._world.config.epoch_blocks):
            # Its execution fixes the set of the epoch after the next.
            self.sets.append(self._world.draw_set(self.sets[-1], block))

    # --- bodies over the network --------------------------------------------------------------------

    def _find_node(self, validator: int | None) -> int | None:
        """The node of a validator of the running epoch."""
        return None if validator is None else self.epoch_set.members[validator]

    def _choose_peer(self, hint: int | None, attempt: int) -> int:
        if hint is not None and attempt == 0 and hint != self.index:
            return hint
        nodes = len(self._world.hosts)
        if nodes == 1:
            return self.index
        chosen = int(self._random() * (nodes - 1))
        return chosen + (chosen >= self.index)

    def _fetch(self, block_hash: bytes, hint: int | None, attempt: int) -> None:
        if block_hash in self.bodies or (attempt == 0 and block_hash in self._wanted):
            return
        self._wanted.add(block_hash)
        self._world.request_body(self.index, self._choose_peer(hint, attempt), block_hash)
        if attempt == 0:
            self._later(FETCH_RETRY_MS, self._retry_fetch, block_hash, 1)

    def _retry_fetch(self, block_hash: bytes, attempt: int) -> None:
        is_needed = block_hash in self._judging or block_hash in self._engine_wants or self._finals
        if block_hash in self.bodies or not is_needed:
            self._wanted.discard(block_hash)
            return
        self._fetch(block_hash, None, attempt)
        delay_ms = FETCH_RETRY_MS * min(attempt + 1, FETCH_RETRIES_GROWING)
        self._later(delay_ms, self._retry_fetch, block_hash, attempt + 1)

    def take_body(self, payload: bytes) -> None:
        """A body arrived: make it durable, then go on with whatever waited for it."""
        self._later(self._draw_ms(BODY_SYNC_MS), self._keep_body, toys.read_block(payload), payload)

    def _keep_body(self, block: BlockRef, payload: bytes) -> None:
        if block.hash in self.bodies:
            return
        self.bodies[block.hash] = payload
        self._wanted.discard(block.hash)
        self._answer_wants(block.hash)
        self._judge(block.hash)
        self._commit()

    def _answer_wants(self, block_hash: bytes) -> None:
        if block_hash in self._engine_wants:
            self._engine_wants.discard(block_hash)
            payload = self.bodies[block_hash]
            self._tell(0, BlockFetched(toys.read_block(payload), payload))
