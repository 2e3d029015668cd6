"""The Twins simulator's own cases, translated (node/simulation/scenarios/twins.py): 100 generated ones,
and the attacks on Streamlet and on Fast-HotStuff. Simplex keeps one chain in all of them.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from node.simulation.scenarios import run_scenario
from node.simulation.scenarios.twins import translate_all


def load(find: Callable[[str], Path], name: str, lasting_ms: int = 300) -> list[str]:
    path = find(f"vectors/twins/{name}.json")
    return translate_all(json.loads(path.read_text()), name, lasting_ms)


def test_the_hundred_generated_cases_neither_fork_nor_halt_and_give_the_twin_away(
    shared_path: Callable[[str], Path],
) -> None:
    cases = load(shared_path, "test_scenarios")
    assert len(cases) == 100
    accused = 0
    for text in cases:
        outcome = run_scenario(text)
        assert outcome.failures == (), text
        assert outcome.facts.accused <= {0}
        accused += bool(outcome.facts.accused)
    assert accused > 90


@pytest.mark.parametrize("lasting_ms", [100, 300, 700])
@pytest.mark.parametrize("name", ["streamlet_twins", "fhs_twins"])
def test_the_attacks_on_other_protocols_do_not_work_here(
    name: str, lasting_ms: int, shared_path: Callable[[str], Path]
) -> None:
    for text in load(shared_path, name, lasting_ms):
        outcome = run_scenario(text)
        assert outcome.failures == (), text
        assert outcome.facts.accused <= {0}
