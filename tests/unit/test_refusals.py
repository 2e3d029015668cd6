"""Refusals: bounded, and each explained as it was judged."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from consensus.genesis import ModuleEntry
from consensus.ledger.rules import Rules
from consensus.ledger.scoring import REFUSE_NEVER, Thresholds
from ml import fraud
from node.mempool.refusals import Judged, Refusals
from tests.ledger_chain import KEYS, Chain, make_genesis


def make_chain() -> Chain:
    """A chain judged by the fraud module that ships, which refuses nothing."""
    module = fraud.load(fraud.read_default_artifact())
    entry = ModuleEntry(module.name, module.digest, REFUSE_NEVER, REFUSE_NEVER)
    return Chain(replace(make_genesis(thresholds=Thresholds(0, 0)), modules=(entry,)), (module,))


def test_an_explanation_has_the_score_that_the_transaction_got_among_others(seed: int) -> None:
    chain = make_chain()
    rng = random.Random(seed)
    batch = []
    for _ in range(60):
        sender, receiver = rng.sample(KEYS, 2)
        batch.append(chain.transfer(sender, receiver, amount=rng.randrange(1, 40_000)))
    scores = chain.rules.evaluate(chain.view, batch).score
    for index in range(len(batch)):
        judged = Judged(batch[index], int(scores[index]), chain.view, batch[:index])
        ((name, explanation),) = judged.explain(chain.rules)
        assert name == "fraud"
        assert explanation.score == judged.score
        total = sum(part.contribution for part in explanation.contributions)
        assert explanation.base + total == explanation.margin
    assert len(np.unique(scores)) > 10  # or this test would show nothing


def test_only_related_transactions_are_judged_again() -> None:
    chain = make_chain()
    related = chain.transfer(KEYS[0], KEYS[1])
    stranger = chain.transfer(KEYS[3], KEYS[4])
    later = chain.transfer(KEYS[1], KEYS[2])
    seen: list[int] = []

    class Spy:
        def explain(self, view: object, batch: list[object], index: int) -> tuple[()]:
            assert batch == [related, later]
            seen.append(index)
            return ()

    spy: Rules = Spy()  # type: ignore[assignment]
    Judged(later, 0, chain.view, [related, stranger]).explain(spy)
    assert seen == [1]


def test_the_oldest_refusal_is_forgotten_first() -> None:
    chain = make_chain()
    refusals = Refusals(count_max=2)
    batch = [chain.transfer(KEYS[0], KEYS[1], amount=amount) for amount in (1, 2, 3)]
    for tx in batch:
        refusals.add(Judged(tx, 9_000, chain.view, ()), chain.rules)
    assert refusals.get(batch[0].id) is None
    found = refusals.get(batch[2].id)
    assert found is not None
    assert (found.score, len(refusals)) == (9_000, 2)
