"""The conformance kit: sound modules pass, and every check can fail."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from ml.discovery import list_modules
from ml.velocity import VelocityModule
from node.__main__ import main
from node.conformance.command import run_checks
from node.conformance.module_checks import MODULE_CHECKS, Subject
from node.conformance.policy_checks import POLICY_CHECKS, PolicySubject
from node.conformance.processes import list_cpu_features, list_variants
from node.conformance.stream import find_components, make_stream, split
from tests.fakes.bad_modules import BAD_MODULES, BAD_POLICIES

FAKES = "tests.fakes.bad_modules"
FAILING = [(check, name) for check, names in BAD_MODULES.items() for name in names]
FAILING_POLICIES = [(check, name) for check, names in BAD_POLICIES.items() for name in names]


@pytest.mark.parametrize("name", list_modules())
def test_every_installed_module_keeps_the_contract(name: str) -> None:
    shipped = files("ml") / "models" / f"{name}.model"
    subject = Subject(name, shipped.read_bytes() if shipped.is_file() else b"", 11)
    # What a busy machine makes slow is measured by the bench, not here.
    checks = [(check, function) for check, function in MODULE_CHECKS if check != "cost"]
    assert [result for result in run_checks(checks, subject) if not result.ok] == []


def test_a_sound_module_passes_every_check_from_any_seed() -> None:
    checks = [entry for entry in MODULE_CHECKS if entry[0] not in ("cost", "processes")]
    for seed in range(5):
        assert [r for r in run_checks(checks, Subject(f"{FAKES}:Good", b"artifact", seed)) if not r.ok] == []


@pytest.mark.parametrize(("check", "name"), FAILING)
def test_each_check_finds_the_module_that_breaks_its_rule(check: str, name: str) -> None:
    function = dict(MODULE_CHECKS)[check]
    (result,) = run_checks([(check, function)], Subject(f"{FAKES}:{name}", b"artifact", 3))
    assert not result.ok
    assert result.words


def test_every_check_is_seen_to_fail() -> None:
    assert set(BAD_MODULES) == {name for name, _ in MODULE_CHECKS}
    assert set(BAD_POLICIES) == {name for name, _ in POLICY_CHECKS}


@pytest.mark.parametrize(("check", "name"), FAILING_POLICIES)
def test_each_check_finds_the_policy_that_breaks_its_rule(check: str, name: str) -> None:
    function = dict(POLICY_CHECKS)[check]
    (result,) = run_checks([(check, function)], PolicySubject(f"{FAKES}:{name}", {}, 5, 3))
    assert not result.ok


def test_a_sound_policy_passes() -> None:
    checks = [entry for entry in POLICY_CHECKS if entry[0] != "patience"]
    assert all(r.ok for r in run_checks(checks, PolicySubject(f"{FAKES}:Polite", {}, 50, 3)))
    assert all(r.ok for r in run_checks(checks, PolicySubject("sender-limit", {"count": 5}, 50, 3)))


def test_processes_differ_in_hash_seed_threads_and_cpu_features() -> None:
    variables = [set(variant) for variant in list_variants().values()]
    assert any("PYTHONHASHSEED" in names and "OMP_NUM_THREADS" in names for names in variables)
    assert any("NPY_DISABLE_CPU_FEATURES" in names for names in variables) == bool(list_cpu_features())


def test_a_split_stream_has_the_same_transfers_and_reports_in_order() -> None:
    import numpy as np

    stream = make_stream(5)
    parts = split(stream, np.random.Generator(np.random.PCG64(1)))
    assert len(parts.blocks) > len(stream.blocks)
    assert stream.concatenate().amount.tolist() == parts.concatenate().amount.tolist()
    assert [r for b in stream.blocks for r in b.reported] == [r for b in parts.blocks for r in b.reported]


def test_transfers_that_share_accounts_in_turn_are_one_group() -> None:
    import numpy as np

    from consensus.ledger.scoring import TransferColumns

    column = np.array
    transfers = TransferColumns(column([1, 5, 2]), column([2, 6, 3]), column([0, 0, 0]), column([0, 0, 0]))
    assert find_components(transfers) == [0, 1, 0]


def test_the_command_tells_each_check_and_how_to_repeat_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["module", "check", f"{FAKES}:Vague", "--policy", "--seed", "9"]) == 1
    told = capsys.readouterr().out
    assert "FAIL  methods" in told
    assert "pass  purity" in told
    assert f"assay module check {FAKES}:Vague --seed 9 --policy" in told


def test_the_command_prints_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["module", "check", f"{FAKES}:Polite", "--policy", "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert document["ok"] is True
    assert [check["check"] for check in document["checks"]] == [name for name, _ in POLICY_CHECKS]


def test_the_list_names_both_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["module", "list", "--json"]) == 0
    kinds = {row["name"]: row["kind"] for row in json.loads(capsys.readouterr().out)["modules"]}
    assert kinds["velocity"] == "consensus"
    assert kinds["sender-limit"] == "policy"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "nothing"], "is not installed"),
        (["check", "velocity", "--artifact", "absent"], "cannot be read"),
        (["check", "velocity", "--config", "a=b"], "is for policy modules"),
        (["check", "sender-limit", "--artifact", "x"], "is for consensus modules"),
        (["check", "velocity", "--seed", "-1"], "--seed"),
    ],
)
def test_bad_use_is_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["module", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_module_of_another_artifact_is_read_from_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "limit").write_bytes(b"3")
    code = main(["module", "check", "velocity", "--artifact", str(tmp_path / "limit"), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["digest"] == "0x" + VelocityModule(3).digest.hex()
    # What a busy machine makes slow is measured by the bench, not here.
    assert {check["check"] for check in document["checks"] if not check["ok"]} <= {"cost"}
    assert code == (0 if document["ok"] else 1)
