"""Whole nodes in the deterministic world: runs repeat, faults strike and are borne, and what is wrong shows."""

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consensus.errors import Rejected
from node.__main__ import main
from node.blocks.catch_up import CatchUp
from node.commands.simulate import format_replay
from node.engine.journal import Journal
from node.full_node import FullNode
from node.mempool.mempool import Mempool
from node.simulation import faults
from node.simulation.config import FULL_NODES, SimulationConfig
from node.simulation.diagram import draw_diagram
from node.simulation.full_nodes.world import NodeWorld, simulate_nodes
from node.simulation.guard import FORBIDDEN, ForbiddenCallError
from node.simulation.timeline import Timeline
from node.simulation.trace import format_trace
from node.store.store import Store
from tests.fakes.other_processes import print_with_two_hash_seeds

ROOT = Path(__file__).resolve().parents[2]
_NONE: dict[str, Any] = dict.fromkeys(
    (
        *("loss", "duplication", "slow_share", "crashes", "partitions", "build_failures", "blackouts"),
        *("slow_links", "flipped_bits", "full_disks", "failed_syncs", "lost_journals", "restarts"),
        *("pauses", "clock_skews", "lost_stores"),
    ),
    0.0,
)
CALM = replace(FULL_NODES, **_NONE, faulty_ms=1_000)
STORMY = replace(FULL_NODES, faulty_ms=2_000)

# Seeds that once broke a run, with the options that they need, and what it was.
QUORUM = {"crashes": 0.003, "partitions": 1.0, "flipped_bits": 0.5, "absent": 1, "lost_journals": 0.2}
REGRESSION_SEEDS: list[tuple[int, dict[str, Any], str]] = [
    (1, {}, "a timer that fired a hair early asked for itself again, for ever, without time passing"),
    (2, {}, "what an engine knows that could not sync is neither durable nor told: not yet a place"),
    (16, {}, "a lost store, torn again while it came back: the journal vouches for what is gone"),
    (60039, {}, "the same, when the engine already knew a later finalization"),
    (30094, {"faulty_ms": 8_000}, "a torn end of the blocks, and the journal damaged by the same crash"),
    (40012, {"faulty_ms": 8_000}, "journal and store both lost: it stands at the beginning again"),
    (
        22000016,
        {"epoch_blocks": 3, "clock": "workload"},
        "clients dated by their own clocks what a chain whose time had run ahead took for expired",
    ),
    (30032, {**QUORUM, "pauses": 0.3}, "an absent node came back, by a restart planned before"),
]


def run(config: SimulationConfig, seed: int, note_replay: Callable[[str], None]) -> NodeWorld:
    note_replay(format_replay(config, seed))
    world = NodeWorld(config, seed, timeline=Timeline())
    assert world.run() == ""
    return world


def list_notes(world: NodeWorld) -> str:
    assert world.timeline is not None
    return "\n".join(f"{entry.kind} {entry.text}" for entry in world.timeline.entries)


@pytest.mark.parametrize(("seed", "options", "what"), REGRESSION_SEEDS)
def test_what_broke_a_node_once_does_not_again(seed: int, options: dict[str, Any], what: str) -> None:
    assert simulate_nodes(replace(FULL_NODES, **options), seed).violation == "", what


# --- the same again -----------------------------------------------------------------------------------


def test_a_calm_network_finalizes_what_clients_send(seed: int, note_replay: Callable[[str], None]) -> None:
    world = run(CALM, seed, note_replay)
    assert len(world.safety.chain) > 10
    assert len(world.checkers.ledger.plain.places) > 10
    assert world.cables.counts == {"connected": 6}
    assert world.checkers.penalties == []


def test_the_same_seed_gives_the_same_run_watched_or_not(seed: int) -> None:
    first = simulate_nodes(STORMY, seed)
    simulate_nodes(STORMY, seed + 1)
    assert simulate_nodes(STORMY, seed, timeline=Timeline()) == first


