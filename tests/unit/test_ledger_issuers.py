"""Issuers: what they send is not judged, and no module sees it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consensus.errors import Rejected
from consensus.ledger.scoring import ACCEPT
from tests.ledger_chain import KEYS, Chain, make_genesis

ISSUER, PERSON = KEYS[0], KEYS[1]
LARGE = 60_000  # scores 6,000 in the counting module, which refuses from 5,000


def make_chain() -> Chain:
    return Chain(replace(make_genesis(), issuers=(ISSUER.address,)))


def test_what_a_person_sends_is_refused_and_what_an_issuer_sends_is_not() -> None:
    chain = make_chain()
    by_issuer, by_person = (
        chain.transfer(ISSUER, KEYS[2], amount=LARGE),
        chain.transfer(PERSON, KEYS[3], amount=LARGE),
    )
    built = chain.build(by_issuer, by_person)
    assert built.block.transactions == (by_issuer,)
    assert built.block.scores == (0,)
    assert built.block.outcomes == bytes([ACCEPT])
    assert [tx for tx, _ in built.refused] == [by_person]


def test_an_issuers_transfer_leaves_no_trace_in_module_rows() -> None:
    chain = make_chain()
    chain.grow(chain.transfer(ISSUER, KEYS[2], amount=LARGE))
    assert chain.view.get_module_rows(ISSUER.address) == bytes(5)


def test_a_judge_recomputes_the_same_for_issuers() -> None:
    chain = make_chain()
    built = chain.build(chain.transfer(ISSUER, KEYS[2], amount=LARGE), chain.transfer(PERSON, KEYS[3]))
    delta = chain.rules.check_block(chain.view, built.block, None)
    assert delta.header.state_root == built.block.header.state_root


def test_score_and_explanation_of_an_issuers_transfer_say_that_it_is_not_judged() -> None:
    chain = make_chain()
    tx = chain.transfer(ISSUER, KEYS[2], amount=LARGE)
    assert chain.rules.evaluate(chain.view, [tx]).score.tolist() == [0]
    assert chain.rules.explain(chain.view, [tx], 0) == ()


def test_issuers_are_part_of_what_the_genesis_digest_binds() -> None:
    genesis = make_genesis()
    assert replace(genesis, issuers=(ISSUER.address,)).digest != genesis.digest


def test_an_issuer_listed_twice_is_refused() -> None:
    with pytest.raises(Rejected, match="issuers: an address is listed twice"):
        replace(make_genesis(), issuers=(ISSUER.address, ISSUER.address))
