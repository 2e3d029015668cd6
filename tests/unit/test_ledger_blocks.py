"""Blocks: what is built is accepted, and what differs by one unit or bit is named."""

from dataclasses import replace

import pytest

from consensus.block import Block
from consensus.errors import Fault, NotYet, Rejected
from consensus.ledger.rules import Rules
from consensus.ledger.scoring import REFUSE_NEVER, Thresholds
from consensus.vote import NULLIFY, Certificate, Subject
from tests.ledger_chain import (
    KEYS,
    START_MS,
    STRANGERS,
    VALIDATORS,
    Chain,
    CountingModule,
    alter,
    alter_body,
    make_genesis,
    make_wall_chain,
)

A, B, C, D, E, F = KEYS


def refuse(chain: Chain, block: Block, now_ms: int | None = None) -> Rejected:
    """Why `block` is refused after the tip; nothing is changed by asking."""
    root = chain.view.root
    with pytest.raises(Rejected) as caught:
        chain.rules.check_block(chain.view, block, now_ms)
    assert chain.view.root == chain.state.root == chain.state.compute_root() == root
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.fixture
def chain() -> Chain:
    """Two blocks high, so that the next one carries a certificate."""
    chain = Chain()
    chain.grow(chain.transfer(A, B))
    chain.grow(chain.transfer(B, C))
    return chain


def test_an_empty_block_changes_the_history_alone(chain: Chain) -> None:
    before = chain.view
    rows = chain.state.rows.copy()
    chain.grow()
    assert (chain.state.rows == rows).all()
    assert chain.view.root != before.root


def test_scores_count_earlier_transfers_of_the_same_block(chain: Chain) -> None:
    built = chain.grow(*(chain.transfer(D, E, amount=1_000) for _ in range(3)), chain.transfer(A, B))
    assert built.block.scores == (100, 200, 300, 100)


def test_flagged_ones_are_in_the_block_and_refused_ones_are_not(chain: Chain) -> None:
    flagged = chain.transfer(D, E, amount=25_000)
    refused = chain.transfer(E, F, amount=51_000)
    built = chain.build(flagged, refused)
    assert (built.block.transactions, built.block.outcomes) == ((flagged,), b"\x01")
    assert built.refused == ((refused, 5_100),)


def test_later_ones_that_share_an_account_with_a_refused_one_are_deferred(chain: Chain) -> None:
    refused = chain.transfer(A, B, amount=60_000)
    shares = chain.transfer(B, C)
    shares_with_deferred = chain.transfer(C, D)
    free = chain.transfer(E, F)
    before = chain.transfer(D, B)
    built = chain.build(before, refused, shares, shares_with_deferred, free)
    assert built.block.transactions == (before, free)
    assert built.deferred == (shares, shares_with_deferred)
    assert built.refused == ((refused, 6_100),)
    chain.add(built.block)
    chain.grow(shares, shares_with_deferred)


def test_invalid_candidates_spoil_no_others(chain: Chain) -> None:
    bad = chain.transfer(STRANGERS[0], A)
    built = chain.build(bad, chain.transfer(A, B), chain.transfer(B, A))
    assert [tx for tx, _ in built.rejected] == [bad]
    assert len(built.block.transactions) == 2
    chain.add(built.block)


def test_a_block_is_bounded_in_number_and_bytes() -> None:
    chain = Chain(make_genesis(block_transactions_max=2))
    candidates = [chain.transfer() for _ in range(3)]
    built = chain.build(*candidates)
    assert (built.block.transactions, built.deferred) == (tuple(candidates[:2]), (candidates[2],))
    size = sum(len(tx.raw) for tx in candidates[:2])
    small = Chain(make_genesis(block_bytes_max=size + 1))
    built = small.build(*candidates)
    assert (built.block.transactions, built.deferred) == (tuple(candidates[:2]), (candidates[2],))


