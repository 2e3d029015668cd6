"""One node: its rooms, and what passes between them.

    HTTP, gossip -> mempool -> proposer -> engine (runtime) -> judge -> finality -> store, mempool, events

This file only builds, starts and ends the rooms; each has one door, and three of them are the node's own:
`network/frame_door.py` for peers, `engine/host.py` for the engine, `desks/desk.py` for the API. Everything that a machine
gives (clock, chance, disk, network, threads) comes from outside, for a deterministic world brings its own.
Invariant: a Fault anywhere sets `failed`, and the process ends without another word.
Leaves out: signals and logs (`process.py`), what a home says (`node_files.py`).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor
from contextlib import AsyncExitStack, ExitStack
from typing import Any, Final

from consensus import crypto
from consensus.bft import contract
from consensus.bft.contract import WorkWaiting
from consensus.bft.simplex import SimplexEngine
from consensus.block import Block
from consensus.ledger.building import Built
from consensus.vote import Certificate
from node.admin import Admin
from node.api.event_ring import EventRing
from node.api.server import ApiServer, ApiSettings
from node.blocks.budget import BlockBudget
from node.blocks.catch_up import CatchUp
from node.blocks.chain import Chain
from node.blocks.finality import Finality
from node.blocks.judge import Judge
from node.blocks.proposer import Proposer
from node.blocks.serving import Serving
from node.clock import Clock, SystemClock
from node.desks.desk import Desk
from node.duties.accuser import Accuser
from node.duties.model_watch import ModelWatch
from node.duties.onion_keeper import OnionKeeper
from node.duties.own_account import OwnAccount
from node.duties.refusal_keeper import RefusalKeeper
from node.duties.shadows import Shadows
from node.engine.host import EngineHost, MakeEngine, NodeEngine
from node.engine.observation import Vigil
from node.engine.room import EngineMeans, EngineRoom
from node.engine.runtime import Host, Runtime
from node.engine.voting_keys import VotingKeys
from node.entrance import Entrance
from node.herald import Herald
from node.mempool.mempool import Mempool
from node.mempool.refusals import Judged, Refusals
from node.metrics import NodeMetrics
from node.network.frame_door import FrameDoor, Rooms
from node.network.frames import Status
from node.network.handshake import Identity
from node.network.transport import Handler, Network
from node.node_files import NodeFiles
from node.policies.calling import ThreadCaller
from node.policies.plan import LoadedPolicy
from node.policies.room import MakeCaller, PolicyRoom
from node.recovery import recover
from node.signature_worker import SignatureWorker
from node.store.disk import Disk, RealDisk
from node.store.index import Index
from node.store.index_buffer import OpenIndex
from node.store.set_shelf import SetShelf
from node.verification import Verifier

log = logging.getLogger("assay.node")

SETS_NAME: Final = "sets.log"
TICK_SECONDS: Final = 0.5  # statuses, expiry and catching up are looked at this often
HISTORY_READ_MAX: Final = 100  # past blocks read in a tick, for proofs: 20 ms when they are full


class FullNode:
    """Construct in a running loop, `start`, `wait_until`, `close`.

    Given a clock, rng, disk, executor, network, engine, index and metrics, files whose keys are all there, and no API, it
    asks the machine for nothing: no file, clock, chance, thread or socket (time and order are the running loop's).
    """

    def __init__(
        self,
        files: NodeFiles,
        *,
        rng: random.Random,
        make_network: Callable[[Identity, Handler], Network],
        worker: SignatureWorker | None = None,
        clock: Clock | None = None,
        disk: Disk | None = None,
        executor: Executor | None = None,
        make_engine: MakeEngine = SimplexEngine,
        open_index: OpenIndex = Index,
        metrics: NodeMetrics | None = None,
        serves_api: bool = True,
        admin: Admin | None = None,
        policies: Sequence[LoadedPolicy] = (),
        make_caller: MakeCaller = ThreadCaller,
    ) -> None:
        self.failed = asyncio.Event()
        self.fault: BaseException | None = None
        self.settings = files.settings
        self.rules = files.rules
        self.node_key = files.node_key
        self.clock = clock or SystemClock()
        self._tasks: set[asyncio.Task[None]] = set()
        validator_key = files.validator_key
        self.address = (validator_key or self.node_key).address
        voting_keys = VotingKeys(validator_key, files.read_voting_keys)
        self.genesis_header = self.rules.create_genesis_state().header
        self.metrics = metrics or NodeMetrics()
        self.metrics.node.info({"name": self.settings.name, "chain": self.rules.chain_id})
        recovery = recover(files.home, self.rules, disk=disk, executor=executor, open_index=open_index)
        self.store, self.journal = recovery.store, recovery.journal
        self.journal_status = recovery.journal_status
        self._state, self._unfinal = recovery.state, recovery.unfinal
        with ExitStack() as undo:
            undo.callback(self.store.close)
            undo.callback(self.journal.close)
            self.set_shelf = SetShelf.open(files.home / SETS_NAME, disk or RealDisk())
            undo.callback(self.set_shelf.close)
            undo.callback(recovery.refusal_log.close)
            self.chain = Chain(self._state, self.rules.parameters.epoch_blocks)
            self.verifier = Verifier(self.rules.chain_id, worker)
            self.mempool = Mempool(self.rules, self.clock)
            self.refusals = Refusals()
            own_key = b"" if validator_key is None else validator_key.public_key
            self.refusal_keeper = RefusalKeeper(
                recovery.refusal_log,
                self.chain,
                self.store,
                self.rules.parameters,
                self.clock,
                self.metrics,
                own_key,
                self.on_fault,
            )
            self.refusals.on_added = self.refusal_keeper.note
            self.events = EventRing(self.clock.now_ms() * 1_000)
            self.model_watch = ModelWatch(self.events, self.chain.final_view)
            identity = Identity(self.node_key, self.rules.chain_id, self.genesis_header.hash)
            self.shadows = Shadows(self.rules, files.home / "shadows", self.settings.shadows)
            self.door = FrameDoor(self.on_fault)
            self.network = make_network(identity, self.door)
            self.policies = PolicyRoom(
                policies,
                self.rules,
                self.chain,
                self.mempool,
                self.clock,
                self.metrics.registry,
                self._spawn,
                self._on_work,
                make_caller,
            )
            self._build_rooms(validator_key, rng)
            self.engines = EngineRoom(
                EngineMeans(
                    self.rules,
                    self.chain,
                    self.store,
                    self.journal,
                    recovery.records,
                    self.settings,
                    voting_keys,
                    make_engine,
                    self._make_host,
                    self._watch,
                    Vigil(self.catching_up.find_epoch)
                    if self.journal_status.observe_until_view is None
                    else None,
                    self.on_fault,
                ),
                self._on_epoch,
                self._on_allowed,
            )
            self.desk = Desk(self)
            settings = ApiSettings(
                host=self.settings.api_host,
                port=self.settings.api_port,
                host_names=self.settings.api_host_names,
            )
            self.api = (
                ApiServer(self.desk, settings, self.metrics, self.clock.monotonic_ms, admin)
                if serves_api
                else None
            )
            undo.pop_all()  # all is built: from here on `close` ends it

    def _build_rooms(self, validator_key: crypto.PrivateKey | None, rng: random.Random) -> None:
        rules, chain, store, network, clock = self.rules, self.chain, self.store, self.network, self.clock
        mempool, verifier, loop = self.mempool, self.verifier, asyncio.get_running_loop()
        self._rng = rng
        herald = self.herald = Herald(self.events, self.metrics, clock)
        self.entrance = Entrance(
            rules,
            chain,
            mempool,
            verifier,
            self.refusals,
            herald,
            clock,
            network,
            loop,
            self._on_work,
            self.policies,
        )
        self.gossip = self.entrance.gossip
        account = None
        if validator_key is not None:
            submit = self.entrance.submit
            account = OwnAccount(rules, chain, mempool, clock, validator_key, submit, self._spawn)
        self.accuser = Accuser(rules, chain, account)
        herald.accuse = self.accuser.on_evidence
        budget = BlockBudget(self.settings.delta_ms // 2)
        judge = self.judge_room = Judge(
            rules,
            chain,
            store,
            verifier,
            mempool.get,
            network,
            clock,
            budget,
            chain.read_block,
            self._post,
            self._on_valid,
            self.on_fault,
        )
        self.finality = Finality(chain, store, judge, self._on_final, self.shadows.before_final)
        self.catching_up = CatchUp(
            rules,
            chain,
            store,
            self.finality,
            verifier,
            network,
            self._post,
            judge.refuse,
            self.on_fault,
            self._before_batch,
        )
        self.serving = Serving(chain, store, network, clock.monotonic_ms)
        self.onions = OnionKeeper(rules, chain, account, lambda: self.catching_up.is_syncing)
        self.proposer = Proposer(
            rules,
            chain,
            store,
            mempool,
            clock,
            budget,
            lambda: self.engines.public_key,
            self.onions.find_reveal,
            chain.read_block,
            self._post,
            self._on_built,
            lambda: self.policies.withheld,
            self.refusal_keeper.commit,
        )

    # --- the engine's rooms -----------------------------------------------------------------------------

    @property
    def engine(self) -> NodeEngine:
        """The current epoch's."""
        return self.engines.engine

    @property
    def runtime(self) -> Runtime:
        return self.engines.runtime

    @property
    def host(self) -> EngineHost:
        return self.engines.host

    @property
    def own_index(self) -> int | None:
        """This validator's seat in the current epoch; None when it has none, and only observes."""
        return self.engines.own_index

    def _make_host(self, epoch: int, on_finalization: Callable[[Certificate], None]) -> EngineHost:
        return EngineHost(
            self.chain,
            self.store,
            self.network,
            self.judge_room,
            self.proposer,
            self.finality,
            self.herald,
            self._rng,
            epoch,
            on_finalization,
        )

    def _watch(self, host: EngineHost) -> Host:
        """What performs an engine's effects; a simulated world puts something in between."""
        return host

    def _on_allowed(self, epoch: int, above_view: int) -> None:
        """Signing is safe again, above this view of this epoch."""

    def _on_epoch(self) -> None:
        self.door.on_epoch()
        self._send_status()

    # --- life -----------------------------------------------------------------------------------------

    async def start(self) -> str:
        """Open ports and begin; the API's base URL, or "". Raises Rejected when a port is taken."""
        await self.policies.start()
        if self.api is not None:
            await self.api.start()
        self.door.open(self._list_rooms())
        # Last, and nothing is awaited after it: what peers say first (their votes and certificates) is heard.
        await self.network.start()
        for block in self._unfinal:
            # Durable and once judged valid by us: judged again, so that the engine may build on them.
            self.judge_room.fetch(block.hash, height=block.header.height)
        self._unfinal = ()
        self.engines.start()
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

    async def wait_until(self, stop: asyncio.Event) -> None:
        """Returns when it has failed, or when `stop` is set."""
        tasks = [asyncio.create_task(event.wait()) for event in (self.failed, stop)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def close(self) -> None:
        """Stop in order; leaves a checkpoint, so that the next start re-executes little."""
        self.door.shut()
        self.engines.stop()
        async with AsyncExitStack() as stack:  # in reverse; what fails does not keep the rest from closing
            stack.callback(self.store.close)
            stack.callback(self.shadows.close)
            stack.callback(self._write_checkpoint)
            stack.callback(self.journal.close)
            stack.callback(self.set_shelf.close)
            stack.callback(self._close_refusals)
            stack.push_async_callback(self.verifier.close)
            stack.push_async_callback(self.judge_room.close)
            stack.push_async_callback(self.catching_up.close)
            stack.callback(self.gossip.close)
            stack.push_async_callback(self.policies.close)
            stack.push_async_callback(self._cancel_tasks)
            stack.push_async_callback(self.network.close)
            if self.api is not None:
                stack.push_async_callback(self.api.stop)  # first: it reads what the others close

    async def _cancel_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _close_refusals(self) -> None:
        (self.refusal_keeper.abandon if self.failed.is_set() else self.refusal_keeper.close)()

    def _write_checkpoint(self) -> None:
        if not self.failed.is_set():
            self.store.write_checkpoint(self._state)

    def _list_rooms(self) -> Rooms:
        return Rooms(
            self.rules,
            self.chain,
            self.engines,
            self.judge_room,
            self.gossip,
            self.entrance.intake,
            self.catching_up,
            self.serving,
            self.network,
            self._post,
            self._send_status,
        )

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.mempool.on_clock(self.clock.now_ms())
            self._send_status()
            self.catching_up.check()
            self.policies.check()
            self.desk.grow_history(HISTORY_READ_MAX)
            self.refusal_keeper.sync()
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
            self.door.shut()
            self.engines.stop()
            self.failed.set()

    def _post(self, event: contract.Event) -> None:
        self.engines.post(event)

    # --- what the rooms tell ---------------------------------------------------------------------------------------

    def _on_work(self) -> None:
        if self.proposer.is_waiting:
            self._post(WorkWaiting())

    def _on_built(self, built: Built, refused: list[Judged]) -> None:
        for judged in refused:
            self.entrance.note_refusal(judged)
        self.mempool.on_built(built)

    def _before_batch(self) -> None:
        self.engines.on_catching_up()

    def _on_valid(self, block: Block) -> None:
        self.herald.on_valid(block)
        self.finality.retry()

    def _on_final(self, blocks: tuple[Block, ...]) -> None:
        for block in blocks:
            self.mempool.on_final(block, self.chain.final_view)
            self.desk.on_final(block.header)
            self.refusal_keeper.on_final(block.header)
            self.herald.on_final(block)
        self.model_watch.on_final(self.chain.final_view)
        self.accuser.retry()
        self.onions.retry()
        self._send_status()
        self.store.checkpoint_if_due(self._state)
        self.engines.on_final()

    def _send_status(self, node_key: bytes | None = None) -> None:
        final = self.chain.finalized
        status = Status(self.chain.epoch, self.chain.get_head().height, final.height, final.view, final.hash)
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
        self.desk.update_metrics()
