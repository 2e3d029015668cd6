"""The table of slots answers as a dict of addresses would, whatever the lines hold."""

from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.errors import Fault
from consensus.ledger import slot_table
from consensus.ledger.records import Records
from consensus.ledger.slot_table import Rows, SlotTable
from consensus.ledger.state import State
from consensus.merkle import CompactRange

ROW_BYTES = 23  # an address and a little more


def make_addresses(count: int, first: int = 0) -> list[bytes]:
    return [sha256(b"%d" % number).digest()[:20] for number in range(first, first + count)]


def make_rows(addresses: list[bytes]) -> Rows:
    blank = bytes(ROW_BYTES - 20)
    return np.frombuffer(b"".join(a + blank for a in addresses), dtype=np.uint8).reshape(-1, ROW_BYTES)


def make_table(addresses: list[bytes], parts: int = 1) -> SlotTable:
    table = SlotTable()
    step = -(-len(addresses) // parts)
    for first in range(0, len(addresses), step):
        table.add(addresses[first : first + step], first)
    return table


@pytest.mark.parametrize("count", [1, 7, 1_023, 1_024, 1_025, 20_000])
@pytest.mark.parametrize("parts", [1, 3])
def test_every_address_has_the_slot_it_was_given(count: int, parts: int) -> None:
    addresses = make_addresses(count)
    table = make_table(addresses, parts)
    assert table.find(addresses, make_rows(addresses)) == list(range(count))
    assert len(table) == count


@pytest.mark.parametrize("asked", [1, 8, 9, 3_000])
def test_an_address_that_was_never_added_has_none(asked: int) -> None:
    addresses = make_addresses(9_000)
    strangers = make_addresses(asked, first=9_000)
    assert make_table(addresses).find(strangers, make_rows(addresses)) == [-1] * asked


def test_few_and_many_get_the_same_answers() -> None:
    addresses = make_addresses(2_000)
    table, rows = make_table(addresses), make_rows(addresses)
    asked = make_addresses(3_000)
    assert [table.find([address], rows)[0] for address in asked] == table.find(asked, rows)


@given(st.lists(st.integers(1, 40), max_size=12), st.integers(1, 3))
def test_a_line_that_is_full_runs_over_into_the_next(sizes: list[int], spread: int) -> None:
    """Hashes that nobody could choose: all fall on `spread` lines, the last lines of the table among them."""
    known: list[bytes] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slot_table, "hash", lambda address: -1 - address[0] % spread, raising=False)
        table = SlotTable()
        for size in sizes:
            new = make_addresses(size, first=len(known))
            assert table.find(new, make_rows(known + new)) == [-1] * size
            table.add(new, len(known))
            known += new
            assert table.find(known, make_rows(known)) == list(range(len(known)))


def test_addresses_of_one_hash_are_told_apart_by_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot_table, "hash", lambda address: 7, raising=False)
    addresses = make_addresses(30)
    table = make_table(addresses, parts=4)
    assert table.find(addresses, make_rows(addresses)) == list(range(30))
    assert table.find(make_addresses(16, first=30), make_rows(addresses)) == [-1] * 16


def test_no_address_gets_no_answer() -> None:
    assert SlotTable().find((), make_rows([])) == []


@pytest.mark.parametrize("twin", [3, 69_999])  # in one part of the filling, and in two
def test_a_state_is_not_filled_with_an_address_that_has_two_slots(twin: int) -> None:
    addresses = make_addresses(70_000)
    addresses[twin] = addresses[0]
    with pytest.raises(Fault, match="two slots"):
        State(ROW_BYTES).fill(make_rows(addresses).copy(), Records(), CompactRange())
