"""The structure under the mempool, against a plain list that is searched from end to end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import node.mempool.queues
from consensus.transaction import Transaction
from node.mempool.lines import SIZE_STEP_BYTES, Entry, compute_fee_for, compute_price
from node.mempool.pending import Pending

KEYS = [bytes([2]) + bytes([number]) * 32 for number in range(4)]  # form only; nobody signs here

steps = st.lists(
    st.tuples(
        st.integers(0, 3),  # sender
        st.integers(0, 6),  # nonce
        st.integers(0, 4),  # fee
        st.integers(1, 9),  # deadline
    ),
    max_size=60,
)


@pytest.fixture(autouse=True)
def _sweep_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node.mempool.queues, "STALE_SPARE", 0)


def make_entry(sender: int, nonce: int, fee: int, deadline_ms: int) -> Entry:
    tx = Transaction(
        0,
        KEYS[sender],
        nonce,
        bytes(20),
        1,
        fee,
        0,
        deadline_ms,
        b"",
        bytes([sender, nonce, fee]) + bytes(61),
    )
    return Entry(tx, deadline_ms, 0, 0)


def fill(steps: list[tuple[int, int, int, int]]) -> tuple[Pending, list[Entry]]:
    """Insert each; one whose place is taken removes what is there instead."""
    pending = Pending(lambda entry: (-entry.price, entry.seq))
    model: list[Entry] = []
    for step in steps:
        line = pending.get_line(make_entry(*step).tx.sender)
        there = None if line is None else line.find(step[1])
        if there is None:
            entry = make_entry(*step)
            pending.insert(entry)
            model.append(entry)
        else:
            pending.remove(there)
            model.remove(there)
    return pending, model


def walk_slowly(model: list[Entry]) -> list[Entry]:
    left, order = list(model), []
    while left:
        heads = [
            min((e for e in left if e.tx.sender == s), key=lambda e: e.tx.nonce) for s in senders_of(left)
        ]
        order.append(min(heads, key=lambda entry: entry.rank))
        left.remove(order[-1])
    return order


def senders_of(entries: list[Entry]) -> set[bytes]:
    return {entry.tx.sender for entry in entries}


@given(steps)
def test_a_walk_always_takes_the_best_head_of_a_line(steps: list[tuple[int, int, int, int]]) -> None:
    pending, model = fill(steps)
    assert list(pending.walk(set())) == walk_slowly(model)
    assert list(pending) == model
    assert (len(pending), pending.size_bytes) == (len(model), sum(entry.size_bytes for entry in model))
    assert pending.sender_count == len(senders_of(model))


@given(steps, st.integers(1, 7), st.sampled_from([0, 1, 4]))
def test_walks_between_what_comes_and_goes_are_in_order_and_change_nothing(
    steps: list[tuple[int, int, int, int]], pause: int, run_share: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node.mempool.queues, "RUN_SHARE", run_share)  # 0: what cannot be appended stays beside
        pending, model = Pending(lambda entry: (-entry.price, entry.seq)), list[Entry]()
        for number, step in enumerate(steps):
            entry = make_entry(*step)
            line = pending.get_line(entry.tx.sender)
            there = None if line is None else line.find(entry.nonce)
            if there is None:
                pending.insert(entry)
                model.append(entry)
            else:
                pending.remove(there)
                model.remove(there)
            if number % pause == 0:
                assert list(pending.walk(set())) == walk_slowly(model)
        assert list(pending.walk(set())) == walk_slowly(model)


@given(steps, st.lists(st.integers(0, 10), min_size=1, max_size=60))
def test_deadlines_that_come_and_go_while_the_clock_moves_are_all_met(
    steps: list[tuple[int, int, int, int]], clocks: list[int]
) -> None:
    pending, model = Pending(lambda entry: (-entry.price, entry.seq)), list[Entry]()
    for step, clock_ms in zip(steps, clocks, strict=False):
        entry = make_entry(*step)
        line = pending.get_line(entry.tx.sender)
        there = None if line is None else line.find(entry.nonce)
        if there is None:
            pending.insert(entry)
            model.append(entry)
        else:
            pending.remove(there)
            model.remove(there)
        due = sorted((e for e in model if e.deadline_ms < clock_ms), key=lambda e: (e.deadline_ms, e.seq))
        assert pending.pop_expired(clock_ms) == due
        model = [e for e in model if e not in due]
        assert list(pending) == model


@given(steps, st.integers(0, 3))
def test_a_skipped_sender_is_not_walked_further(steps: list[tuple[int, int, int, int]], sender: int) -> None:
    pending, model = fill(steps)
    unwanted = make_entry(sender, 0, 0, 1).tx.sender
    skipped: set[bytes] = set()
    met = []
    for entry in pending.walk(skipped):
        met.append(entry)
        if entry.tx.sender == unwanted:
            skipped.add(unwanted)
    assert [entry for entry in met if entry.tx.sender != unwanted] == walk_slowly(
        [entry for entry in model if entry.tx.sender != unwanted]
    )
    assert sum(entry.tx.sender == unwanted for entry in met) <= 1


@given(steps, st.integers(1, 5), st.integers(0, 5_000))
def test_eviction_takes_ends_of_the_lines_worth_least(
    steps: list[tuple[int, int, int, int]], count_over: int, price: int
) -> None:
    pending, model = fill(steps)
    victims = pending.plan_eviction(price, count_over, 0, b"")
    worth = {s: min(e.price for e in model if e.tx.sender == s) for s in senders_of(model)}
    assert pending.get_price_floor() == min(worth.values(), default=0)
    if victims is None:
        # Evicting from the ends while the line is worth less would not have made enough room.
        assert count_evictable(model, price) < count_over
        return
    assert len(victims) == count_over
    assert worth[victims[0].tx.sender] == min(worth.values()) < price
    for victim in victims:
        behind = [e for e in model if e.tx.sender == victim.tx.sender and e.tx.nonce > victim.tx.nonce]
        assert all(entry in victims for entry in behind)
        left = [e for e in model if e.tx.sender == victim.tx.sender and e.tx.nonce <= victim.tx.nonce]
        assert min(entry.price for entry in left) < price


def count_evictable(model: list[Entry], price: int) -> int:
    total = 0
    for sender in senders_of(model):
        line = sorted((e for e in model if e.tx.sender == sender), key=lambda e: e.tx.nonce)
        while line and min(entry.price for entry in line) < price:
            line.pop()
            total += 1
    return total


@given(steps, st.integers(0, 10))
def test_what_is_past_its_deadline_is_taken_out_and_nothing_else(
    steps: list[tuple[int, int, int, int]], clock_ms: int
) -> None:
    pending, model = fill(steps)
    expired = pending.pop_expired(clock_ms)
    assert set(expired) == {entry for entry in model if entry.deadline_ms < clock_ms}
    assert list(pending) == [entry for entry in model if entry.deadline_ms >= clock_ms]
    assert pending.pop_expired(clock_ms) == []


def test_what_left_is_swept_out_of_the_heaps() -> None:
    pending = Pending(lambda entry: (-entry.price, entry.seq))
    pending.insert(make_entry(3, 0, 1, 9))  # a pool that is never empty keeps its heap of tails
    tails = pending._get_tails()
    for round_number in range(200):
        entry = make_entry(round_number % 3, 0, round_number % 5, 9)
        pending.insert(entry)
        pending.remove(entry)
    for heap in (pending._heads, tails, pending._deadlines):
        assert len(heap) <= 5
    assert pending._get_tails() is tails


def test_tails_that_are_first_asked_for_late_are_those_that_were_kept_all_along() -> None:
    plans = []
    for is_asked_early in (True, False):
        pending = Pending(lambda entry: (-entry.price, entry.seq))
        pending.insert(make_entry(3, 0, 1, 9))
        if is_asked_early:
            pending.get_price_floor()
        entries = [make_entry(number % 3, number, number % 5, 9) for number in range(40)]
        for entry in entries:
            pending.insert(entry)
        for entry in entries[::3]:
            pending.remove(entry)
        victims = pending.plan_eviction(10**9, 5, 0, b"")
        assert victims is not None
        plans.append((pending.get_price_floor(), [victim.seq for victim in victims]))
    assert plans[0] == plans[1]


@given(st.integers(0, 10**9), st.integers(1, 5_000), st.integers(1, 5_000))
def test_a_fee_for_a_price_is_the_lowest_that_reaches_it(fee: int, size: int, other_size: int) -> None:
    price = compute_price(fee, size)
    needed = compute_fee_for(price, other_size)
    assert compute_price(needed, other_size) >= price
    assert needed == 0 or compute_price(needed - 1, other_size) < price


def test_transfers_that_differ_by_some_bytes_have_one_price() -> None:
    assert (
        compute_price(10, 140)
        == compute_price(10, SIZE_STEP_BYTES)
        == 2 * compute_price(10, SIZE_STEP_BYTES + 1)
    )
