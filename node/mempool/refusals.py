"""What this node refused lately, and why: a sender is owed an answer.

Bounded and in memory: a refusal is this node's answer of the moment, and the transaction may yet become
final through another node or at a later time. Leaves out: the provable log of refusals, which outlives the
process (`node/duties/refusal_keeper.py`, told of each by `on_added`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from consensus.ledger.scoring import Counterfactual, Explanation
from consensus.ledger.seating import compute_modules_digest
from consensus.transaction import Transaction

if TYPE_CHECKING:
    from consensus.ledger.rules import Rules
    from consensus.ledger.state import View

FindChanges = Callable[[], tuple[tuple[str, tuple[Counterfactual, ...]], ...]]

RELATED_MAX: Final = 32  # rows kept for one refusal's counterfactuals: 33 accounts at most, 7 kB
CHANGES_KEPT: Final = 1_000  # refusals whose counterfactuals can be asked for: 7 MB at most, usually a tenth
REFUSALS_KEPT: Final = 20_000  # with their explanations some 60 MB; a replay of a month refuses fewer


@dataclass(frozen=True, slots=True)
class Judged:
    """A transaction as a module judged it: on a state, after the others of a batch (oldest first)."""

    transaction: Transaction
    score: int
    view: View
    before: Sequence[Transaction]

    def explain(self, rules: Rules) -> tuple[tuple[str, Explanation], ...]:
        """Why, exactly: judged again after those that share an account with it, directly or in turn."""
        batch = self._list_related()
        return rules.explain(self.view, batch, len(batch) - 1)

    def prepare_counterfactuals(self, rules: Rules) -> FindChanges | None:
        """What would have had to change, to be asked later; None where that would keep too much in memory."""
        batch = self._list_related()
        return (
            rules.prepare_counterfactuals(self.view, batch, len(batch) - 1)
            if len(batch) <= RELATED_MAX
            else None
        )

    def _list_related(self) -> list[Transaction]:
        accounts = {self.transaction.sender, self.transaction.receiver}
        related: list[Transaction] = []
        for tx in reversed(self.before):
            if tx.sender in accounts or tx.receiver in accounts:
                accounts.update((tx.sender, tx.receiver))
                related.append(tx)
        return [*reversed(related), self.transaction]


@dataclass(frozen=True, slots=True)
class Refusal:
    """height: of the block on whose state it was judged. explanations: (module name, why).

    modules_digest: of the modules that judged, as that state names them.
    """

    transaction: Transaction
    score: int
    height: int
    explanations: tuple[tuple[str, Explanation], ...]
    modules_digest: bytes

    @property
    def reasons(self) -> tuple[str, ...]:
        """In words, what spoke against it; each module's largest first."""
        return tuple(
            contribution.words
            for _, explanation in self.explanations
            for contribution in explanation.contributions
            if contribution.contribution > 0
        )


class Refusals:
    """The last so many. `on_added` is told of each."""

    def __init__(self, count_max: int = REFUSALS_KEPT) -> None:
        self._count_max = count_max
        self._by_id: OrderedDict[bytes, Refusal] = OrderedDict()
        self._changes: OrderedDict[bytes, FindChanges] = OrderedDict()
        self.on_added: Callable[[Refusal], None] = lambda _: None

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, judged: Judged, rules: Rules) -> None:
        """Keep it with its explanation."""
        tx = judged.transaction
        height = judged.view.header.height
        digest = compute_modules_digest(judged.view.modules_record)
        refusal = Refusal(tx, judged.score, height, judged.explain(rules), digest)
        self._by_id[tx.id] = refusal
        self._by_id.move_to_end(tx.id)
        if len(self._by_id) > self._count_max:
            self._by_id.popitem(last=False)
        self._keep_changes(tx.id, judged.prepare_counterfactuals(rules))
        self.on_added(refusal)

    def _keep_changes(self, transaction_id: bytes, find: FindChanges | None) -> None:
        self._changes.pop(transaction_id, None)
        if find is not None:
            self._changes[transaction_id] = find
            if len(self._changes) > CHANGES_KEPT:
                self._changes.popitem(last=False)

    def get(self, transaction_id: bytes) -> Refusal | None:
        return self._by_id.get(transaction_id)

    def get_changes(self, transaction_id: bytes) -> FindChanges | None:
        """What to call for the counterfactuals of a refusal of late; takes some 50 ms, anywhere."""
        return self._changes.get(transaction_id)