def test_processes_with_different_hash_seeds_give_the_same_run(seed: int) -> None:
    code = (
        "from dataclasses import replace\n"
        "from node.simulation.config import FULL_NODES\n"
        "from node.simulation.full_nodes.world import simulate_nodes\n"
        "config = replace(FULL_NODES, faulty_ms=2_000, villains=('equivocator',))\n"
        f"print([simulate_nodes(config, {seed} + number) for number in range(2)])"
    )
    printed = print_with_two_hash_seeds(code)
    assert printed[0] == printed[1]
    assert printed[0].count("violation=''") == 2


def test_another_seed_is_another_run(seed: int) -> None:
    assert simulate_nodes(CALM, seed).trace_hash != simulate_nodes(CALM, seed + 1).trace_hash


# --- faults -------------------------------------------------------------------------------------------

STRIKES: dict[str, tuple[float, str]] = {
    "loss": (0.1, ""),
    "slow_share": (0.1, ""),
    "partitions": (0.9, "cut "),
    "slow_links": (0.9, "fault slow "),
    "crashes": (0.01, "crash "),
    "blackouts": (0.5, "crash "),
    "build_failures": (0.3, ""),
    "full_disks": (0.9, "fault disk full"),
    "failed_syncs": (0.9, "fault sync fails"),
    "lost_journals": (0.9, "its journal is lost"),
    "restarts": (0.9, "fault stopped"),
    "pauses": (0.9, "fault goes on"),
    "clock_skews": (0.9, "its clock is off by"),
    "lost_stores": (0.9, "its store is lost"),
}


@pytest.mark.parametrize("name", STRIKES)
def test_each_fault_strikes_and_is_borne(name: str, seed: int, note_replay: Callable[[str], None]) -> None:
    rate, note = STRIKES[name]
    world = run(replace(CALM, faulty_ms=1_600, **{name: rate}), seed, note_replay)
    assert note in list_notes(world)


def test_all_faults_at_once_are_borne(seed: int, note_replay: Callable[[str], None]) -> None:
    for number in range(2):
        run(FULL_NODES, seed + number, note_replay)


