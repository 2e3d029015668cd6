"""One sender's line: what it says of itself is what its entries add up to."""

from hypothesis import given
from hypothesis import strategies as st

from consensus.transaction import Transaction
from node.mempool.lines import Entry, Line

KEY = bytes([2]) * 33  # form only; nobody signs here


def make_entry(nonce: int, amount: int, fee: int) -> Entry:
    return Entry(Transaction(0, KEY, nonce, bytes(20), amount, fee, 0, 9, b"", bytes(64)), 9, 0, 0)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9), st.integers(0, 9)), max_size=40))
def test_cost_nonces_and_prices_follow_what_comes_and_goes(steps: list[tuple[int, int, int]]) -> None:
    line = Line()
    model: dict[int, Entry] = {}
    for nonce, amount, fee in steps:
        if nonce in model:
            line.remove(model.pop(nonce))
        else:
            model[nonce] = make_entry(nonce, amount, fee)
            line.insert(model[nonce])
        entries = [model[nonce] for nonce in sorted(model)]
        assert line.cost == sum(entry.tx.amount + entry.tx.fee for entry in entries)
        assert line.entries == entries
        assert [line.find(nonce) for nonce in range(7)] == [model.get(nonce) for nonce in range(7)]
        assert line.prices == sorted(entry.price for entry in entries)
        assert len(line) == len(entries)
