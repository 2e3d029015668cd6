"""The deterministic world itself: it repeats, it forbids the outside, and its faults do what they say."""

import json
import os
import random
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from consensus.bft.contract import Effect, Event
from consensus.bft.simplex import EngineConfig, SimplexEngine
from consensus.errors import Rejected
from node.__main__ import main
from node.commands.simulate import format_replay, parse_partition
from node.simulation import faults
from node.simulation.config import Outcome, SimulationConfig
from node.simulation.engine_world import EngineWorld, simulate
from node.simulation.guard import FORBIDDEN, ForbiddenCallError, forbid_outside
from node.simulation.links import SLOW_FACTOR, Links
from node.simulation.runs import Summary, run_many
from node.simulation.world import World
from tests.fakes.other_processes import print_with_two_hash_seeds

CALM = SimulationConfig(
    loss=0, duplication=0, slow_share=0, crashes=0, partitions=0, build_failures=0, faulty_ms=600
)
ROOT = Path(__file__).resolve().parents[2]


# --- the same again -----------------------------------------------------------------------------------


def test_processes_with_different_hash_seeds_give_the_same_trace(seed: int) -> None:
    code = (
        "from node.simulation.config import SimulationConfig\n"
        "from node.simulation.engine_world import simulate\n"
        f"config = SimulationConfig(equivocators=1, flipped_bits=0.3, crashes=0.01, slow_links=0.3)\n"
        f"print([simulate(config, {seed} + number).trace_hash for number in range(3)])"
    )
    printed = print_with_two_hash_seeds(code)
    assert printed[0] == printed[1]
    assert len(printed[0]) > 3 * 64


def test_the_number_of_processes_changes_no_outcome(seed: int) -> None:
    alone, together = Summary(), Summary()
    for outcome in run_many(CALM, range(seed, seed + 25), jobs=1):
        alone.add(outcome)
    for outcome in run_many(CALM, range(seed, seed + 25), jobs=2):
        together.add(outcome)
    assert (alone.runs, alone.trace_hash, alone.views) == (25, together.trace_hash, together.views)


def test_two_runs_after_one_another_share_nothing(seed: int) -> None:
    first = simulate(CALM, seed)
    simulate(CALM, seed + 1)
    assert simulate(CALM, seed) == first


# --- nobody asks the real world -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "forbidden", [f"{module.__name__}.{name}" for module, names in FORBIDDEN for name in names]
)
def test_the_guard_raises_and_steps_back(forbidden: str) -> None:
    module, _, name = forbidden.rpartition(".")
    before = getattr(sys.modules[module], name)
    with pytest.raises(ForbiddenCallError, match=forbidden), forbid_outside():
        getattr(sys.modules[module], name)()
    assert getattr(sys.modules[module], name) is before


def _look_at_the_clock() -> None:
    time.monotonic()


def _draw() -> None:
    random.random()


def _ask_the_kernel() -> None:
    os.urandom(8)


def _connect() -> None:
    socket.socket()


def _sleep() -> None:
    time.sleep(0)


@pytest.mark.parametrize("act", [_look_at_the_clock, _draw, _ask_the_kernel, _connect, _sleep])
def test_an_engine_that_asks_the_real_world_fails_its_run(act: Callable[[], None], seed: int) -> None:
    class Curious(SimplexEngine):
        def step(self, event: Event) -> tuple[Effect, ...]:
            act()
            return super().step(event)

    def make(config: EngineConfig, sign: Callable[[bytes], bytes]) -> SimplexEngine:
        return Curious(config, sign)

    with pytest.raises(ForbiddenCallError):
        simulate(CALM, seed, make)


def test_no_module_of_a_run_holds_a_clock_by_its_own_name() -> None:
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
        if module_name.split(".")[0] == "consensus" or module_name.startswith("node.simulation")
        for name, value in vars(module).items()
        if id(value) in forbidden
    ]
    assert held == []


# --- faults -------------------------------------------------------------------------------------------


def _draw_many(links: Links, count: int = 2_000) -> list[tuple[int, ...]]:
    return [links.draw_delays_ms(0, 1) for _ in range(count)]