@pytest.mark.parametrize(("limit", "value"), [("block_transactions_max", 1), ("block_bytes_max", 200)])
def test_a_block_above_the_limits_is_refused(limit: str, value: int) -> None:
    wide, narrow = Chain(), Chain(make_genesis(**{limit: value}))
    block = wide.build(wide.transfer(), wide.transfer()).block
    header = narrow.view.header
    assert refuse(narrow, alter(block, parent_hash=header.hash)).code == "size"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"parent_hash": b"p" * 32}, "parent"),
        ({"parent_view": 0}, "parent_view"),
        ({"height": 4}, "height"),
        ({"height": 2}, "height"),
        ({"view": 2}, "view"),
        ({"transaction_count": 1}, "transaction_count"),
        ({"proposer": A.public_key}, "proposer"),
        ({"modules_digest": b"m" * 32}, "modules_digest"),
        ({"validators_digest": b"v" * 32}, "validators_digest"),
        ({"next_validators_digest": b"v" * 32}, "next_validators_digest"),
        ({"timestamp_ms": START_MS - 1}, "timestamp"),
        ({"timestamp_ms": START_MS + 1}, "timestamp"),
        ({"transactions_root": b"t" * 32}, "transactions_root"),
        ({"state_root": b"s" * 32}, "state_root"),
        ({"history_root": b"h" * 32}, "history_root"),
        ({"certificate_digest": b"c" * 32}, "certificate_digest"),
        ({"proposer": VALIDATORS[1].public_key}, "state_root"),
    ],
)
def test_a_wrong_header_field_is_named(chain: Chain, fields: dict[str, object], code: str) -> None:
    block = chain.build(chain.transfer(A, B), chain.transfer(C, D)).block
    assert refuse(chain, alter(block, **fields)).code == code


def test_a_score_that_is_wrong_by_one_unit_is_named(chain: Chain) -> None:
    block = chain.build(chain.transfer(D, E, amount=8_110), chain.transfer(E, F)).block
    error = refuse(chain, alter_body(block, scores=(812, block.scores[1])))
    assert error.code == "score"
    assert "of transaction 0" in str(error)
    assert "the block says 812, recomputed 811" in str(error)


def test_a_wrong_outcome_is_named(chain: Chain) -> None:
    block = chain.build(chain.transfer(D, E, amount=25_000)).block
    assert refuse(chain, alter_body(block, outcomes=b"\x00")).code == "outcome"


def test_a_block_with_a_refused_transaction_is_refused(chain: Chain) -> None:
    lax = Chain(make_genesis(thresholds=Thresholds(2_000, REFUSE_NEVER)))
    block = lax.build(lax.transfer(A, B, amount=51_000)).block
    strict = Chain()
    block = alter_body(
        alter(block, parent_hash=strict.view.header.hash, modules_digest=strict.view.header.modules_digest),
        outcomes=b"\x02",
    )
    assert refuse(strict, block).code == "refused"


def test_a_block_of_another_parent_is_refused(chain: Chain) -> None:
    built = chain.build(chain.transfer(A, B))
    chain.grow(chain.transfer(C, D))
    assert refuse(chain, built.block).code == "parent"


def test_a_transaction_twice_or_replayed_is_named_with_its_place(chain: Chain) -> None:
    tx = chain.transfer(A, B)
    block = chain.build(tx).block
    twice = alter_body(block, transactions=(tx, tx), scores=(0, 0), outcomes=b"\x00\x00")
    error = refuse(chain, twice)
    assert error.code == "nonce_used"
    assert "transaction 1 (0x" in str(error)
    chain.add(block)
    replayed = alter_body(chain.build().block, transactions=(tx,), scores=(0,), outcomes=b"\x00")
    assert refuse(chain, replayed).code == "nonce_used"


@pytest.mark.parametrize("fields", [{"amount": 10**9}, {"fee": 0}, {"expires_ms": START_MS - 1}])
def test_a_block_with_an_invalid_transaction_is_refused(chain: Chain, fields: dict[str, int]) -> None:
    block = chain.build(chain.transfer(A, B)).block
    bad = replace(block.transactions[0], **fields)
    assert refuse(chain, alter_body(block, transactions=(bad,))).code in {"unfunded", "fee", "expired"}


def test_the_order_of_transactions_matters(chain: Chain) -> None:
    block = chain.build(chain.transfer(D, E), chain.transfer(D, F)).block
    swapped = alter_body(block, transactions=block.transactions[::-1])
    assert (
        refuse(chain, alter(swapped, transactions_root=block.header.transactions_root)).code
        == "transactions_root"
    )


# --- the carried certificate ------------------------------------------------------------------------