def test_a_node_crashes_at_whatever_boundary_it_is_told_to(
    seed: int, note_replay: Callable[[str], None]
) -> None:
    whole = run(replace(CALM, faulty_ms=500), seed, note_replay)
    for boundary in random.Random(seed).sample(range(whole.boundaries // 2), 4):
        world = run(replace(CALM, faulty_ms=500, crash_at=boundary), seed, note_replay)
        assert world.crashes == 1


def test_a_node_that_lost_its_journal_watches_and_then_signs_again(
    seed: int, note_replay: Callable[[str], None]
) -> None:
    notes = list_notes(run(replace(CALM, faulty_ms=1_600, lost_journals=1.0), seed, note_replay))
    assert notes.index("its journal is lost") < notes.index("observes only") < notes.index("signs above")


def test_seven_nodes_bear_two_villains(seed: int, note_replay: Callable[[str], None]) -> None:
    config = replace(STORMY, nodes=7, villains=("equivocator", "wrong-score"), faulty_ms=1_000)
    assert len(run(config, seed, note_replay).villains) == 2


def test_exactly_a_quorum_is_enough(seed: int, note_replay: Callable[[str], None]) -> None:
    world = run(replace(STORMY, absent=1), seed, note_replay)
    assert [host.is_up for host in world.hosts].count(False) <= 1


# --- what is wrong shows ------------------------------------------------------------------------------


def _seek(config: SimulationConfig, seed: int, words: str, runs: int = 6) -> None:
    """Some run of a few complains in these words."""
    told = [simulate_nodes(config, seed + number).violation for number in range(runs)]
    assert any(words in text for text in told), told


def test_a_node_that_votes_before_its_body_is_durable_is_found(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "sync", lambda self: None)
    _seek(CALM, seed, "durable bodies", runs=1)


def test_a_node_that_forgets_its_votes_is_found(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Journal, "sync", lambda self: None)
    _seek(replace(CALM, crashes=0.02), seed, "no way back")


def test_an_error_in_a_task_that_nobody_awaits_is_found(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: CatchUp) -> None:
        raise ValueError("a slip of the pen")

    monkeypatch.setattr(CatchUp, "check", fail)
    _seek(CALM, seed, "ValueError: a slip of the pen", runs=1)


def test_a_node_that_hangs_in_closing_is_found(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(self: FullNode) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(FullNode, "close", hang)
    _seek(replace(CALM, restarts=1.0), seed, "close: node", runs=1)


def test_a_mempool_that_forgets_is_found(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mempool, "select", lambda self, *arguments: [])
    _seek(CALM, seed, "acknowledged", runs=1)


def _look_at_the_clock(node: FullNode) -> None:
    time.monotonic()


def _draw(node: FullNode) -> None:
    random.random()


def _ask_the_kernel(node: FullNode) -> None:
    os.urandom(8)


@pytest.mark.parametrize("ask", [_look_at_the_clock, _draw, _ask_the_kernel])
def test_a_node_that_asks_the_real_world_fails_its_run(
    ask: Callable[[FullNode], None], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FullNode, "_update_metrics", ask)
    with pytest.raises(ForbiddenCallError):
        simulate_nodes(CALM, seed)


def test_no_module_of_a_node_holds_a_clock_by_its_own_name() -> None:
    """`from time import time` would pass the guard by."""
    forbidden = {
        id(getattr(module, name)): f"{module.__name__}.{name}"
        for module, names in FORBIDDEN
        for name in names
        if module.__name__ in ("time", "os", "random")
    }
    held = [
        f"{module_name}.{name} is {forbidden[id(value)]}"
        for module_name, module in list(sys.modules.items())
        if module_name.split(".")[0] in ("consensus", "ml", "node")
        for name, value in vars(module).items()
        if id(value) in forbidden
    ]
    assert held == []


# --- for people ---------------------------------------------------------------------------------------


def test_a_run_can_be_read_and_drawn(seed: int) -> None:
    timeline = Timeline()
    config = replace(STORMY, faulty_ms=600)
    simulate_nodes(config, seed, timeline=timeline)
    text = "\n".join(format_trace(timeline, config, seed))
    assert "notarization" in text
    assert "commits" in text
    assert "HEALS" in text
    assert draw_diagram(timeline, config, seed, format_replay(config, seed)).count("<line") > 100


def test_the_command_runs_whole_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["simulate", "--full-nodes", "--faulty-ms", "300", "--runs", "2", "--jobs", "1", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert (code, report["runs"], report["violations"]) == (0, 2, 0)


def test_a_replay_names_whole_nodes_and_what_differs_from_their_defaults() -> None:
    config = replace(FULL_NODES, nodes=5, pauses=0.5, villains=("boaster@2",))
    assert (
        format_replay(config, 9)
        == "assay simulate --full-nodes --nodes 5 --pauses 0.5 --villain boaster@2 --seed 9"
    )


@pytest.mark.parametrize(
    "options",
    [["--pauses", "0.1"], ["--villain", "boaster"], ["--full-nodes", "--villain", "nobody"]],
)
def test_what_only_whole_nodes_can_do_is_refused_to_engines(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", *options]) != 0
    assert "Traceback" not in capsys.readouterr().err


def test_node_level_chances_need_whole_nodes() -> None:
    with pytest.raises(Rejected, match="--full-nodes"):
        SimulationConfig(lost_stores=0.1)


def test_faults_of_nodes_are_of_their_classes() -> None:
    named = {type(item) for item in FULL_NODES.list_faults()}
    assert {faults.Pauses, faults.ClockSkew, faults.StoreLost, faults.JournalLost} <= named
    assert faults.OrderlyRestarts in named