def test_links_lose_repeat_and_delay_the_shares_they_are_told(seed: int) -> None:
    links = Links(random.Random(seed))
    links.set_latency(5, 10)
    links.loss, links.duplication, links.slow_share = 0.1, 0.2, 0.3
    delays = _draw_many(links)
    assert 0.07 < sum(copies == () for copies in delays) / len(delays) < 0.13
    assert 0.16 < sum(len(copies) == 2 for copies in delays) / len(delays) < 0.24
    assert 0.25 < sum(max(copies, default=0) > 10 for copies in delays) / len(delays) < 0.35
    assert {delay for copies in delays for delay in copies} == {
        *range(5, 11),
        *(SLOW_FACTOR * delay for delay in range(5, 11)),
    }
    links.heal()
    assert all(len(copies) == 1 and 5 <= copies[0] <= 10 for copies in _draw_many(links))


def test_a_latency_with_a_tail_is_mostly_short(seed: int) -> None:
    links = Links(random.Random(seed))
    links.set_latency(1, 100, shape=3)
    delays = [copies[0] for copies in _draw_many(links)]
    assert sum(delay <= 13 for delay in delays) > len(delays) * 0.45
    assert max(delays) > 90


def test_a_cut_is_one_way_if_it_is_told_so(seed: int) -> None:
    world = EngineWorld(CALM, seed)
    faults.Partition(((0,), (1, 2)), is_one_way=True).begin(world)
    world._run_for(1)
    assert {(a, b) for a in range(4) for b in range(4) if (a, b) in world.links.cut_now} == {(1, 0), (2, 0)}


def test_a_partition_in_halves_finalizes_nothing_until_it_ends(seed: int) -> None:
    def final_views(until_ms: int) -> int:
        partition = faults.Partition(((0, 1), (2, 3)), 0, until_ms)
        world = EngineWorld(SimulationConfig(**_CALM_FIELDS, faults=(partition,)), seed)
        world.run()
        return len([block for block in world.safety.chain if 0 < block.view < 3])

    assert simulate(SimulationConfig(**_CALM_FIELDS), seed).finalized > 3
    outcome = simulate(SimulationConfig(**_CALM_FIELDS, faults=(faults.Partition(((0, 1), (2, 3))),)), seed)
    assert (outcome.violation, outcome.views <= 12) == ("", True)
    assert final_views(until_ms=1) > 0


_CALM_FIELDS: dict[str, Any] = {
    "loss": 0,
    "duplication": 0,
    "slow_share": 0,
    "crashes": 0,
    "partitions": 0,
    "build_failures": 0,
    "faulty_ms": 600,
}

