"""The views in which a node has signed, by its journal: what shows that a validator takes part."""

from __future__ import annotations

from collections.abc import Sequence

from consensus.bft.contract import Proposal
from consensus.bft.restore import Record
from consensus.vote import Certificate
from node.engine.journal import read_journal
from tests.integration.network_process import NetworkProcess


def get_own_views(records: Sequence[Record]) -> list[int]:
    """Views of own votes and proposals; certificates are in every journal."""
    return [
        record.block.view if isinstance(record, Proposal) else record.subject.view
        for record in records
        if not isinstance(record, Certificate)
    ]


def read_own_views(network: NetworkProcess, index: int) -> list[int]:
    return get_own_views(list(read_journal(network.get_home(index) / "journal")))
