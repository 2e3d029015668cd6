"""Garbage is collected in every process that stays, whatever was switched off to start it sooner."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from consensus.errors import Rejected
from node.commands import localnet
from node.process import quieten_collector


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.enable()
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def test_a_node_collects_though_who_forked_it_did_not() -> None:
    gc.disable()
    quieten_collector()
    assert gc.isenabled()


def test_a_network_that_could_not_start_leaves_the_collector_on(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    localnet.add_arguments(parser)
    with pytest.raises(Rejected):
        localnet.run(parser.parse_args(["--home", str(tmp_path / "net"), "--nodes", "0"]))
    assert gc.isenabled()