KINDS = {
    "blackouts": 0.5,
    "slow_links": 1.0,
    "full_disks": 1.0,
    "failed_syncs": 1.0,
    "partitions": 1.0,
    "slow_share": 0.3,
    "duplication": 0.5,
    "build_failures": 0.5,
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_fault_alone_leaves_its_mark_and_is_survived(kind: str, seed: int) -> None:
    config = SimulationConfig(**{**_CALM_FIELDS, kind: KINDS[kind], "faulty_ms": 1_600})
    outcomes = [simulate(config, seed + number) for number in range(8)]
    assert {outcome.violation for outcome in outcomes} == {""}
    calm = SimulationConfig(**{**_CALM_FIELDS, "faulty_ms": 1_600})
    assert all(outcome != simulate(calm, outcome.seed) for outcome in outcomes)
    if kind in ("blackouts", "full_disks", "failed_syncs"):
        assert sum(outcome.crashes for outcome in outcomes) > 0


def test_a_damaged_journal_is_noticed_and_its_node_signs_again_when_others_went_on(seed: int) -> None:
    config = SimulationConfig(**{**_CALM_FIELDS, "crashes": 0.01, "flipped_bits": 0.8, "faulty_ms": 4_000})
    told: list[str] = []
    for number in range(12):
        world = EngineWorld(config, seed + number)
        note = world.note

        def remember(what: str, node: int, note: Callable[[str, int], None] = note) -> None:
            told.append(what.split(" ", maxsplit=1)[0])
            note(what, node)

        world.note = remember  # type: ignore[method-assign]
        assert world.run() == ""
    assert told.count("observes") >= told.count("a") > 0  # "a bit of its journal flips"
    assert told.count("signs") > 0


def test_what_damages_a_second_journal_waits_until_the_first_node_signs_again() -> None:
    """Seed 2000856: one may sign above view 10, another's journal breaks in view 10, and two of four sign."""
    config = SimulationConfig(
        loss=0.15,
        crashes=0.01,
        blackouts=0.1,
        slow_links=0.3,
        flipped_bits=0.5,
        full_disks=0.1,
        failed_syncs=0.1,
        faulty_ms=3_000,
    )
    assert simulate(config, 2_000_856).violation == ""


def test_a_node_that_restarts_far_behind_may_fetch_blocks_of_views_it_has_no_rounds_of() -> None:
    """Seed 1016747, of 50,000: the check on memory took six fetched blocks for a leak."""
    assert simulate(SimulationConfig(), 1_016_747).violation == ""


def test_who_comes_back_without_the_final_block_does_not_sign_past_the_epochs_end() -> None:
    """Seed 5504462, of 10,000 with epochs."""
    assert simulate(SimulationConfig(epoch_blocks=3), 5_504_462).violation == ""


def test_a_fault_is_one_small_class(seed: int) -> None:
    """As docs/ tells students: nothing else has to be changed."""

    class Deaf:
        """Node 0 hears nobody."""

        def check(self, nodes: int) -> None:
            pass

        def begin(self, world: World) -> None:
            world.cut("deaf", frozenset((other, 0) for other in range(1, len(world.hosts))))

    world = EngineWorld(SimulationConfig(**_CALM_FIELDS, faults=(Deaf(),)), seed)
    assert world.run() == ""
    assert world.safety.places[0][1] > 0  # it caught up after healing


# --- the command --------------------------------------------------------------------------------------


def test_a_partition_is_read_from_text_and_told_in_the_replay_command() -> None:
    partition = parse_partition("0,1|2,3@500-900")
    assert partition == faults.Partition(((0, 1), (2, 3)), 500, 900)
    config = SimulationConfig(villains=("nullifier@1",), faults=(partition,))
    assert format_replay(config, 3) == (
        'assay simulate --nodes 4 --villain nullifier@1 --partition "0,1|2,3@500-900" --seed 3'
    )


@pytest.mark.parametrize(
    "words",
    [
        ["--partition", "0,1"],
        ["--partition", "0|9"],
        ["--partition", "a|b"],
        ["--villain", "nobody"],
        ["--villain", "silent", "--villain", "silent"],
        ["--jobs", "-1"],
        ["--trace", "--json"],
        ["--scenario", "no such file"],
        ["--scenario", "x", "--loss", "0.1"],
        ["--html", "/no/such/folder/x.html"],
        ["--flipped-bits", "1.5"],
    ],
)
def test_bad_use_is_told_in_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(
            ["simulate", "--faulty-ms", "100", *words] if "--scenario" not in words else ["simulate", *words]
        )
        == 2
    )
    assert capsys.readouterr().err.count("\n") == 1


def test_a_violation_is_told_with_the_command_that_replays_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_one(task: object, seeds: Sequence[int], jobs: int) -> list[Outcome]:
        return [Outcome(seeds[0], "agreement: two blocks", "00" * 32, 1, 1, 1, 1, 1, 0)]

    monkeypatch.setattr("node.simulation.runs.run_many", find_one)
    assert main(["simulate", "--loss", "0.2", "--seed", "9"]) == 1
    assert "replay: assay simulate --nodes 4 --loss 0.2 --seed 9" in capsys.readouterr().err


def test_a_partition_needs_two_sides_of_nodes_that_exist() -> None:
    with pytest.raises(Rejected, match="sides"):
        SimulationConfig(faults=(faults.Partition(((0,),)),))


def test_a_scenario_is_acted_out_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--scenario", "split-after-notarization", "--runs", "2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["runs"], report["violations"]) == (2, 0)
