"""Laws of the ledger over arbitrary candidates, branches and chains of unfinal blocks."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.block import Block
from consensus.errors import Fault, Rejected
from consensus.ledger.scoring import REFUSE_NEVER, Thresholds
from consensus.ledger.snapshot import dump_state, load_state
from consensus.ledger.state import State, View
from consensus.ledger.supply import compute_money
from consensus.parameters import CLOCK_WALL, CLOCK_WORKLOAD
from consensus.transaction import KIND_TRANSFER, Transaction
from tests.ledger_chain import KEYS, START_MS, STRANGERS, Chain, alter_body, make_genesis

PEOPLE = (*KEYS, *STRANGERS)
# (sender, receiver, nonce, amount, fee, time after the tip, lifetime): many are invalid, some by one unit.
ORDERS = st.tuples(
    st.integers(0, len(KEYS) - 1) | st.integers(0, len(PEOPLE) - 1),
    st.integers(0, len(PEOPLE) - 1),
    st.integers(0, 40) | st.sampled_from([63, 64, 65, 200]),
    st.integers(0, 900) | st.sampled_from([19_000, 30_000, 60_000, 10**6 - 1, 10**6, 2**53 - 1]),
    st.sampled_from([1, 2, 3, 0]),
    st.sampled_from([0, 1, 2]) | st.integers(-60, 60),
    st.sampled_from([200, 100, 50]) | st.integers(1, 50),
)
BATCHES = st.lists(st.lists(ORDERS, max_size=14), min_size=1, max_size=5)
CLOCKS = st.sampled_from([CLOCK_WALL, CLOCK_WORKLOAD])


def make_chain(clock: str) -> Chain:
    return Chain(
        make_genesis(clock=clock, timestamp_age_ms_max=50, clock_drift_ms_max=20, account_byte_fee_units=0)
    )


def make_candidates(chain: Chain, batch: list[tuple[int, ...]]) -> list[Transaction]:
    made = []
    for sender, receiver, nonce, amount, fee, offset, lifetime in batch:
        timestamp_ms = chain.now_ms + offset
        tx = chain.transfer(
            PEOPLE[sender],
            PEOPLE[receiver],
            nonce=nonce,
            amount=amount,
            fee=fee,
            timestamp_ms=timestamp_ms,
            expires_ms=timestamp_ms + lifetime,
        )
        made.append(tx)
    return made


def make_reports(chain: Chain, picks: list[int]) -> list[Transaction]:
    """Reports of final transfers, some twice, some by people who may not."""
    final = [
        (block.header.height, index)
        for block in chain.blocks[:-1]
        for index, tx in enumerate(block.transactions)
        if tx.kind == KIND_TRANSFER
    ]
    reporters = (*KEYS[:3], STRANGERS[0])
    return [
        chain.report(*final[pick % len(final)], reporters[pick % 4], nonce=300 + pick % 50)
        for pick in picks
        if final
    ]


def dump(state: State) -> bytes:
    return b"".join(dump_state(state))


@settings(max_examples=120)
@given(CLOCKS, BATCHES, st.lists(st.integers(0, 10**6), max_size=6))
def test_what_is_built_is_accepted_and_conserves_money(
    clock: str, batches: list[list[tuple[int, ...]]], picks: list[int]
) -> None:
    chain = make_chain(clock)
    supply = chain.view.supply
    assert compute_money(chain.state).total == supply
    for batch in batches:
        candidates = [*make_candidates(chain, batch), *make_reports(chain, picks)]
        candidates.sort(key=lambda tx: tx.id)
        built = chain.build(*candidates, now_ms=chain.now_ms + 3)
        parts = (
            *built.block.transactions,
            *(tx for tx, _ in built.refused),
            *built.deferred,
            *(tx for tx, _ in built.rejected),
        )
        assert sorted(tx.raw for tx in parts) == sorted(tx.raw for tx in candidates)
        delta = chain.check(built.block, chain.now_ms)
        for entry in fields(delta):
            told, rebuilt = getattr(built.delta, entry.name), getattr(delta, entry.name)
            assert entry.name == "tree" or np.array_equal(told, rebuilt)
        assert delta.tree.root == built.delta.tree.root
        fees = sum(tx.fee for tx in built.block.transactions)
        before = chain.view.get_account(PROPOSER)
        chain.add(built.block)
        after = chain.view.get_account(PROPOSER)
        assert before is not None
        assert after is not None
        assert after.balance - before.balance == fees
        assert compute_money(chain.state).total == supply == chain.view.supply
        assert chain.state.compute_root() == built.block.header.state_root


PROPOSER = Chain().rules.create_genesis_state().rows[len(KEYS)][:20].tobytes()


@given(CLOCKS, BATCHES, st.data())
def test_a_failed_check_changes_nothing(
    clock: str, batches: list[list[tuple[int, ...]]], data: st.DataObject
) -> None:
    chain = make_chain(clock)
    for batch in batches:
        block = chain.build(*make_candidates(chain, batch)).block
        extra = data.draw(st.sampled_from(make_candidates(chain, [*batch, (0, 1, 0, 5, 0, 0, 5)])))
        place = data.draw(st.integers(0, len(block.transactions)))
        bad = insert(block, place, extra)
        before = dump(chain.state)
        with pytest.raises(Rejected):
            chain.check(bad)
        assert dump(chain.state) == before
        chain.add(block)


def insert(block: Block, place: int, extra: Transaction) -> Block:
    """With one more transaction at `place`; its state root is the one without it, so it is never right."""
    return alter_body(
        block,
        transactions=(*block.transactions[:place], extra, *block.transactions[place:]),
        scores=(*block.scores[:place], 0, *block.scores[place:]),
        outcomes=block.outcomes[:place] + b"\x00" + block.outcomes[place:],
    )


@settings(max_examples=30)
@given(BATCHES, BATCHES)
def test_branches_do_not_see_each_other(
    first: list[list[tuple[int, ...]]], second: list[list[tuple[int, ...]]]
) -> None:
    def run(batches: list[list[tuple[int, ...]]], chain: Chain, view: View) -> list[bytes]:
        roots = []
        for batch in batches:
            built = chain.build(*make_candidates(chain, batch), view=view)
            view = view.extend(chain.rules.check_block(view, built.block, None))
            roots.append(view.root)
        return roots

    alone = make_chain(CLOCK_WORKLOAD)
    both = make_chain(CLOCK_WORKLOAD)
    expected = run(second, alone, alone.view)
    run(first, both, both.view)
    assert run(second, both, both.view) == expected
    assert both.state.compute_root() == both.state.root


@settings(max_examples=30)
@given(st.lists(st.lists(ORDERS, max_size=6), min_size=17, max_size=20), st.integers(0, 20))
def test_a_view_over_many_deltas_equals_the_committed_state(
    batches: list[list[tuple[int, ...]]], committed_early: int
) -> None:
    chain = make_chain(CLOCK_WORKLOAD)
    steady = make_chain(CLOCK_WORKLOAD)
    for batch in batches:
        candidates = make_candidates(chain, batch)
        block = chain.build(*candidates).block
        chain.add(block, commit=False)
        steady.add(block)
        assert chain.view.root == steady.state.root
    tip = chain.view
    for delta in chain.deltas[:committed_early]:
        chain.state.commit(delta)
    for person in PEOPLE:
        assert tip.get_account(person.address) == steady.view.get_account(person.address)
        assert tip.get_module_rows(person.address) == steady.view.get_module_rows(person.address)
    assert tip.account_count == steady.view.account_count
    for delta in chain.deltas[committed_early:]:
        chain.state.commit(delta)
    assert dump(chain.state) == dump(steady.state)


@settings(max_examples=30)
@given(CLOCKS, BATCHES)
def test_a_snapshot_loads_to_the_same_state(clock: str, batches: list[list[tuple[int, ...]]]) -> None:
    chain = make_chain(clock)
    for batch in batches:
        chain.add(chain.build(*make_candidates(chain, batch)).block)
    data = dump(chain.state)
    loaded = load_state(chain.rules, data)
    assert dump(loaded) == data
    assert loaded.header == chain.state.header
    block = chain.build().block
    assert chain.rules.check_block(loaded.view(), block, None).root == chain.check(block).root


# --- order of commits -------------------------------------------------------------------------------


def test_only_a_child_of_the_committed_block_is_committed() -> None:
    chain = Chain()
    first = chain.build(chain.transfer()).delta
    sibling = chain.build(chain.transfer(KEYS[2], KEYS[3])).delta
    second = chain.build(chain.transfer(), view=chain.view.extend(first)).delta
    before = dump(chain.state)
    with pytest.raises(Fault):
        chain.state.commit(second)
    assert dump(chain.state) == before
    chain.state.commit(first)
    with pytest.raises(Fault):
        chain.state.commit(sibling)
    with pytest.raises(Fault):
        chain.state.commit(first)
    chain.state.commit(second)
    assert chain.state.compute_root() == second.root


def test_a_view_is_extended_only_by_a_child() -> None:
    chain = Chain()
    delta = chain.build(chain.transfer()).delta
    view = chain.view.extend(delta)
    with pytest.raises(Fault):
        view.extend(delta)


def test_a_view_of_a_branch_that_was_not_committed_is_a_fault() -> None:
    chain = Chain()
    old = chain.view
    lost = old.extend(chain.build(chain.transfer(KEYS[2], KEYS[3])).delta)
    chain.state.commit(chain.build(chain.transfer()).delta)
    for view in (old, lost):
        with pytest.raises(Fault):
            view.get_account(KEYS[0].address)


def test_extending_drops_what_was_committed() -> None:
    chain = Chain()
    for _ in range(5):
        chain.grow(chain.transfer(), commit=False)
    for delta in chain.deltas[:4]:
        chain.state.commit(delta)
    assert len(chain.view.deltas) == 1
    chain.grow(chain.transfer(), commit=False)
    assert len(chain.view.deltas) == 2


def test_roots_stay_right_while_accounts_are_created_by_the_thousand() -> None:
    chain = Chain(make_genesis(thresholds=Thresholds(REFUSE_NEVER, REFUSE_NEVER)))
    count = chain.view.account_count
    number = 0
    for _ in range(5):
        candidates = []
        for sender in KEYS:
            for _ in range(40):
                number += 1
                candidates.append(chain.transfer(sender, number.to_bytes(20, "big"), amount=1))
        chain.grow(*candidates, commit=False)
        if len(chain.view.deltas) > 2:
            chain.state.commit(chain.view.deltas[0])
    while chain.view.deltas:
        chain.state.commit(chain.view.deltas[0])
    assert chain.state.account_count == count + number
    assert chain.state.compute_root() == chain.view.root
    assert load_state(chain.rules, dump(chain.state)).root == chain.view.root
    assert chain.now_ms == START_MS
