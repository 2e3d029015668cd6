"""The engine's host: performs what the engine asks for, with the node's rooms and its network.

Implements `runtime.Host`; the runtime has made durable what an effect depends on before it comes here. Of an
engine whose epoch is over, only the certificates that it tells others are: its blocks are final or forgotten.
Invariant: no effect blocks, and none is answered here: a room answers later, by an event. Leaves out: the
engine's loop, timers and journal (`runtime.py`); frames of peers (`network/frame_door.py`).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from typing import Protocol

from consensus import vote
from consensus.bft import contract
from consensus.bft.contract import Proposal
from consensus.bft.leader import compute_offset
from consensus.bft.messages import encode_message, make_genesis_ref
from consensus.bft.replica import EngineConfig
from consensus.bft.restore import Record
from consensus.block import decode_header
from consensus.errors import Fault
from consensus.ledger import beacon, epochs
from consensus.ledger.rules import Rules
from consensus.parameters import LEADER_ONION
from consensus.vote import Certificate, ValidatorSet
from node.blocks.chain import Chain
from node.blocks.finality import Finality
from node.blocks.judge import Judge
from node.blocks.proposer import Proposer
from node.config import NodeConfig
from node.herald import Herald
from node.network.frames import CompactProposal, EngineMessage, Frame
from node.network.transport import Peer, Transport
from node.store.store import Store

log = logging.getLogger("assay.node")


class NodeEngine(contract.Engine, Protocol):
    """What a node asks of its engine beside the contract's one door. All of it only reads."""

    @property
    def is_halted(self) -> bool:
        """Whether it stopped signing for good: a quorum certified what was judged invalid here."""
        ...

    def is_needed(self, message: contract.Message) -> bool:
        """Whether `step` would learn from this message; if not, its signatures need no check."""
        ...

    def list_records(self) -> Sequence[Record]:
        """All that lies above the last final view, and its finalization: what a new peer is told."""
        ...


Sign = Callable[[bytes], bytes]  # digest to signature
MakeEngine = Callable[[EngineConfig, Sign | None], NodeEngine]  # no signer: an observer's engine


def plan_engine(
    rules: Rules,
    epoch: int,
    chain: Chain,
    store: Store,
    validators: ValidatorSet,
    settings: NodeConfig,
    own_index: int | None,
    observe_until_view: int | None,
) -> EngineConfig:
    """What the engine of an epoch is made with, once the block below its first one is final and stored.

    validators: the epoch's set. observe_until_view: the journal's word. May take long on a chain that draws its
    leaders, when the epoch has begun: its seed is then in a state of the past.
    """
    epoch_blocks = rules.parameters.epoch_blocks
    start_height = epoch * epoch_blocks
    genesis = store.get_header(start_height)
    if genesis is None:
        raise Fault(f"the block below epoch {epoch} is missing", field=f"block {start_height}")
    seed = b""
    if rules.parameters.leader_election == LEADER_ONION:
        is_here = chain.finalized.height == start_height
        records = chain.final_view.records if is_here else store.rebuild_state(start_height).records
        seed = beacon.compute_seed(records, epoch)
    return EngineConfig(
        chain_id=rules.chain_id,
        epoch=epoch,
        validators=validators,
        own_index=own_index,
        genesis=make_genesis_ref(genesis, epoch),
        height_max=epochs.compute_boundary(epoch, epoch_blocks),
        leader_offset=compute_offset(epoch, epoch_blocks),
        leader_seed=seed,
        delta_ms=settings.delta_ms,
        delta_ms_max=settings.delta_ms_max,
        block_interval_ms=settings.block_interval_ms,
        observe_until_view=observe_until_view,
    )


