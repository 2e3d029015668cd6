"""Scenarios: text files that tell a story of faults and carry their expected outcome.

    outcome = run_scenario(load_scenario("split-after-notarization"))

The files beside this package are installed; any other path does as well. language.py has the grammar,
expectations.py what may be expected, twins.py the cases of other people's Twins generators.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from consensus.bft.simplex import SimplexEngine
from consensus.errors import Rejected
from node.simulation.engine_world import MakeSimulated
from node.simulation.scenarios.acting import ScenarioOutcome, act_out
from node.simulation.scenarios.language import parse_scenario
from node.simulation.scenarios.plan import Scenario

SUFFIX = ".txt"


def list_scenarios() -> tuple[str, ...]:
    """The names of the scenarios that come with the package."""
    stories = files(__name__) / "stories"
    return tuple(
        sorted(entry.name.removesuffix(SUFFIX) for entry in stories.iterdir() if entry.name.endswith(SUFFIX))
    )


def load_scenario(path: str | Path) -> str:
    """The text of a file, or of one that comes with the package by its bare name. Raises Rejected."""
    if str(path) in list_scenarios():
        return (files(__name__) / "stories" / f"{path}{SUFFIX}").read_text(encoding="utf-8")
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        names = ", ".join(list_scenarios())
        raise Rejected(
            f'"{path}" cannot be read ({type(error).__name__})',
            field="--scenario",
            mend=f"name a file, or one of {names}",
        ) from None


def run_scenario(
    text: str, seed: int | None = None, make_engine: MakeSimulated = SimplexEngine
) -> ScenarioOutcome:
    """Act a scenario's text out. Raises Rejected when the text is not one."""
    return act_out(parse_scenario(text), seed, make_engine)


__all__ = ["Scenario", "ScenarioOutcome", "list_scenarios", "load_scenario", "parse_scenario", "run_scenario"]
