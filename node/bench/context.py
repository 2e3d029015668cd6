"""What every measurement is given: how large it is to be, where it may write, and how it tells of progress."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from tempfile import gettempdir, mkdtemp
from typing import Final

from consensus.errors import Fault
from node.audit import audit_home
from node.bench.stopwatch import is_running

NODES: Final = 4


@dataclass(frozen=True, slots=True)
class Sizes:
    """Seconds and counts of the measurements; the whole default table stays below six minutes."""

    raw_items: int = 2_000
    ramp_s: float = 3.0
    window_s: float = 12.0
    signed_max: int = 200_000  # 13,000 tx/s for the ramp and the window
    waiting_max: int = 10_000  # two full blocks: the next one never waits for submissions
    batch: int = 250
    load_processes: int = 2
    latency_s: float = 10.0  # under load
    latency_tick_s: float = 0.02  # a batch every so often, from each process
    probes: int = 200  # unloaded
    idle_s: float = 12.0
    starts: int = 3
    chain_blocks: int = 30
    block_transactions: int = 1_000
    repeats: int = 3
    growth_blocks: int = 20
    accounts_small: int = 10_000
    accounts_large: int = 1_000_000
    engine_runs: int = 400
    node_runs: int = 12
    overload_s: float = 120.0
    overload_factor: float = 10.0
    minutes: float = 3.0  # the long run
    is_small: bool = False  # whether it works, not how fast


SMALL: Final = Sizes(
    raw_items=200,
    ramp_s=0.5,
    window_s=4.0,
    waiting_max=1_000,
    signed_max=20_000,
    latency_s=2.0,
    probes=20,
    idle_s=2.0,
    starts=1,
    chain_blocks=4,
    block_transactions=200,
    repeats=1,
    growth_blocks=3,
    accounts_small=1_000,
    accounts_large=10_000,
    engine_runs=20,
    node_runs=2,
    overload_s=5.0,
    minutes=0.1,
    is_small=True,
)


@dataclass(slots=True)
class Bench:
    """folder: where chains and signed transactions lie. say: tells of progress. notes: for the table's foot."""

    folder: Path
    seed: int
    sizes: Sizes
    say: Callable[[str], None]
    profiles: Path | None = None
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def make_folder(self) -> Iterator[Path]:
        """A folder for one measurement's chain, removed with the block."""
        place = Path(mkdtemp(prefix=f"run-{os.getpid()}-", dir=self.folder))
        try:
            yield place
        finally:
            rmtree(place, ignore_errors=True)

    def choose_profiles(self, nodes: int) -> Path | None:
        """Where the profiles of a network of so many go, if any are wanted."""
        if self.profiles is None:
            return None
        place = self.profiles / f"{nodes}-validators"
        place.mkdir(parents=True, exist_ok=True)
        return place

    def check_chain(self, home: Path) -> int:
        """Audit what a measurement made; how many transactions hold. Raises Fault when something does not."""
        report = audit_home(home)
        if not report.ok:
            raise Fault(
                f"block {report.first_bad_height} of {home.name} does not hold: {report.problem}",
                field="audit",
            )
        return report.transactions


def remove_leftovers(folder: Path) -> None:
    """Remove what a bench that was killed could not."""
    for place in folder.glob("run-*-*"):
        pid = place.name.split("-")[1]
        if pid.isdecimal() and not is_running(int(pid)):
            rmtree(place, ignore_errors=True)


def choose_folder(given: str | None) -> Path:
    """Where the bench works: --home, or a folder of this user's in the system's temporary one."""
    return Path(given) if given is not None else Path(gettempdir()) / f"assay-bench-{os.getuid()}"
