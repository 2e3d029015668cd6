"""One node: its rooms, and what passes between them.

    HTTP, gossip -> mempool -> proposer -> engine (runtime) -> judge -> finality -> store, mempool, events

This file only connects: each room has one door, and the node is the engine's host (performs its effects)
and the transport's handler (takes its frames). Clock, randomness, disk and network are given from outside, for
a deterministic world brings its own. Invariant: everything from outside is decoded and checked
before a room sees it; a Fault anywhere sets `failed`, and the process ends without another word.
Leaves out: what the API answers (`desk.py`), signals and logs (`process.py`).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any, Final, assert_never

from consensus import crypto, vote
from consensus.bft import contract
from consensus.bft.contract import BlockRef, Proposal, Received, SigningAllowed, WorkWaiting
from consensus.bft.messages import check_message, decode_message, encode_message, make_block_reader
from consensus.bft.restore import Record
from consensus.bft.simplex import EngineConfig, SimplexEngine
from consensus.block import Block, Header, decode_header
from consensus.errors import Rejected
from consensus.ledger.execution import Built
from consensus.ledger.rules import Rules
from consensus.vote import Certificate
from node import config, modules
from node.api.event_ring import EventRing
from node.api.server import ApiServer, ApiSettings
from node.catch_up import CatchUp
from node.chain import Chain
from node.clock import Clock, SystemClock
from node.desk import Desk
from node.entrance import Entrance
from node.finality import Finality
from node.herald import Herald
from node.journal import Journal
from node.judge import Judge
from node.mempool.mempool import Mempool
from node.mempool.refusals import Judged, Refusals
from node.metrics import NodeMetrics
from node.network.dialer import KnownPeer
from node.network.frames import (
    Announce,
    BlockBody,
    BodyTransactions,
    CompactProposal,
    EngineMessage,
    FinalBlocks,
    Frame,
    GetBlock,
    GetBodyTransactions,
    GetFinalBlocks,
    GetTransactions,
    Goodbye,
    Hello,
    Proof,
    Status,
    Transactions,
    Welcome,
)
from node.network.handshake import Identity
from node.network.peers import PeerNetwork
from node.network.transport import Handler, Network, Peer
from node.observation import Observation
from node.proposer import Proposer
from node.runtime import Runtime
from node.serving import Serving
from node.signature_worker import SignatureWorker
from node.store.disk import Disk
from node.store.store import Store
from node.verification import Verifier

log = logging.getLogger("assay.node")

EPOCH: Final = 0  # one for now: the validator set changes with a later protocol version
TICK_SECONDS: Final = 0.5  # statuses, expiry and catching up are looked at this often
RECORDS_TOLD_MAX: Final = 64  # of the newest views, to a peer that has just connected
HISTORY_READ_MAX: Final = 100  # past blocks read in a tick, for proofs: 20 ms when they are full


class FullNode:
    """Construct, `start`, wait for `failed` or for your own reasons, `close`."""

    def __init__(
        self,
        home: Path,
        settings: config.NodeConfig,
        *,
        random_bytes: Callable[[int], bytes],
        rng: random.Random,
        worker: SignatureWorker | None = None,
        clock: Clock | None = None,
        disk: Disk | None = None,
        executor: Executor | None = None,
        make_network: Callable[[Identity, Handler], Network] | None = None,
        serves_api: bool = True,
    ) -> None:
        self.failed = asyncio.Event()
        self.fault: BaseException | None = None
        self.settings = settings
        self.clock = clock or SystemClock()
        self._rng = rng
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_open = False
        genesis = config.read_genesis(home)
        self.rules = Rules(genesis, modules.load_modules(genesis, home))
        self.node_key = config.read_key(home / "node.key")
        validator_path = home / "validator.key"
        validator_key = config.read_key(validator_path) if validator_path.exists() else None
        validators = self.rules.validators
        self.own_index = None if validator_key is None else validators.get_index(validator_key.public_key)
        self.address = (validator_key or self.node_key).address
        self.genesis_header = self.rules.create_genesis_state().header
        self.read_block = make_block_reader(validators)
        self.metrics = NodeMetrics()
        self.metrics.node.info({"name": settings.name, "chain": genesis.chain_id})
        self.store = Store.open(home, self.rules, disk=disk, executor=executor)
        with ExitStack() as undo:
            undo.callback(self.store.close)
            recovered = self.store.recover()
            self._state = recovered.state
            self._unfinal = recovered.unfinal
            self.chain = Chain(recovered.state)
            self.journal, self._records, self.journal_status = Journal.open(
                home / "journal", mark_path=home / "validator.voted", epoch=EPOCH, disk=disk
            )
            undo.callback(self.journal.close)
            self.verifier = Verifier(self.rules.chain_id, worker)
            self.mempool = Mempool(self.rules, self.clock)
            self.refusals = Refusals()
            self.events = EventRing(self.clock.now_ms() * 1_000)
            identity = Identity(self.node_key, self.rules.chain_id, self.genesis_header.hash)
            self.network = (
                make_network(identity, self)
                if make_network is not None
                else _make_peer_network(identity, self, settings, random_bytes, rng)
            )
            self._build_rooms(validator_key, serves_api=serves_api)
            undo.pop_all()  # all is built: from here on `close` ends it

    def _build_rooms(self, validator_key: crypto.PrivateKey | None, *, serves_api: bool) -> None:
        rules, chain, store, network = self.rules, self.chain, self.store, self.network
        self.herald = Herald(self.events, self.metrics, self.clock)
        self.entrance = Entrance(
            rules,
            chain,
            self.mempool,
            self.verifier,
            self.refusals,
            self.herald,
            self.clock,
            network,
            asyncio.get_running_loop(),
            self._on_work,
        )
        self.gossip = self.entrance.gossip
        self.judge_room = Judge(
            rules,
            chain,
            store,
            self.verifier,
            self.mempool.get,
            network,
            self.clock,
            self.read_block,
            self._post,
            self._on_valid,
            self.on_fault,
        )
        self.finality = Finality(chain, store, self.judge_room, self._on_final)
        self.catching_up = CatchUp(
            rules,
            chain,
            store,
            self.finality,
            self.verifier,
            network,
            self._post,
            self.judge_room.refuse,
            self.on_fault,
        )
        self.serving = Serving(chain, store, network, self.clock.monotonic_ms)
        sign = None if validator_key is None or self.own_index is None else validator_key.sign
        self.proposer = Proposer(
            rules,
            chain,
            store,
            self.mempool,
            self.clock,
            b"" if validator_key is None else validator_key.public_key,
            EPOCH,
            self.read_block,
            self._post,
            self._on_built,
        )
        header = self.genesis_header
        engine_config = EngineConfig(
            chain_id=rules.chain_id,
            epoch=EPOCH,
            validators=rules.validators,
            own_index=self.own_index,
            genesis=BlockRef(
                header.hash, EPOCH, header.view, header.height, header.view, header.parent_hash, 0
            ),
            delta_ms=self.settings.delta_ms,
            delta_ms_max=self.settings.delta_ms_max,
            block_interval_ms=self.settings.block_interval_ms,
            observe_until_view=self.journal_status.observe_until_view,
        )
        self.engine = SimplexEngine(engine_config, sign)
        is_observing = self.own_index is not None and self.journal_status.observe_until_view is None
        self._observation = (
            Observation(rules.validators, self.own_index)
            if is_observing and self.own_index is not None
            else None
        )
        self.runtime = Runtime(self.engine, self.journal, self, self.on_fault)
        self.desk = Desk(self)
        settings = ApiSettings(host=self.settings.api_host, port=self.settings.api_port)
        self.api = (
            ApiServer(self.desk, settings, self.metrics, self.clock.monotonic_ms) if serves_api else None
        )

    # --- life -----------------------------------------------------------------------------------------

    async def start(self) -> str:
        """Open ports and begin; the API's base URL, or "". Raises Rejected when a port is taken."""
        if self.api is not None:
            await self.api.start()
        # Last, and nothing is awaited after it: what peers say first (their votes and certificates) is heard.
        await self.network.start()
        self._is_open = True
        for block in self._unfinal:
            # Durable and once judged valid by us: judged again, so that the engine may build on them.
            self.judge_room.fetch(block.hash, height=block.header.height)
        self._unfinal = ()
        self.runtime.start(self._list_records())
        self._spawn(self._tick())
        self._spawn(self.entrance.intake.run())
        log.info(
            "started",
            extra={
                "chain": self.rules.chain_id,
                "height": self.chain.finalized.height,
                "validator": self.own_index,
                "signatures": crypto.BACKEND_NAME,
            },
        )
        if self.journal_status.problem:
            log.critical("only observing: not signing", extra={"reason": self.journal_status.problem})
        return "" if self.api is None else self.api.url

    async def close(self) -> None:
        """Stop in order; leaves a checkpoint, so that the next start re-executes little."""
        self._is_open = False
        self.runtime.stop()
        async with AsyncExitStack() as stack:  # in reverse; what fails does not keep the rest from closing
            stack.callback(self.store.close)
            stack.callback(self._write_checkpoint)
            stack.callback(self.journal.close)
            stack.push_async_callback(self.verifier.close)
            stack.push_async_callback(self.judge_room.close)
            stack.push_async_callback(self.catching_up.close)
            stack.callback(self.gossip.close)
            stack.push_async_callback(self._cancel_tasks)
            stack.push_async_callback(self.network.close)
            if self.api is not None:
                stack.push_async_callback(self.api.stop)  # first: it reads what the others close

    async def _cancel_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _write_checkpoint(self) -> None:
        if not self.failed.is_set():
            self.store.write_checkpoint(self._state)

    def _list_records(self) -> list[Record]:
        final = self.store.get_certificate(self.store.finalized_height)
        records, self._records = self._records, ()
        return [*records] if final is None else [*records, final[0]]

    def _observe(self, certificate: Certificate) -> None:
        """While observing only: learn from a finalization when signing is safe again."""
        if self._observation is None or self.catching_up.is_syncing or not self.network.peers():
            return
        self._observation.note(certificate, self.engine.view)
        above_view = self._observation.above_view
        if above_view is not None:
            self._observation = None
            self.journal.allow_signing(above_view)
            log.warning("signing again", extra={"above_view": above_view})
            self._post(SigningAllowed(above_view))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.mempool.on_clock(self.clock.now_ms())
            self._send_status()
            self.catching_up.check()
            self.desk.grow_history(HISTORY_READ_MAX)
            self._update_metrics()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)

        def end(done: asyncio.Task[None]) -> None:
            self._tasks.discard(done)
            if not done.cancelled() and (error := done.exception()) is not None:
                self.on_fault(error)

        task.add_done_callback(end)

    def on_fault(self, error: BaseException) -> None:
        """Ours, and grave: stop before anything more is signed or served."""
        if not self.failed.is_set():
            self.fault = error
            self.runtime.stop()
            self.failed.set()

    def _post(self, event: contract.Event) -> None:
        self.runtime.post(event)

    # --- what the rooms tell ---------------------------------------------------------------------------------------

    def _on_work(self) -> None:
        if self.proposer.is_waiting:
            self._post(WorkWaiting())

    def _on_built(self, built: Built, refused: list[Judged]) -> None:
        for judged in refused:
            self.entrance.note_refusal(judged)
        self.mempool.on_built(built)

    def _on_valid(self, block: Block) -> None:
        self.herald.on_valid(block)
        self.finality.retry()

    def _on_final(self, blocks: tuple[Block, ...]) -> None:
        for block in blocks:
            self.mempool.on_final(block, self.chain.final_view)
            self.desk.on_final(block.header)
            self.herald.on_final(block)
        self._send_status()
        self.store.checkpoint_if_due(self._state)

    def _send_status(self, node_key: bytes | None = None) -> None:
        final = self.chain.finalized
        status = Status(EPOCH, self.chain.get_head().height, final.height, final.view, final.hash)
        if node_key is None:
            self.network.broadcast(status)
        else:
            self.network.send(node_key, status)

    def _update_metrics(self) -> None:
        metrics = self.metrics
        metrics.block_height.set(self.chain.get_head().height)
        metrics.finalized_height.set(self.chain.finalized.height)
        metrics.view.set(self.engine.view)
        metrics.peers.set(len(self.network.peers()))
        metrics.epoch.set(self.chain.finalized.epoch)
        self.herald.on_expired(self.mempool.dropped["expired"])
        metrics.syncing.set(self.catching_up.is_syncing)
        metrics.mempool_transactions.set(len(self.mempool))
        metrics.mempool_bytes.set(self.mempool.size_bytes)

    # --- the engine's host ------------------------------------------------------------------------------

    def broadcast(self, message: contract.Message) -> None:
        self.network.broadcast(self._pack(message))

    def send(self, peer: bytes, message: contract.Message) -> None:
        self.network.send(peer, self._pack(message))

    def _pack(self, message: contract.Message) -> Frame:
        raw = encode_message(message)
        if isinstance(message, Proposal):
            block = self.chain.get_block(message.block.hash) or self.store.get_block(message.block.hash)
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
        peers = self.network.peers()
        if peers:
            # Peers prove node keys, not voting keys: a hint by validator index names nobody here.
            peer = self._rng.choice(peers)
            self.network.send(peer.node_key, EngineMessage(encode_message(fetch.request)))

    def fetch_block(self, fetch: contract.FetchBlock) -> None:
        self.judge_room.fetch(fetch.block_hash, view=fetch.view)

    def build(self, build: contract.Build) -> None:
        self.proposer.build(build)

    def judge(self, judge: contract.Judge) -> None:
        self.judge_room.judge(judge.block.hash, decode_header(judge.payload))

    def finalize(self, finalize: contract.Finalize) -> None:
        self._observe(finalize.certificate)
        self.finality.finalize(finalize.certificate)

    def report_evidence(self, report: contract.ReportEvidence) -> None:
        evidence = report.evidence
        self.herald.on_evidence(evidence)
        log.error(
            "a validator contradicted itself",
            extra={"signer": evidence.first.signer, "view": evidence.first.subject.view},
        )

    def halt(self, halt: contract.Halt) -> None:
        refused = self.judge_room.invalid.get(halt.block_hash)
        log.critical(
            "signing stops: this node and a quorum disagree",
            extra={
                "reason": halt.reason,
                "block": halt.block_hash.hex(),
                "difference": refused.reason if refused else "",
            },
        )

    # --- the transport's handler --------------------------------------------------------------------

    def on_connected(self, peer: Peer) -> None:
        log.info("connected", extra={"peer": str(peer)})
        self._send_status(peer.node_key)
        # What was said before this connection stood is lost to this peer: without it a network that starts
        # at once would wait for the retry timers of its first view.
        for record in self.engine.list_records()[-RECORDS_TOLD_MAX:]:
            self.send(peer.node_key, record)

    def on_disconnected(self, peer: Peer) -> None:
        log.info("disconnected", extra={"peer": str(peer)})
        self.gossip.on_disconnected(peer)
        self.catching_up.on_disconnected(peer)
        self.serving.on_disconnected(peer)

    async def on_frame(self, peer: Peer, frame: Frame) -> None:
        """One frame of a peer. Raises Rejected when it is at fault."""
        if not self._is_open or self.failed.is_set():
            return
        match frame:
            case EngineMessage(payload):
                self._on_engine_message(peer, payload)
            case CompactProposal(proposal):
                self._on_engine_message(peer, proposal, frame)
            case Transactions() | Announce() | GetTransactions():
                await self.gossip.on_frame(peer, frame)
            case Status():
                self.catching_up.on_status(peer, frame)
            case GetBlock():
                self.serving.on_get_block(peer, frame)
            case GetBodyTransactions():
                self.serving.on_get_body_transactions(peer, frame)
            case GetFinalBlocks():
                self.serving.on_get_final_blocks(peer, frame)
            case BlockBody():
                self.judge_room.on_block_body(frame)
            case BodyTransactions():
                self.judge_room.on_body_transactions(frame)
            case FinalBlocks():
                self.catching_up.on_final_blocks(peer, frame)
            case Hello() | Proof() | Welcome() | Goodbye():
                raise Rejected("came after the handshake", field=type(frame).__name__)
            case _:
                assert_never(frame)

    def _on_engine_message(self, peer: Peer, raw: bytes, body: CompactProposal | None = None) -> None:
        message = decode_message(raw, self.read_block)
        if body is not None and not isinstance(message, Proposal):
            raise Rejected("carries no proposal", field="compact_proposal")
        if not self.engine.is_needed(message):
            return  # known, old or far ahead: not worth a signature check
        check_message(message, self.rules.validators, self.rules.chain_id, crypto.verify)
        if body is not None and isinstance(message, Proposal):
            header: Header = decode_header(message.payload)
            self.judge_room.offer_body(header, body, peer.node_key)
        self._post(Received(message, peer.node_key))


def _make_peer_network(
    identity: Identity,
    handler: Handler,
    settings: config.NodeConfig,
    random_bytes: Callable[[int], bytes],
    rng: random.Random,
) -> PeerNetwork:
    return PeerNetwork(
        identity,
        handler,
        random_bytes=random_bytes,
        rng=rng,
        known_peers=[
            KnownPeer(peer.name, peer.url, bytes.fromhex(peer.node_key.removeprefix("0x")))
            for peer in settings.peers
        ],
        host=settings.p2p_host,
        port=settings.p2p_port,
    )
