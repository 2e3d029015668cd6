"""One life of a simulated machine: a process that runs a whole FullNode, from its start to its end.

It has its own loop, handles on the disk, wire and generator; when it ends, all of these end with it.
Before every effect of an honest node (on the disk, on the wire) the world may crash it, and hears what
the node says, signs and makes final.

Invariant: nothing of a process acts after its end; a node that meets a fault which the world did not make
is a violation, never a restart. Leaves out: what outlives it (`host.py`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from consensus.bft import contract
from consensus.bft.contract import BlockBuilt
from consensus.block import Header
from consensus.errors import Fault
from node.engine.host import EngineHost
from node.full_node import FullNode
from node.mempool.receipts import Receipt
from node.metrics import NodeMetrics
from node.network.frames import Frame
from node.network.handshake import Identity
from node.network.transport import Handler
from node.simulation.config import NODES_MAX
from node.simulation.full_nodes.loop import InlineExecutor, VirtualLoop
from node.simulation.full_nodes.wires import Wire
from node.simulation.process_disk import ProcessDisk
from node.simulation.world import Crash
from node.store.store import BLOCKS_NAME

if TYPE_CHECKING:
    from node.simulation.full_nodes.host import NodeHost
    from node.simulation.full_nodes.world import NodeWorld

HOME: Final = Path("home")
BLOCKS_PATH: Final = HOME / BLOCKS_NAME
WEIGH_TURNS: Final = 64  # a flood within one view is seen after some rounds of messages
CLOSE_MS_MAX: Final = 10_000  # an orderly end is bounded: the longest wait in it is a handler's second

Answer = Callable[[Sequence[Receipt] | None], None]


@lru_cache(maxsize=NODES_MAX)
def make_metrics(_index: int) -> NodeMetrics:
    """One for all lives of all runs: making them takes longer than starting a node, and nobody reads them."""
    return NodeMetrics()


class HostClock:
    """A machine's clocks: the wall clock may be wrong."""

    def __init__(self, world: NodeWorld, host: NodeHost) -> None:
        self._world = world
        self._host = host

    def now_ms(self) -> int:
        return max(0, self._world.get_wall_ms() + self._host.skew_ms)

    def monotonic_ms(self) -> int:
        return self._world.now_ms


class WatchedNode(FullNode):
    """A FullNode that tells its process what it does; the same in all of it."""

    def __init__(self, process: NodeProcess, *arguments: Any, **named: Any) -> None:
        self._process = process
        super().__init__(*arguments, **named)

    def _on_allowed(self, epoch: int, above_view: int) -> None:
        self._process.host.note_signing(epoch, above_view)

    def _watch(self, host: EngineHost) -> WatchedHost:
        epoch_set = self.chain.final_view.find_set(host.epoch)
        assert epoch_set is not None  # its engine was made with it
        self._process.world.open_epoch(self._process, host.epoch, epoch_set, self.store)
        return WatchedHost(host, self._process, self)


class WatchedHost:
    """A node's engine host (implements `runtime.Host`), whose effects the world hears of first."""

    def __init__(self, host: EngineHost, process: NodeProcess, node: WatchedNode) -> None:
        self.send = host.send
        self.fetch_certificate = host.fetch_certificate
        self.fetch_block = host.fetch_block
        self.judge = host.judge
        self._host = host
        self._index = process.index
        self._world = process.world
        self._node = node

    def broadcast(self, message: contract.Message, peers_max: int | None) -> None:
        # Who is a quorum by itself may be final before anybody is there to hear how.
        self._world.hear_held(self._index, message)
        self._host.broadcast(message, peers_max)

    def build(self, build: contract.Build) -> None:
        if self._world.is_build_failing():
            self._node.runtime.post(BlockBuilt(build.view, None, b""))
        else:
            self._host.build(build)

    def finalize(self, finalize: contract.Finalize) -> None:
        self._world.note(f"final {finalize.certificate.subject.view}", self._index)
        self._host.finalize(finalize)

    def report_evidence(self, report: contract.ReportEvidence) -> None:
        self._world.on_evidence(self._index, report.evidence)
        self._host.report_evidence(report)

    def halt(self, halt: contract.Halt) -> None:
        self._world.on_halt(self._index, halt.reason)
        self._host.halt(halt)


