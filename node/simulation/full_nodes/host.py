"""One simulated machine: a disk that outlives its processes, and the faces that faults see.

Invariant: what the disk keeps, after what a crash does to it, is all that the next process has.
Leaves out: what a process does while it lives (`process.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from node.full_node import FullNode
from node.simulation.full_nodes.process import BLOCKS_PATH, HOME, NodeProcess, make_metrics
from node.simulation.memory_disk import MemoryDisk
from node.simulation.seats import compute_place
from node.store.store import BLOCKS_NAME

if TYPE_CHECKING:
    from node.simulation.full_nodes.world import NodeWorld

JOURNAL_PATH: Final = HOME / "journal"
MARK_PATH: Final = HOME / "validator.voted"


class NodeHost:
    """Machine `index` of a world, with the face that faults see."""

    journal_path: Path = JOURNAL_PATH
    mark_path: Path = MARK_PATH

    def __init__(self, index: int, world: NodeWorld) -> None:
        self.index = index
        self.disk = MemoryDisk(garbles=True)
        self.is_damaged = False  # its journal was, and no quorum has told its view yet
        self.signs_above = -1  # the view that a quorum told it after that; -1: it was never asked
        self.is_torn = False  # its last crash hit blocks being written, and no node has come up since
        self.bare_view = -1  # the place where it lost its store; its journal vouches for what is gone
        self.skew_ms = 0  # how far its wall clock is off
        self.incarnation = 0
        self.process: NodeProcess | None = None
        self._world = world
        make_metrics(index)  # now: the library looks at the clock when it makes them

    @property
    def is_up(self) -> bool:
        return self.process is not None

    @property
    def node(self) -> FullNode | None:
        """The node that runs: from its start until it ends or is told to."""
        process = self.process
        is_running = process is not None and process.is_open and not process.is_stopping
        return process.node if process is not None and is_running else None

    @property
    def has_disk_fault(self) -> bool:
        """Whether the world lets its disk fail now."""
        return self.disk.bytes_left is not None or self.disk.is_sync_failing

    @property
    def is_at_a_loss(self) -> bool:
        """Whether a node may refuse to start here: it finds the end of its blocks damaged, and asks its journal
        whether what stood there was needed; but that is damaged too, or vouches for what was lost before.
        """
        safety = self._world.safety
        block = safety.chain[safety.heights.get(self.index, 0)]
        is_bare = compute_place(block.epoch, block.view) <= self.bare_view
        return self.is_torn and (self.is_damaged or is_bare)

    def start(self) -> None:
        """Come up with what the disk holds."""
        assert self.process is None
        self.incarnation += 1
        self.disk.mend()
        if self.disk.read_file(MARK_PATH) is not None and self.disk.read_file(JOURNAL_PATH) is None:
            self._world.lose_journal(self)
        self._world.note(f"start {self.incarnation}", self.index)
        self._world.record("start", self.index)
        self.process = NodeProcess(self, self._world)
        self.process.begin()

    def crash(self) -> None:
        """Lose all that is not durable."""
        self._world.note("crash", self.index)
        self._end()
        written = self.disk.read_file(BLOCKS_PATH) or b""  # its first record may be torn, too
        self.is_torn |= len(written) > self.disk.get_durable_bytes(BLOCKS_PATH)
        self._world.crash_disk(self)

    def stop(self) -> None:
        """Tell the process to end in order; it does so in its own time."""
        if self.process is not None and not self.process.is_stopping:
            self._world.note("stop", self.index)
            self.process.stop()

    def end_in_order(self) -> None:
        """The process has closed everything and ends; somebody starts it again."""
        self._world.note("stopped", self.index)
        self._end()
        self._world.restart_later(self)

    def pause(self) -> None:
        """Its process stops, as by SIGSTOP or on a machine that swaps."""
        if self.process is not None:
            self._world.note("pauses", self.index)
            self.process.loop.pause()

    def unpause(self) -> None:
        if self.process is not None and self.process.loop.is_paused:
            self._world.note("goes on", self.index)
            self.process.loop.unpause()

    def lose_store(self) -> None:
        """Down it goes, and up again without a block; it still knows what it has signed."""
        self.crash()
        for name in (BLOCKS_NAME, "index", "checkpoints"):
            self.disk.remove_all(HOME / name)
        if self.incarnation % 2:  # a whole disk, or the chain's folder alone
            for name in self.disk.list_names(HOME):
                if name.startswith("refusals-"):
                    self.disk.remove(HOME / name)
            self._world.lose_refusal_log(self.index)
        self._world.note("its store is lost", self.index)
        self.bare_view = max(self.bare_view, self._world.safety.places.get(self.index, (0, 0))[0])
        self._world.lose_store(self)
        self._world.restart_later(self)

    def replace_store(self) -> None:
        """Its operator does what the node says: he moves the damaged block file away."""
        self._world.note("its operator moves its store away", self.index)
        self.lose_store()

    def heal(self) -> None:
        """The world has healed, and so has this machine."""
        self.unpause()
        self.skew_ms = 0

    def note_signing(self, epoch: int, above_view: int) -> None:
        """Its node may sign again: a quorum has told it where the network stands."""
        self.is_damaged = False
        self.signs_above = compute_place(epoch, above_view)
        self._world.note(f"signs above {above_view} of epoch {epoch}", self.index)

    def _end(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.end()
