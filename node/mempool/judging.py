"""What the modules say of a batch at the mempool's door: the same as they would of a block of it.

Invariant: each of the batch has its score and outcome, in order, and no refused one counts against its neighbours
once it is known to be refused. Leaves out: what becomes of the refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from consensus.ledger import scoring
from consensus.ledger.state import View
from consensus.transaction import Transaction
from node.mempool.refusals import Judged

if TYPE_CHECKING:
    from consensus.ledger.rules import Rules

JUDGE_ROUNDS_MAX: Final = 4  # each round settles at least the first refusal of every chain of accounts


def judge_batch(
    rules: Rules, view: View, ready: Sequence[Transaction], on_refusal: Callable[[Judged], None]
) -> list[tuple[int, int]]:
    """(score, outcome) of each, as a block of them would be judged whose refused ones are left out.

    on_refusal: told of each refused one, and after what it was judged.

    A score counts earlier transactions of the same accounts. One that is refused after another
    refused one of its accounts is judged again without that; in doubt it is let in, flagged: the
    proposer judges it again.
    """
    results: dict[bytes, tuple[int, int]] = {}
    left = list(ready)
    for _ in range(JUDGE_ROUNDS_MAX):
        if not left:
            break
        verdicts = rules.evaluate(view, left)
        refused: set[bytes] = set()
        tainted: set[bytes] = set()
        is_settled = True
        judged = zip(left, verdicts.score.tolist(), verdicts.outcome.tolist(), strict=True)
        for index, (tx, score, outcome) in enumerate(judged):
            if outcome != scoring.REFUSE:
                results[tx.id] = (score, outcome)
            elif tx.sender in tainted or tx.receiver in tainted:
                results[tx.id] = (score, scoring.FLAG)
                is_settled = False
            else:
                results[tx.id] = (score, outcome)
                refused.add(tx.id)
                tainted.update((tx.sender, tx.receiver))
                on_refusal(Judged(tx, score, view, left[:index]))
        if is_settled:
            break
        left = [tx for tx in left if tx.id not in refused]
    return [results[tx.id] for tx in ready]