class NodeProcess:
    """One life of a host."""

    def __init__(self, host: NodeHost, world: NodeWorld) -> None:
        self.host = host
        self.world = world
        self.index = host.index
        self.is_honest = host.index in world.safety.honest
        self.loop = VirtualLoop(world, world.fail, self._after_turn)  # type: ignore[abstract]
        self.disk = ProcessDisk(host.disk, self.cross_boundary)
        self.door = world.make_door(self)
        self.node: WatchedNode | None = None  # once it is built
        self.is_open = False  # it has started
        self.is_stopping = False
        self._stop = asyncio.Event()
        self._place = (0, 0, 0)
        self._final: Header | None = None
        self._turns = 0
        self._questions: dict[int, Answer] = {}  # of clients, not yet answered
        self._submissions: list[asyncio.Task[None]] = []  # theirs, open or not
        self._numbers = 0

    def begin(self) -> None:
        self.loop.create_task(self._run(), name="process").add_done_callback(self._check_end)

    def _check_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.world.fail_by(self.index, error)

    async def _run(self) -> None:
        world, host = self.world, self.host
        rng = random.Random(f"{world.seed}/{self.index}/{host.incarnation}")

        def make_wire(_: Identity, handler: Handler) -> Wire:
            return Wire(world.cables, world, self, handler, world.get_wire_door(self))

        try:
            node = WatchedNode(
                self,
                world.get_files(self.index),
                rng=rng,
                clock=HostClock(world, host),
                disk=self.disk,
                executor=InlineExecutor(),
                make_network=make_wire,
                make_engine=world.get_engine_maker(self),
                open_index=self.disk.open_index,
                metrics=make_metrics(self.index),
                serves_api=False,
            )
        except Fault as fault:
            if host.is_at_a_loss and fault.code != "disk":
                host.replace_store()
            else:
                self._fall(fault)
            return
        host.is_torn = False
        self.node = node
        world.check_start(self, node)
        await node.start()
        self.is_open = True
        await node.wait_until(self._stop)
        self.is_stopping = True
        await node.close()
        await asyncio.sleep(0)  # what was cancelled last has ended by now
        self._check_leftovers()
        if node.fault is not None:
            self._fall(node.fault)
        else:
            host.end_in_order()

    def _fall(self, fault: BaseException) -> None:
        """The node has ended itself. Only a disk's fault is no fault of its own."""
        if isinstance(fault, Fault) and fault.code == "disk" and self.host.has_disk_fault:
            self.host.crash()
            self.world.restart_later(self.host)
        else:
            self.world.fail_by(self.index, fault)

    def _check_leftovers(self) -> None:
        """A closed node runs nothing any more, and nothing of it has failed unheard."""
        own = {asyncio.current_task(), *self._submissions}
        left = [task.get_name() for task in self.loop.list_pending() if task not in own]
        if left:
            self.world.fail(f"close: node {self.index} is closed, and these still run: {', '.join(left)}")
        for failure in self.loop.list_failures():
            self.world.fail(failure)

    def stop(self) -> None:
        """As by SIGTERM: the node closes in order, and the process ends."""
        self.is_stopping = True
        self.loop.call_soon(self._stop.set)
        self.world.push(CLOSE_MS_MAX, self._check_closed, ())

    def _check_closed(self) -> None:
        if not self.loop.is_dead:
            self.world.fail(f"close: node {self.index} has not ended {CLOSE_MS_MAX} ms after it was told to")

    def end(self) -> None:
        """All that is left of it goes at once."""
        self.disk.end()
        self.loop.kill()
        self.world.cables.on_death(self.index)
        for answer in self._questions.values():
            self.world.push(0, answer, (None,))
        self._questions.clear()

    # --- boundaries -----------------------------------------------------------------------------------

    def cross_boundary(self) -> None:
        """Between two effects: here the world may end the process. Raises Crash."""
        if not self.is_honest:
            return
        try:
            self.world.maybe_crash(self.host)
        except Crash:
            self.host.crash()
            self.world.restart_later(self.host)
            raise

    def speak(self, frame: Frame) -> None:
        """Before a frame leaves the node. Raises Crash."""
        self.cross_boundary()
        if self.is_honest and (message := self.world.epochs.read_message(frame)) is not None:
            self.world.hear(self, message)

    def is_durable(self, block_hash: bytes) -> bool:
        """Whether this block's body and its ancestors' would survive a crash now."""
        node = self.node
        if node is None:
            return False
        durable_bytes = self.host.disk.get_durable_bytes(BLOCKS_PATH)
        bodies = node.store._positions.bodies
        while (place := bodies.get(block_hash)) is not None:
            if place.offset >= durable_bytes:
                return False
            block_hash = place.parent_hash
        return node.store.get_raw_block(block_hash) is not None

    # --- what it shows --------------------------------------------------------------------------------

    def _after_turn(self) -> None:
        node = self.node
        if node is None or node.failed.is_set():
            return  # what an engine knows that has failed is neither durable nor told to anybody
        engine = node.engine
        self._turns += 1
        place = node.engines.epoch, engine.view, engine.finalized_view
        if place != self._place or self._turns % WEIGH_TURNS == 0:
            self._place = place
            self.world.look_at(self.host, engine)
        final = node.chain.finalized
        if final is not self._final:
            self._final = final
            self.world.look_at_node(self.index, node)

    # --- clients --------------------------------------------------------------------------------------

    def submit(self, raws: Sequence[bytes], answer: Answer) -> None:
        node = self.node
        if node is None or not self.is_open or self.is_stopping:
            self.world.push(0, answer, (None,))
            return
        self._numbers += 1
        self._questions[self._numbers] = answer
        self._submissions.append(self.loop.create_task(self._submit(node, raws, self._numbers)))

    async def _submit(self, node: FullNode, raws: Sequence[bytes], number: int) -> None:
        receipts = await node.entrance.submit(raws)
        answer = self._questions.pop(number)
        self.world.push(0, answer, (receipts,))
