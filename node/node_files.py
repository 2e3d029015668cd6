"""What a home says of one node, read once: a node takes it as a noun and reads no home itself.

Tests and simulated worlds make one out of nothing, and nodes of one chain may share its Rules, which are
frozen. Invariant: settings and keys are this node's own, the rules its chain's.
Leaves out: how a home is laid out (`home.py`) and its files' form (`config.py`, `modules.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from consensus.crypto import PrivateKey
from consensus.ledger.rules import Rules
from node import config, modules
from node.engine import voting_keys


@dataclass(frozen=True, slots=True)
class NodeFiles:
    """home: where the node's store and journal go, on whatever disk it is given.

    validator_key: of the account that operates the validator, and what it votes with until it rotates that; None for an
    observer. read_voting_keys: those that it rotated to, as the home has them when it is asked.
    """

    home: Path
    settings: config.NodeConfig
    rules: Rules
    node_key: PrivateKey
    validator_key: PrivateKey | None
    read_voting_keys: Callable[[], Sequence[PrivateKey]] = tuple


def read_node_files(home: Path) -> NodeFiles:
    """Everything in a home but what the node itself writes there. Raises Rejected naming file and field."""
    settings = config.read_config(home)
    genesis = config.read_genesis(home)
    rules = modules.make_rules(genesis, home)
    validator_path = home / "validator.key"
    return NodeFiles(
        home,
        settings,
        rules,
        config.read_key(home / "node.key"),
        config.read_key(validator_path) if validator_path.exists() else None,
        partial(voting_keys.read_voting_keys, home),
    )
