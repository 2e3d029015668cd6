"""What a home says of a node: read once, and every fault in it names its file."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from consensus.errors import Rejected
from node import config
from node.home import NetworkPlan, create_network
from node.node_files import read_node_files


@pytest.fixture
def home(tmp_path: Path, seed: int) -> Path:
    plan = NetworkPlan(2, 20_000, block_interval_ms=250, module_names=("velocity",))
    return create_network(tmp_path / "net", plan, random.Random(seed).randbytes).homes[0]


def test_a_home_is_read_whole(home: Path) -> None:
    files = read_node_files(home)
    assert files.home == home
    assert files.settings == config.read_config(home)
    assert files.rules.genesis == config.read_genesis(home)
    assert [module.name for module in files.rules.modules] == ["velocity"]
    assert files.node_key.secret == config.read_key(home / "node.key").secret
    assert files.validator_key is not None
    assert files.rules.validators.get_index(files.validator_key.public_key) is not None


def test_a_home_without_a_validator_key_is_an_observers(home: Path) -> None:
    (home / "validator.key").unlink()
    assert read_node_files(home).validator_key is None


@pytest.mark.parametrize("name", ["node.json", "genesis.json", "node.key"])
def test_a_missing_file_is_named(home: Path, name: str) -> None:
    (home / name).unlink()
    with pytest.raises(Rejected, match=name):
        read_node_files(home)


def test_a_genesis_that_pins_another_module_is_refused(home: Path) -> None:
    document = json.loads((home / "genesis.json").read_text())
    document["modules"][0]["digest"] = "0x" + "11" * 32
    (home / "genesis.json").write_text(json.dumps(document))
    with pytest.raises(Rejected, match="module velocity"):
        read_node_files(home)
