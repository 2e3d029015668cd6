"""Seven validators under load and a nemesis: sixty faults, then everything heals, and all is as it should be.

The seed is a fresh one and is printed; ASSAY_SEED takes another. It decides the plan and the load; what the
processes make of it is theirs, so a replay is the same mistreatment and not the same microseconds.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from pathlib import Path

import pytest

from tests.integration.faulty_network import FaultyNetwork
from tests.integration.nemesis import NODES, KillAll, Scene, Start, Thaw
from tests.integration.nemesis_plan import ACTIONS, FAULTS_MAX, draw_plan
from tests.integration.network_process import run_assay, wait_for
from tests.integration.steady_load import SteadyLoad

BLOCK_INTERVAL_MS = 250
BATCH = 3  # some 50 transfers a second: at the end every node is read from its first block to its last
RESUME_SECONDS_MAX = 90.0  # finality after an action, on a busy machine; the report tells what it took
LOG_LINES_SHOWN = 12


@pytest.fixture
def seed(fresh_seed: int) -> int:
    return fresh_seed


class Story:
    """What happened so far, for who must understand a failure."""

    def __init__(self, seed: int) -> None:
        self.lines: list[str] = [f"nemesis seed {seed}"]
        self._start = time.monotonic()
        self.slowest_s = 0.0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def tell(self, words: str) -> None:
        self.lines.append(f"{self.seconds:6.1f} s  {words}")
        print(self.lines[-1], flush=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_final_is_lost_whatever_is_done_to_two_of_seven(
    seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        print(
            f"\nnemesis: seed {seed}; replay: ASSAY_SEED={seed} .venv/bin/python -m pytest -s tests/integration/test_nemesis.py"
        )
    folder = Path(tempfile.mkdtemp(prefix="assay-nemesis-"))
    story = Story(seed)
    network = FaultyNetwork(folder / "net", NODES, BLOCK_INTERVAL_MS, random.Random(seed).randbytes)
    try:
        with network:
            run(network, seed, story)
    except BaseException:
        show_failure(network, story)
        raise
    shutil.rmtree(folder)
    with capsys.disabled():
        print(story.lines[-1])


def run(network: FaultyNetwork, seed: int, story: Story) -> None:
    with SteadyLoad(network, seed, BATCH) as load:
        load.skipped = network.frozen
        scene = Scene(network, load)
        story.tell(f"up at height {load.seen_height}")
        faults = 0
        for step in draw_plan(seed):
            faults += not step.is_mend
            story.tell(f"{'  ends:' if step.is_mend else f'{faults:2}'} {step.action}")
            step.action.perform(scene)
            resumed = load.wait_more(step.transfers, RESUME_SECONDS_MAX)
            story.slowest_s = max(story.slowest_s, resumed)
            if resumed > 5:
                story.tell(f"          {step.transfers} transfers took {resumed:.1f} s")
            network.check_logs()
        story.tell("all is healed")
        check_all(network, load, story)
        check_audit(network, random.Random(seed).randrange(NODES))
        story.tell(
            f"nemesis: seed {seed}, {faults} faults, {len(load.places)} transfers final at height "
            f"{load.seen_height}, slowest resumption {story.slowest_s:.1f} s: nothing lost, nobody accused"
        )


def check_all(network: FaultyNetwork, load: SteadyLoad, story: Story) -> None:
    load.drain(RESUME_SECONDS_MAX)
    story.tell("all that was submitted is final somewhere")
    assert load.acknowledged <= load.places.keys(), "an acknowledged transaction is missing"
    network.wait_height(load.seen_height, RESUME_SECONDS_MAX)
    height = network.check_same_roots()
    story.tell(f"one root at height {height} on all")
    load.check_places()
    story.tell("all that was ever seen final stands where it stood, on all")
    network.check_evidence()
    story.tell("nobody contradicted itself, in any journal that was ever kept")
    network.wait_height(height + 3, RESUME_SECONDS_MAX)
    for i in range(network.nodes):
        wait_for(f"peers of node{i}", lambda i=i: network.get_status(i)["peers"] == network.nodes - 1)
    network.check_logs()
    story.tell("finality goes on, on all, and all are connected")


def check_audit(network: FaultyNetwork, place: int) -> None:
    """One node's whole store holds: every signature, certificate, score and root."""
    audit = run_assay("audit", "--home", str(network.get_home(place)), timeout=RESUME_SECONDS_MAX)
    assert audit.returncode == 0, f"node{place}: {audit.stdout}{audit.stderr}"


def show_failure(network: FaultyNetwork, story: Story) -> None:
    print("\n".join(["", "what was done:", *story.lines, f"kept: {network.home}", "as it was left:"]))
    for i in range(network.nodes):
        state = "killed" if i in network.killed else "frozen" if i in network.frozen else "ran"
        print(f"--- node{i} {state}; cuts {sorted(w for w in network.cuts if i in w)}")
        path = network.get_home(i) / "node.log"
        if path.exists():
            print("\n".join(path.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]))


@pytest.mark.parametrize("number", range(20))
def test_a_plan_has_all_its_actions_and_never_too_many_faults(number: int) -> None:
    steps = draw_plan(number)
    assert steps == draw_plan(number)
    assert sum(not step.is_mend for step in steps) == ACTIONS
    open_mends: list[object] = []
    for step in steps:
        if step.is_mend:
            open_mends.remove(step.action)
        elif step.action.mend is not None:
            assert len(open_mends) < FAULTS_MAX
            open_mends.append(step.action.mend)
        else:
            assert len(open_mends) < FAULTS_MAX, "what a restart does is a fault while it lasts"
        if isinstance(step.action, KillAll):
            open_mends = [mend for mend in open_mends if not isinstance(mend, (Start, Thaw))]
    assert open_mends == []


def test_the_deck_is_sixty_actions() -> None:
    assert ACTIONS == 60
