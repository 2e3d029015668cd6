"""Modules of a chain: found by name, pinned by digest; a wrong or damaged artifact shows at start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from consensus.errors import Rejected
from consensus.genesis import Genesis
from consensus.ledger.rules import Rules
from consensus.ledger.scoring import REFUSE_NEVER
from node import modules
from tests.chain_factory import ChainFactory


def make_genesis(*names: str, refuses: bool = True) -> tuple[Genesis, dict[bytes, bytes]]:
    entries, artifacts = modules.plan_modules(names, refuses=refuses)
    return replace(ChainFactory().rules.genesis, modules=entries), artifacts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path


def test_what_is_planned_is_loaded_from_the_home_in_genesis_order(folder: Path) -> None:
    genesis, artifacts = make_genesis("velocity", "fraud")
    for digest, artifact in artifacts.items():
        modules.write_artifact(folder, digest, artifact)
    loaded = modules.load_modules(genesis, folder)
    assert [module.name for module in loaded] == ["velocity", "fraud"]
    assert [module.digest for module in loaded] == [entry.digest for entry in genesis.modules]
    Rules(genesis, loaded)


def test_an_artifact_that_is_not_in_the_home_is_taken_from_those_that_ship(folder: Path) -> None:
    genesis, artifacts = make_genesis("fraud")
    assert modules.load_modules(genesis, folder)[0].digest == genesis.modules[0].digest
    assert modules.find_artifacts(genesis) == artifacts


def test_of_one_artifact_one_module_serves_every_node_that_is_forked_later(tmp_path: Path) -> None:
    genesis, artifacts = make_genesis("fraud")
    ((digest, artifact),) = artifacts.items()
    homes = tmp_path / "node0", tmp_path / "node1"
    for home in homes:
        (home / "models").mkdir(parents=True)
        modules.write_artifact(home, digest, artifact)
    first, second = (modules.load_modules(genesis, home) for home in homes)
    assert first[0] is second[0]


def test_a_model_file_cut_short_or_changed_is_refused_by_name(folder: Path) -> None:
    genesis, artifacts = make_genesis("fraud")
    ((digest, artifact),) = artifacts.items()
    for bad in (artifact[:-1], artifact[: len(artifact) // 2], artifact + b"\0", artifact[:-1] + b"\xff"):
        modules.write_artifact(folder, digest, bad)
        with pytest.raises(Rejected):
            modules.load_modules(genesis, folder)


def test_another_digest_than_genesis_pins_is_refused_and_both_are_named(folder: Path) -> None:
    genesis, _ = make_genesis("fraud")
    other = replace(genesis, modules=(replace(genesis.modules[0], digest=b"\7" * 32),))
    for load in (lambda: modules.load_modules(other, folder), lambda: modules.find_artifacts(other)):
        with pytest.raises(Rejected, match="0707"):
            load()


def test_an_artifact_too_large_is_not_read(folder: Path) -> None:
    genesis, artifacts = make_genesis("fraud")
    ((digest, _),) = artifacts.items()
    modules.write_artifact(folder, digest, bytes(modules.ARTIFACT_BYTES_MAX + 1))
    with pytest.raises(Rejected, match="larger than"):
        modules.load_modules(genesis, folder)


def test_an_unknown_module_is_refused(folder: Path) -> None:
    with pytest.raises(Rejected, match="nonesuch"):
        modules.plan_modules(("nonesuch",), refuses=True)
    genesis, _ = make_genesis("velocity")
    other = replace(genesis, modules=(replace(genesis.modules[0], name="nonesuch"),))
    with pytest.raises(Rejected, match="nonesuch"):
        modules.load_modules(other, folder)


def test_without_refusals_modules_only_score_and_flag() -> None:
    with_refusals, _ = make_genesis("fraud")
    without, _ = make_genesis("fraud", refuses=False)
    assert with_refusals.modules[0].refuse_score_min < REFUSE_NEVER
    assert without.modules[0].refuse_score_min == REFUSE_NEVER
    assert without.modules[0].flag_score_min == with_refusals.modules[0].flag_score_min