def test_a_certificate_must_be_about_the_parent(chain: Chain) -> None:
    block = chain.build().block
    assert block.parent_certificate is not None
    header = chain.view.header
    signatures = block.parent_certificate.signatures
    for subject in (
        Subject(0, NULLIFY, header.view, b""),
        Subject(0, 0, header.view + 1, header.hash),
        Subject(1, 0, header.view, header.hash),
        Subject(0, 0, header.view, b"x" * 32),
    ):
        wrong = replace(block, parent_certificate=Certificate(subject, signatures))
        assert refuse(chain, wrong).code == "certificate"
    assert refuse(chain, replace(block, parent_certificate=None)).code == "certificate"


def test_the_first_block_carries_no_certificate(chain: Chain) -> None:
    certificate = chain.build().block.parent_certificate
    first = Chain()
    assert refuse(first, replace(first.build().block, parent_certificate=certificate)).code == "certificate"


def test_the_header_binds_the_signatures_that_the_proposer_holds(chain: Chain) -> None:
    block = chain.build().block
    assert block.parent_certificate is not None
    other = replace(block.parent_certificate, signatures=((1, bytes(64)),))
    assert refuse(chain, replace(block, parent_certificate=other)).code == "certificate_digest"


def test_building_on_a_foreign_certificate_is_our_own_fault(chain: Chain) -> None:
    with pytest.raises(Fault):
        chain.rules.build_block(
            chain.view,
            (),
            epoch=0,
            view_number=9,
            proposer_key=VALIDATORS[0].public_key,
            now_ms=0,
            certificate=None,
        )


# --- clocks and modules -----------------------------------------------------------------------------


def test_wall_clock_a_block_ahead_of_the_local_clock_is_not_yet() -> None:
    chain = make_wall_chain()
    block = chain.build(now_ms=START_MS + 50_000).block
    with pytest.raises(NotYet):
        chain.check(block, START_MS + 39_999)
    assert chain.check(block, START_MS + 40_000).root == chain.check(block, None).root


def test_wall_clock_a_block_before_its_parent_is_refused() -> None:
    chain = make_wall_chain()
    chain.grow(now_ms=START_MS + 10)
    block = chain.build(now_ms=START_MS + 20).block
    assert refuse(chain, alter(block, timestamp_ms=START_MS + 9)).code == "timestamp"


def test_wall_clock_a_transaction_ahead_of_its_block_is_refused_for_good() -> None:
    chain = make_wall_chain()
    tx = chain.transfer(timestamp_ms=START_MS + 20_000)
    block = chain.build(tx, now_ms=START_MS + 10_000).block
    early = alter(block, timestamp_ms=START_MS + 9_999)
    assert refuse(chain, early).code == "timestamp"


def test_other_modules_than_genesis_names_are_refused() -> None:
    class Renamed(CountingModule):
        name = "other"

    class Changed(CountingModule):
        digest = b"d" * 32

    for modules in ((), (Renamed(),), (Changed(),), (CountingModule(), CountingModule())):
        with pytest.raises(Rejected):
            Rules(make_genesis(), modules)


def test_a_state_that_names_a_module_that_cannot_be_had_is_a_fault(chain: Chain) -> None:
    class Other(CountingModule):
        digest = b"d" * 32

    genesis = make_genesis()
    entry = replace(genesis.modules[0], digest=Other.digest)
    other = Rules(replace(genesis, modules=(entry,)), (Other(),))
    with pytest.raises(Fault, match="holds no model"):
        other.check_block(chain.view, chain.build().block, None)


# --- evaluating without a block ---------------------------------------------------------------------


def test_evaluate_says_what_a_block_would_say_and_changes_nothing(chain: Chain) -> None:
    txs = [chain.transfer(D, E, amount=amount) for amount in (8_000, 30_000, 49_000, 60_000)]
    root = chain.view.root
    verdicts = chain.rules.evaluate(chain.view, txs)
    assert verdicts.score.tolist() == [800, 3_100, 5_100, 6_300]
    assert verdicts.outcome.tolist() == [0, 1, 2, 2]
    assert chain.view.root == root
    assert chain.rules.evaluate(chain.view, ()).score.tolist() == []


def test_explain_gives_the_score_that_the_block_gave(chain: Chain) -> None:
    built = chain.build(*(chain.transfer(D, E, amount=8_000) for _ in range(3)))
    answers = chain.rules.explain(chain.view, built.block.transactions, 2)
    assert [(name, answer.score) for name, answer in answers] == [("counting", built.block.scores[2])]
