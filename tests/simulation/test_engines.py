"""Engines alone in the deterministic world: loss, cuts, crashes and an equivocator, by the seed.

Each run checks every safety invariant as it goes, then heals the world and waits for finality.
"""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from consensus.bft.simplex import EngineConfig, SimplexEngine
from consensus.errors import Rejected
from node.__main__ import main
from node.commands.simulate import format_replay
from node.simulation.config import SimulationConfig
from node.simulation.engine_world import simulate
from tests.fakes.broken_engines import Amnesiac, Hasty

ROUGH = SimulationConfig(loss=0.1, crashes=0.001, blackouts=0.1, partitions=0.3, faulty_ms=5_000)
MIXES = {
    "rough": ROUGH,
    "an equivocator": replace(ROUGH, equivocators=1),
    "a quorum and no more": replace(ROUGH, absent=1, partitions=0.1),
    "unequal stakes": replace(ROUGH, nodes=5, stakes=(30, 25, 20, 15, 10), equivocators=1),
    "two equivocators of seven": replace(ROUGH, nodes=7, equivocators=2, faulty_ms=3_000),
}


# 5 mixes of 40 runs: 200 in all.
@pytest.mark.parametrize("mix", MIXES)
def test_forty_seeded_runs_hold(mix: str, seed: int, note_replay: Callable[[str], None]) -> None:
    evidence = crashes = 0
    for number in range(40):
        outcome = simulate(MIXES[mix], seed + number)
        if outcome.violation:
            note_replay(format_replay(MIXES[mix], outcome.seed))
        assert outcome.violation == ""
        evidence += outcome.evidence
        crashes += outcome.crashes
        assert outcome.finalized > 0
    assert crashes > 0
    assert (evidence > 0) == (MIXES[mix].equivocators > 0)


def test_a_crash_at_each_boundary_between_effects_is_survived(
    seed: int, note_replay: Callable[[str], None]
) -> None:
    calm = SimulationConfig(loss=0, partitions=0, crashes=0, faulty_ms=1_000)
    for boundary in range(200):  # some three views
        config = replace(calm, crash_at=boundary)
        outcome = simulate(config, seed)
        if outcome.violation:
            note_replay(format_replay(config, seed))
        assert (outcome.violation, outcome.crashes) == ("", 1)


def test_the_same_seed_gives_the_same_trace_and_another_another(seed: int) -> None:
    config = MIXES["an equivocator"]
    first, again, other = simulate(config, seed), simulate(config, seed), simulate(config, seed + 1)
    assert first == again
    assert first.trace_hash != other.trace_hash


def test_an_undisturbed_network_loses_no_view(seed: int) -> None:
    calm = SimulationConfig(
        loss=0, duplication=0, slow_share=0, crashes=0, partitions=0, build_failures=0, faulty_ms=5_000
    )
    outcome = simulate(calm, seed)
    assert outcome.violation == ""
    assert outcome.views - outcome.finalized <= 2


def test_one_validator_alone_and_many_together(seed: int) -> None:
    for nodes in (1, 2, 13):
        config = SimulationConfig(nodes=nodes, faulty_ms=1_500)
        outcome = simulate(config, seed)
        assert outcome.violation == ""


@pytest.mark.parametrize(
    ("mutant", "complaint"), [(Amnesiac, "no way back|single votes"), (Hasty, "single votes")]
)
def test_the_checkers_see_a_broken_engine(mutant: type[SimplexEngine], complaint: str, seed: int) -> None:
    def make(config: EngineConfig, sign: Callable[[bytes], bytes]) -> SimplexEngine:
        return mutant(config, sign)

    violations = [simulate(ROUGH, seed + number, make).violation for number in range(10)]
    assert any(any(word in violation for word in complaint.split("|")) for violation in violations)


def test_a_third_of_the_stake_in_villains_is_refused() -> None:
    with pytest.raises(Rejected, match="a third"):
        SimulationConfig(nodes=3, equivocators=1)
    with pytest.raises(Rejected, match="a third"):
        SimulationConfig(nodes=4, stakes=(2, 2, 1, 1), equivocators=1)


def test_the_command_prints_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["simulate", "--nodes", "4", "--seed", "7", "--runs", "2", "--faulty-ms", "500", "--json"]) == 0
    )
    report = json.loads(capsys.readouterr().out)
    assert set(report) == {
        "runs",
        "violations",
        "seed",
        "trace_hash",
        "views",
        "finalized",
        "runs_per_second",
    }
    assert (report["runs"], report["violations"], report["seed"]) == (2, 0, 7)


@pytest.mark.parametrize(
    "words", [["--nodes", "0"], ["--runs", "0"], ["--stakes", "3,x"], ["--loss", "2"], ["--nodes", "many"]]
)
def test_bad_use_is_one_line_and_exit_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_replay_command_names_what_differs_from_the_defaults() -> None:
    config = SimulationConfig(nodes=5, stakes=(30, 25, 20, 15, 10), loss=0.2, equivocators=1)
    assert format_replay(config, 9) == (
        "assay simulate --nodes 5 --loss 0.2 --equivocators 1 --stakes 30,25,20,15,10 --seed 9"
    )
