"""What this node refused lately, and why: a sender is owed an answer.

Bounded and in memory: a refusal is this node's answer of the moment, and the transaction may yet become
final through another node or at a later time. Leaves out: the provable log of refusals (a later issue).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from consensus.ledger.scoring import Explanation
from consensus.transaction import Transaction

REFUSALS_KEPT: Final = 20_000  # with their explanations some 60 MB; a replay of a month refuses fewer


@dataclass(frozen=True, slots=True)
class Refusal:
    """height: of the final block on whose state it was judged. explanations: (module name, why)."""

    transaction: Transaction
    score: int
    height: int
    explanations: tuple[tuple[str, Explanation], ...]


class Refusals:
    def __init__(self, count_max: int = REFUSALS_KEPT) -> None:
        self._count_max = count_max
        self._by_id: OrderedDict[bytes, Refusal] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_id)

    def add(
        self, tx: Transaction, score: int, height: int, explanations: tuple[tuple[str, Explanation], ...]
    ) -> None:
        self._by_id[tx.id] = Refusal(tx, score, height, explanations)
        self._by_id.move_to_end(tx.id)
        if len(self._by_id) > self._count_max:
            self._by_id.popitem(last=False)

    def get(self, transaction_id: bytes) -> Refusal | None:
        return self._by_id.get(transaction_id)
