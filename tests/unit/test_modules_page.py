"""docs/modules.md: its examples, run as they are printed, keep their contracts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ml.discovery import load_policy
from ml.policy import Decision
from node.conformance.command import run_checks
from node.conformance.module_checks import MODULE_CHECKS, Subject
from node.conformance.policy_checks import POLICY_CHECKS, PolicySubject
from node.policies.plan import parse_policy

PAGE = Path(__file__).resolve().parents[2] / "docs" / "modules.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(params=range(2), ids=["consensus", "policy"])
def example(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name under which the example on the page can be loaded, here and in other processes."""
    name = f"printed_example_{request.param}"
    (tmp_path / f"{name}.py").write_text(EXAMPLES[request.param], encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return f"{name}:load"


def test_the_page_shows_one_example_of_each_kind() -> None:
    assert len(EXAMPLES) == 2
    assert all(len([line for line in text.splitlines() if line.strip()]) <= 25 for text in EXAMPLES)


def test_each_example_passes_the_kit(example: str) -> None:
    if example.startswith("printed_example_0"):
        checks = [entry for entry in MODULE_CHECKS if entry[0] != "cost"]  # a matter of the machine
        results = run_checks(checks, Subject(example, b"", 7))
    else:
        results = run_checks(POLICY_CHECKS, PolicySubject(example, {"amount": "5000"}, 1_000, 7))
    assert [result for result in results if not result.ok] == []


@pytest.mark.parametrize("example", [1], indirect=True, ids=["policy"])
def test_the_policy_holds_large_payments_by_night_as_it_says(example: str) -> None:
    plan = parse_policy(f"{example}=amount=1,opens=7,closes=22,deadline_ms=20,on_failure=refuse")
    assert (plan.deadline_ms, plan.on_failure) == (20, "refuse")
    subject = PolicySubject(example, plan.settings, plan.deadline_ms, 1)
    opinions = load_policy(plan.name, plan.settings).judge(subject.make_batch(5))
    assert {opinion.decision for opinion in opinions} <= {Decision.ALLOW, Decision.HOLD}
