"""What a mempool remembers: bounded, newest first, and a back-off that ends by either clock."""

from consensus.transaction import Transaction
from node.mempool.receipts import BackOff, Drop, DropLog

ALICE, BOB = b"a" * 20, b"b" * 20


def make_drop(number: int, code: str = "expired") -> Drop:
    tx = Transaction(0, bytes(33), number, bytes(20), 0, 1, 0, 1, b"", bytes(64))
    return Drop(tx, code, "for a reason", None, 1, 2)


def test_the_oldest_drop_is_forgotten_first() -> None:
    log = DropLog(2)
    drops = [make_drop(number) for number in range(3)]
    for drop in drops:
        log.add(drop)
    assert list(log) == [drops[2], drops[1]]
    assert len(log) == 2
    assert log.get(drops[0].id) is None


def test_the_last_word_on_a_transaction_counts() -> None:
    log = DropLog(2)
    log.add(make_drop(1))
    log.add(make_drop(2))
    log.add(make_drop(1, "refused"))
    log.add(make_drop(3))
    last = log.get(make_drop(1).id)
    assert last is not None
    assert last.code == "refused"
    log.discard(last.id)
    assert log.get(last.id) is None
    log.discard(last.id)  # nothing to forget is fine


def make_back_off(*, refused: int) -> BackOff:
    back_off = BackOff(refusals_max=2, window_ms=100, wait_ms=50)
    for _ in range(refused):
        back_off.count_refusal(ALICE, 0, 0)
    return back_off


def test_a_few_refusals_cost_nothing() -> None:
    assert make_back_off(refused=1).get_wait_ms(ALICE, 0, 0) == 0


def test_too_many_cost_a_wait_to_that_sender_alone() -> None:
    back_off = make_back_off(refused=2)
    assert back_off.get_wait_ms(ALICE, 0, 0) == 50
    assert back_off.get_wait_ms(BOB, 0, 0) == 0


def test_the_wait_ends_by_whichever_clock_is_faster() -> None:
    assert make_back_off(refused=2).get_wait_ms(ALICE, 50, 0) == 0
    assert make_back_off(refused=2).get_wait_ms(ALICE, 0, 50) == 0
    assert make_back_off(refused=2).get_wait_ms(ALICE, 20, 10) == 30


def test_refusals_far_apart_are_not_added_up() -> None:
    for chain_ms, monotonic_ms in ((101, 0), (0, 101)):
        back_off = make_back_off(refused=1)
        back_off.count_refusal(ALICE, chain_ms, monotonic_ms)
        assert back_off.get_wait_ms(ALICE, chain_ms, monotonic_ms) == 0
