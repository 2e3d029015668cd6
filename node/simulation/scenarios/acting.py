"""Acting a scenario out, and holding what came of it against what it expects."""

from __future__ import annotations

from dataclasses import dataclass

from consensus.bft.simplex import SimplexEngine
from node.simulation.config import Outcome
from node.simulation.engine_world import MakeSimulated
from node.simulation.scenarios.expectations import Facts, judge_words
from node.simulation.scenarios.plan import Scenario
from node.simulation.scenarios.script import Scripted
from node.simulation.scenarios.stage import Stage


@dataclass(frozen=True, slots=True)
class ScenarioOutcome:
    """What came of it. failures: the expectations that did not come true, each with its line and reason."""

    title: str
    run: Outcome
    facts: Facts
    failures: tuple[str, ...]

    @property
    def is_as_expected(self) -> bool:
        return not self.failures


def make_stage(scenario: Scenario, seed: int, make_engine: MakeSimulated = SimplexEngine) -> Scripted:
    """The world that a scenario plays in. Raises Rejected for a bad one."""
    if not scenario.is_full:
        return Stage(scenario, seed, make_engine)
    from node.simulation.scenarios.node_stage import NodeStage  # engines alone load no model

    return NodeStage(scenario, seed, make_engine)


def act_out(
    scenario: Scenario, seed: int | None = None, make_engine: MakeSimulated = SimplexEngine
) -> ScenarioOutcome:
    """One run of a scenario, with its own seed unless told another. Raises Rejected for a bad one."""
    seed = scenario.seed if seed is None else seed
    stage = make_stage(scenario, seed, make_engine)
    violation = stage.run()
    facts = stage.gather_facts(violation)
    if violation and not any("violation" in expected.words[:1] for expected in scenario.expectations):
        failures = [f"violated: {violation}"]  # the run ended there: the rest could not come true
    else:
        failures = [
            f"line {expected.line}: expect {expected.text}: {reason}"
            for expected in scenario.expectations
            if (reason := judge_words(expected.words, facts))
        ]
    return ScenarioOutcome(scenario.title, stage.summarize(violation), facts, tuple(failures))