class EngineHost:
    """`on_finalization` is told of every certificate that makes something final, before it is acted on."""

    def __init__(
        self,
        chain: Chain,
        store: Store,
        network: Transport,
        judge: Judge,
        proposer: Proposer,
        finality: Finality,
        herald: Herald,
        rng: random.Random,
        epoch: int,
        on_finalization: Callable[[Certificate], None],
    ) -> None:
        self._chain = chain
        self._store = store
        self._network = network
        self._judge = judge
        self._proposer = proposer
        self._finality = finality
        self._herald = herald
        self._rng = rng
        self.epoch = epoch
        self._on_finalization = on_finalization
        self.is_over = False  # the epoch: set by whoever has started the next one's engine

    def _is_late(self, message: contract.Message) -> bool:
        """Whether it is a voice of an epoch that ended here, perhaps in this very turn: its certificates say all."""
        return self.is_over and isinstance(message, (vote.Vote, Proposal))

    def broadcast(self, message: contract.Message, peers_max: int | None) -> None:
        if self._is_late(message):
            return
        frame = self._pack(message)
        peers = self._network.peers()
        if peers_max is None or len(peers) <= peers_max:
            self._network.broadcast(frame)
            return
        for peer in self._draw(peers, peers_max):
            self._network.send(peer.node_key, frame)

    def _draw(self, peers: Sequence[Peer], count: int) -> Sequence[Peer]:
        """So many of more, half of them configured ones: strangers cost nothing, and may all be silent."""
        known = [peer for peer in peers if peer.name]
        if len(known) in (0, len(peers)):
            return self._rng.sample(peers, count)
        first = self._rng.sample(known, min(count // 2, len(known)))
        rest = [peer for peer in peers if peer not in first]
        return [*first, *self._rng.sample(rest, count - len(first))]

    def send(self, peer: bytes, message: contract.Message) -> None:
        if self._is_late(message):
            return
        self._network.send(peer, self._pack(message))

    def _pack(self, message: contract.Message) -> Frame:
        raw = encode_message(message)
        if isinstance(message, Proposal):
            block_hash = message.block.hash
            block = self._chain.get_block(block_hash) or self._store.get_block(block_hash)
            if block is not None:
                certificate = block.parent_certificate
                return CompactProposal(
                    raw,
                    tuple(tx.id for tx in block.transactions),
                    block.scores,
                    block.outcomes,
                    b"" if certificate is None else vote.encode_certificate(certificate),
                )
        return EngineMessage(raw)

    def fetch_certificate(self, fetch: contract.FetchCertificate) -> None:
        peers = self._network.peers()
        if fetch.attempt % 2 == 0:  # every other time a configured one, however many strangers came
            peers = tuple(peer for peer in peers if peer.name) or peers
        if peers:
            # Peers prove node keys, not voting keys: a hint by validator index names nobody here.
            peer = self._rng.choice(peers)
            self._network.send(peer.node_key, EngineMessage(encode_message(fetch.request)))

    def fetch_block(self, fetch: contract.FetchBlock) -> None:
        if not self.is_over:
            self._judge.fetch(fetch.block_hash, epoch=self.epoch, view=fetch.view)

    def build(self, build: contract.Build) -> None:
        if not self.is_over:
            self._proposer.build(build)

    def judge(self, judge: contract.Judge) -> None:
        if not self.is_over:
            self._judge.judge(judge.block.hash, decode_header(judge.payload))

    def finalize(self, finalize: contract.Finalize) -> None:
        if self.is_over:
            return
        self._on_finalization(finalize.certificate)
        self._finality.finalize(finalize.certificate)

    def report_evidence(self, report: contract.ReportEvidence) -> None:
        evidence = report.evidence
        self._herald.on_evidence(evidence)
        log.error(
            "a validator contradicted itself",
            extra={"signer": evidence.first.signer, "view": evidence.first.subject.view},
        )

    def halt(self, halt: contract.Halt) -> None:
        refused = self._judge.invalid.get(halt.block_hash)
        log.critical(
            "signing stops: this node and a quorum disagree",
            extra={
                "reason": halt.reason,
                "block": halt.block_hash.hex(),
                "difference": refused.reason if refused else "",
            },
        )
