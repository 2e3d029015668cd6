"""What honest nodes of a simulated network saw of lies, and will bring to the chain.

Invariant: an accusation counts for as long as the node lives that saw the lie; it remembers none after its
end. Leaves out: whether what it saw was a lie (`node/simulation/checkers.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

from consensus.vote import Evidence
from node.simulation.full_nodes.host import NodeHost
from node.simulation.full_nodes.plain_ledger import PlainLedger


class Accusations:
    """One run's. ledger: what is final anywhere."""

    def __init__(self, ledger: PlainLedger, hosts: Sequence[NodeHost]) -> None:
        self._ledger = ledger
        self._hosts = hosts
        self._made: list[tuple[int, int, bytes]] = []  # by node, in which life; the liar's operator

    def note(self, host: NodeHost, evidence: Evidence) -> None:
        """An honest node will bring this to the chain, if it lives, and if the chain still takes it."""
        stakes, epoch = self._ledger.stakes, evidence.first.subject.epoch
        if stakes is not None and epoch >= stakes.epoch - 1:
            operator = stakes.sets[epoch][evidence.first.signer].operator
            self._made.append((host.index, host.incarnation, operator))

    def are_answered(self) -> bool:
        """Whether all are punished whom an honest node accused that has lived since."""
        stakes = self._ledger.stakes
        waiting = {
            operator
            for index, incarnation, operator in self._made
            if self._hosts[index].node is not None and self._hosts[index].incarnation == incarnation
        }
        return stakes is None or waiting <= set(stakes.slashed)
