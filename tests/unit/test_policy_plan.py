"""How a node is told which policy modules to run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consensus.errors import Rejected
from node.config import NodeConfig, read_config, write_config
from node.policies.plan import PolicyPlan, load_policies, parse_policy

SETTINGS = NodeConfig("node0", 1, 2)


def broken(settings: Mapping[str, Any]) -> None:
    raise ZeroDivisionError("by nothing")


def test_a_name_alone_takes_the_defaults() -> None:
    assert parse_policy("sender-limit") == PolicyPlan("sender-limit", {}, 100, "skip")


def test_keys_and_values_are_the_modules_but_for_deadline_and_failure() -> None:
    plan = parse_policy("sender-limit=count=5,window=10s,deadline_ms=20,on_failure=refuse")
    assert plan == PolicyPlan("sender-limit", {"count": "5", "window": "10s"}, 20, "refuse")


def test_a_file_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "limit.json"
    path.write_text(json.dumps({"count": 5, "deadline_ms": 20}))
    assert parse_policy(f"sender-limit={path}") == PolicyPlan("sender-limit", {"count": 5}, 20)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no module"),
        ("=count=5", "names no module"),
        ("p=count=5,count=6", "is not one new key=value"),
        ("p=absent.json", "absent.json: cannot be read"),
        ("p=deadline_ms=0", "policy p: deadline_ms"),
        ("p=deadline_ms=soon", "policy p: deadline_ms"),
        ("p=on_failure=explode", "policy p: on_failure"),
    ],
)
def test_a_bad_plan_is_told(text: str, words: str) -> None:
    with pytest.raises(Rejected, match=words):
        parse_policy(text)


def test_plans_stand_in_node_json(tmp_path: Path) -> None:
    settings = replace(SETTINGS, policies=(PolicyPlan("sender-limit", {"count": 5}, 20, "refuse"),))
    write_config(tmp_path, settings)
    assert read_config(tmp_path) == settings


@pytest.mark.parametrize(
    "entry", [{}, "sender-limit", {"name": "p", "count": 5}, {"name": "p", "settings": []}]
)
def test_a_bad_entry_of_node_json_is_refused(tmp_path: Path, entry: Any) -> None:
    write_config(tmp_path, SETTINGS)
    document = json.loads((tmp_path / "node.json").read_text()) | {"policies": [entry]}
    (tmp_path / "node.json").write_text(json.dumps(document))
    with pytest.raises(Rejected, match=r"policies|policy p"):
        read_config(tmp_path)


def test_two_of_a_name_are_told_apart() -> None:
    loaded = load_policies([PolicyPlan("sender-limit"), PolicyPlan("sender-limit", {"count": 5})])
    assert [entry.label for entry in loaded] == ["sender-limit", "sender-limit#2"]


def test_a_module_that_cannot_be_made_is_named_before_anything_runs() -> None:
    with pytest.raises(Rejected, match=r"cannot be made \(ZeroDivisionError: by nothing\)"):
        load_policies([PolicyPlan(f"{__name__}:broken")])
    with pytest.raises(Rejected, match="at most 16 run"):
        load_policies([PolicyPlan("sender-limit")] * 17)
