"""Seats and slots: who takes which bytes of a row, and that nobody ever reads another's."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.errors import Rejected
from consensus.genesis import ModuleEntry
from consensus.ledger.judging import Seat
from consensus.ledger.publication import NAME_LENGTH_MAX
from consensus.ledger.scoring import Thresholds
from consensus.ledger.seating import (
    GENERATION_MAX,
    NO_SLOT,
    SLOTS_MAX,
    Candidate,
    ModuleSeat,
    Outcome,
    Seating,
    Slot,
    apply_retirement,
    apply_seating,
    decode_seating,
    encode_seating,
    seat_genesis,
)
from consensus.parameters import MODULES_MAX
from tests.ledger_chain import CountingModule

LIMITS = Thresholds(1, 2)
ROOM = 40


def make(letter: str, rows: str = "r", row_bytes: int = 9) -> Candidate:
    """A model by one letter, that reads rows by another."""
    return Candidate("counting", letter.encode() * 32, rows.encode() * 32, row_bytes)


def start(*candidates: Candidate) -> Seating:
    return seat_genesis((ModuleEntry(c.name, c.digest, 1, 2), c.rows_key, c.row_bytes) for c in candidates)


def put(
    seating: Seating, candidate: Candidate, in_place_of: str = "", room: int = ROOM, weight: int = 1
) -> tuple[Seating, Outcome]:
    return apply_seating(seating, candidate, LIMITS, weight, in_place_of.encode() * 32, room)


def list_places(seating: Seating) -> list[tuple[str, int, int, int]]:
    """(letter, first byte, end, generation) of every seat."""
    places = [(seat, seating.get_place(seat)) for seat in seating.seats]
    return [(chr(seat.digest[0]), at.start, at.stop, seating.get_generation(seat)) for seat, at in places]


def test_genesis_puts_its_modules_one_after_another_each_behind_its_tag() -> None:
    seating = start(make("a", "r", 9), make("b", "s", 0), make("c", "t", 4))
    assert list_places(seating) == [("a", 1, 10, 0), ("b", 0, 0, 0), ("c", 11, 15, 0)]
    assert seating.size_bytes == 15


def test_a_successor_that_reads_the_same_rows_goes_on_with_them() -> None:
    seating, outcome = put(start(make("a")), make("b"), "a")
    assert (outcome, list_places(seating)) == (Outcome.DONE, [("b", 1, 10, 0)])


def test_a_successor_that_reads_other_rows_begins_a_generation() -> None:
    seating, _ = put(start(make("a")), make("b", "s", 5), "a")
    assert list_places(seating) == [("b", 1, 6, 1)]
    seating, _ = put(seating, make("a"), "b")  # back again: its rows are gone
    assert list_places(seating) == [("a", 1, 10, 2)]


def test_a_larger_successor_gets_a_place_of_its_own() -> None:
    seating, _ = put(start(make("a", "r", 4), make("x", "r", 4)), make("b", "s", 9), "a")
    assert list_places(seating) == [("b", 11, 20, 0), ("x", 6, 10, 0)]


def test_beside_means_rows_of_ones_own_even_of_the_same_kind() -> None:
    seating, _ = put(start(make("a")), make("b"))
    assert list_places(seating) == [("a", 1, 10, 0), ("b", 11, 20, 0)]


def test_a_place_that_was_left_is_taken_again_with_a_new_generation() -> None:
    seating, _ = put(start(make("a"), make("b")), make("c"))
    seating, outcome = apply_retirement(seating, make("b").digest)
    assert outcome == Outcome.DONE
    seating, _ = put(seating, make("d", "r", 4))
    assert list_places(seating) == [("a", 1, 10, 0), ("c", 21, 30, 0), ("d", 11, 15, 1)]


def test_of_the_places_left_the_smallest_that_will_do_is_taken() -> None:
    seating = start(make("a", "r", 9), make("b", "r", 4), make("c", "r", 6))
    for letter in "abc":
        seating, _ = apply_retirement(seating, make(letter).digest)
    seating, _ = put(seating, make("d", "r", 5))
    assert list_places(seating) == [("d", 16, 21, 1)]


def test_one_that_judges_already_keeps_its_rows_and_takes_the_others_seat() -> None:
    seating, _ = put(start(make("a")), make("b", "s"), weight=0)
    seating, outcome = put(seating, make("b", "s"), "a", weight=5)
    assert (outcome, list_places(seating)) == (Outcome.DONE, [("b", 11, 20, 0)])
    assert seating.seats[0].weight == 5


def test_thresholds_and_weight_can_be_changed_in_place() -> None:
    seating, outcome = apply_seating(start(make("a")), make("a"), Thresholds(7, 8), 3, make("a").digest, ROOM)
    (only,) = seating.seats
    assert (outcome, only.thresholds, only.weight) == (Outcome.DONE, Thresholds(7, 8), 3)
    assert list_places(seating) == [("a", 1, 10, 0)]


def test_what_does_not_fit_changes_nothing_and_says_why() -> None:
    seating = start(make("a"), make("b"))
    assert put(seating, make("c"), "z") == (seating, Outcome.NOT_SEATED)
    assert put(seating, make("c"), room=29) == (seating, Outcome.NO_ROOM)
    assert put(seating, make("c"), room=30)[1] == Outcome.DONE
    assert apply_retirement(seating, make("z").digest) == (seating, Outcome.NOT_SEATED)
    full = start(*(make(chr(97 + number), "r", 0) for number in range(MODULES_MAX)))
    assert put(full, make("z", "r", 0)) == (full, Outcome.FULL)
    assert put(full, make("z", "r", 0), "a")[1] == Outcome.DONE


def test_a_place_is_worn_out_after_its_last_generation() -> None:
    worn = replace(start(make("a")), slots=(Slot(10, GENERATION_MAX - 1),))
    last, _ = put(worn, make("b", "s"), "a")
    assert list_places(last) == [("b", 1, 10, GENERATION_MAX)]
    assert put(last, make("c", "t"), "b", room=10) == (last, Outcome.NO_ROOM)
    assert put(last, make("c", "s"), "b", room=10)[1] == Outcome.DONE  # the same rows need no new one


def test_the_record_reads_back_and_nothing_else_does() -> None:
    seating, _ = put(start(make("a"), make("b", "s", 0)), make("c", "t", 4))
    assert decode_seating(encode_seating(seating)) == seating
    for bad in (b"", b"\x90", encode_seating(seating) + b"\x00", encode_seating(seating)[:-1]):
        with pytest.raises(Rejected):
            decode_seating(bad)


# --- the law: rows are nobody's but their writer's kind ------------------------------------------------

MODELS = [make(letter, rows, size) for letter, rows, size in
          (("a", "r", 9), ("b", "r", 9), ("c", "s", 9), ("d", "t", 5), ("e", "u", 14), ("f", "v", 0))]  # fmt: skip
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("seat"), st.sampled_from(MODELS), st.sampled_from([*"abcdef", ""])),
        st.tuples(st.just("retire"), st.sampled_from(MODELS), st.just("")),
        st.tuples(st.just("touch"), st.sampled_from(MODELS), st.just("")),
    ),
    max_size=25,
)


@given(STEPS)
def test_a_module_reads_what_its_kind_wrote_in_its_seat_or_zeros(steps: list) -> None:  # type: ignore[type-arg]
    """Three rows; "touch" has every module write its own mark into the first two, as a block would."""
    seating = start(MODELS[0])
    rows = np.zeros((3, ROOM), dtype=np.uint8)
    wrote: dict[
        tuple[int, int], bytes
    ] = {}  # (slot, row) -> the rows_key that wrote there last, by a living seat
    for what, model, other in steps:
        if what == "touch":
            for entry in seating.seats:
                seat = Seat(
                    CountingModule(), LIMITS, seating.get_place(entry), 1, seating.get_generation(entry)
                )
                seen = seat.read_rows(rows)
                assert seen.shape == (3, entry.row_bytes)
                for row in range(3):
                    mark = entry.rows_key[:1] * entry.row_bytes
                    assert seen[row].tobytes() in (bytes(entry.row_bytes), mark)
                    if entry.slot != NO_SLOT and wrote.get((entry.slot, row)) == entry.digest:
                        assert seen[row].tobytes() == mark  # what it wrote itself is not lost
                written = np.full((2, entry.row_bytes), entry.rows_key[0], dtype=np.uint8)
                part = rows[:2].copy()
                seat.write_rows(part, written)
                rows[:2] = part
                if entry.slot != NO_SLOT:
                    wrote.update({(entry.slot, row): entry.digest for row in range(2)})
        else:
            old = seating
            if what == "seat":
                seating, outcome = put(seating, model, other)
            else:
                seating, outcome = apply_retirement(seating, model.digest)
            assert (seating == old) or outcome == Outcome.DONE
            gone = {entry.digest for entry in old.seats} - {entry.digest for entry in seating.seats}
            wrote = {key: digest for key, digest in wrote.items() if digest not in gone}
        assert decode_seating(encode_seating(seating)) == seating
        places = sorted(
            (p.start - 1, p.stop) for e in seating.seats if e.row_bytes for p in [seating.get_place(e)]
        )
        assert all(end <= begin for (_, end), (begin, _) in pairwise(places))
        assert seating.size_bytes <= ROOM


def test_as_much_as_may_be_written_can_be_read() -> None:
    seats = [
        ModuleSeat("m" * NAME_LENGTH_MAX, bytes([place]) * 32, 10_000, 10_001, 10_000, bytes(32), 256, place)
        for place in range(MODULES_MAX)
    ]
    slots = [Slot(256, GENERATION_MAX) for _ in range(SLOTS_MAX)]
    full = Seating(tuple(seats), tuple(slots))
    assert decode_seating(encode_seating(full)) == full
