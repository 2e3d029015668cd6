"""Seating: which modules judge the next block, and where in an account's row each keeps its bytes.

The room for modules in a row is cut into slots, from the front: a tag of one byte, then the module's own.
A slot never moves nor changes its size, for its bytes in a million rows are not rewritten. When somebody
takes it who reads other rows (another `rows_key`), its generation rises; a row whose tag is not the slot's
generation reads as zeros and gets the new tag when it is next written.

Invariant: generations of a slot only rise, so that no row is ever read as what it is not; seats have
different slots and different digests. A change that does not fit changes nothing and says why.
Leaves out: who decides on a change (motion.py), and what a module is (scoring.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Final

from consensus import codec, crypto
from consensus.genesis import ModuleEntry
from consensus.ledger.scoring import Thresholds
from consensus.parameters import MODULES_MAX

MODULES_TAG: Final = b"assay/modules/2"
TAG_BYTES: Final = 1
GENERATION_MAX: Final = 255  # what a tag can tell; a slot that is worn out stays empty
SLOTS_MAX: Final = 64  # cut in the life of a chain: the room holds no more of a useful size
RECORD_BYTES_MAX: Final = 4_096  # eight seats of 170 bytes, 64 slots of 8
NO_SLOT: Final = -1  # of a module that keeps no rows
_SEAT_FIELDS: Final = 8


class Outcome(IntEnum):
    """What became of a change when its time had come."""

    DONE = 0
    UNKNOWN = 1  # the model is gone
    NOT_SEATED = 2  # whom it was to replace, or to retire, does not judge any more
    FULL = 3  # all seats are taken
    NO_ROOM = 4  # its rows fit nowhere


@dataclass(frozen=True, slots=True)
class ModuleSeat:
    """A module that judges. weight 0: it watches. slot: the number of its slot, or NO_SLOT."""

    name: str
    digest: bytes
    flag_score_min: int
    refuse_score_min: int
    weight: int
    rows_key: bytes
    row_bytes: int
    slot: int

    @property
    def thresholds(self) -> Thresholds:
        return Thresholds(self.flag_score_min, self.refuse_score_min)


@dataclass(frozen=True, slots=True)
class Slot:
    """A piece of the room, its tag included. generation: of who has it, or had it last."""

    size_bytes: int
    generation: int


@dataclass(frozen=True, slots=True)
class Seating:
    """Who judges, in order; and all slots that were ever cut, in the order of their places."""

    seats: tuple[ModuleSeat, ...] = ()
    slots: tuple[Slot, ...] = ()

    def find(self, digest: bytes) -> ModuleSeat | None:
        """The seat of this module, or None."""
        return next((seat for seat in self.seats if seat.digest == digest), None)

    def get_place(self, seat: ModuleSeat) -> slice:
        """Where the module's own bytes lie in the room; the tag is the byte before."""
        if seat.slot == NO_SLOT:
            return slice(0, 0)
        start = sum(slot.size_bytes for slot in self.slots[: seat.slot]) + TAG_BYTES
        return slice(start, start + seat.row_bytes)

    def get_generation(self, seat: ModuleSeat) -> int:
        return 0 if seat.slot == NO_SLOT else self.slots[seat.slot].generation

    @property
    def size_bytes(self) -> int:
        """What the slots take of the room."""
        return sum(slot.size_bytes for slot in self.slots)


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is to be known of a model to seat it."""

    name: str
    digest: bytes
    rows_key: bytes
    row_bytes: int


def compute_slot_bytes(row_bytes: int) -> int:
    """What a module's rows take of an account's row, with their tag."""
    return TAG_BYTES + row_bytes if row_bytes else 0


def seat_genesis(entries: Iterable[tuple[ModuleEntry, bytes, int]]) -> Seating:
    """The seats of block 1: (entry, rows_key, row_bytes) of each module of genesis."""
    seating = Seating()
    for entry, rows_key, row_bytes in entries:
        slot = NO_SLOT
        if row_bytes:
            slot = len(seating.slots)
            new = Slot(compute_slot_bytes(row_bytes), 0)
            seating = replace(seating, slots=(*seating.slots, new))
        seat = ModuleSeat(
            entry.name,
            entry.digest,
            entry.flag_score_min,
            entry.refuse_score_min,
            entry.weight,
            rows_key,
            row_bytes,
            slot,
        )
        seating = replace(seating, seats=(*seating.seats, seat))
    return seating


def apply_seating(
    seating: Seating,
    candidate: Candidate,
    thresholds: Thresholds,
    weight: int,
    in_place_of: bytes,
    room_bytes: int,
) -> tuple[Seating, Outcome]:
    """Seats a module in place of another (its digest), or beside all (empty).

    One that judges already keeps seat and rows, and gets these thresholds and this weight; whom it
    replaces goes. One that takes over rows of its own kind goes on with them.
    """
    predecessor = seating.find(in_place_of) if in_place_of else None
    if in_place_of and predecessor is None:
        return seating, Outcome.NOT_SEATED
    present = seating.find(candidate.digest)
    if present is not None:
        changed = replace(
            present,
            flag_score_min=thresholds.flag_score_min,
            refuse_score_min=thresholds.refuse_score_min,
            weight=weight,
        )
        seats = tuple(
            changed if seat is present else seat
            for seat in seating.seats
            if seat is present or seat is not predecessor
        )
        return replace(seating, seats=seats), Outcome.DONE
    if predecessor is None and len(seating.seats) == MODULES_MAX:
        return seating, Outcome.FULL
    found = _take_slot(seating, candidate, predecessor, room_bytes)
    if found is None:
        return seating, Outcome.NO_ROOM
    slots, number = found
    new = ModuleSeat(
        candidate.name,
        candidate.digest,
        thresholds.flag_score_min,
        thresholds.refuse_score_min,
        weight,
        candidate.rows_key,
        candidate.row_bytes,
        number,
    )
    if predecessor is None:
        return Seating((*seating.seats, new), slots), Outcome.DONE
    seats = tuple(new if seat is predecessor else seat for seat in seating.seats)
    return Seating(seats, slots), Outcome.DONE


def apply_retirement(seating: Seating, digest: bytes) -> tuple[Seating, Outcome]:
    """Takes a module's seat away; its slot may be given to another."""
    seat = seating.find(digest)
    if seat is None:
        return seating, Outcome.NOT_SEATED
    return replace(seating, seats=tuple(other for other in seating.seats if other is not seat)), Outcome.DONE


def _take_slot(
    seating: Seating, candidate: Candidate, predecessor: ModuleSeat | None, room_bytes: int
) -> tuple[tuple[Slot, ...], int] | None:
    """(slots, number of the candidate's): the predecessor's, an empty one, or one cut anew; None: no room."""
    slots, need = seating.slots, compute_slot_bytes(candidate.row_bytes)
    if not need:
        return slots, NO_SLOT
    if predecessor is not None and (predecessor.rows_key, predecessor.row_bytes) == (
        candidate.rows_key,
        candidate.row_bytes,
    ):
        return slots, predecessor.slot
    taken = {seat.slot for seat in seating.seats if seat is not predecessor}
    free = [
        number
        for number, slot in enumerate(slots)
        if number not in taken and slot.size_bytes >= need and slot.generation < GENERATION_MAX
    ]
    if free:  # the predecessor's if it will do, else the smallest, else the first
        own = NO_SLOT if predecessor is None else predecessor.slot
        number = min(free, key=lambda number: (number != own, slots[number].size_bytes, number))
        slot = slots[number]
        risen = replace(slot, generation=slot.generation + 1)
        return (*slots[:number], risen, *slots[number + 1 :]), number
    if seating.size_bytes + need > room_bytes or len(slots) == SLOTS_MAX:
        return None
    return (*slots, Slot(need, 0)), len(slots)


def encode_seating(seating: Seating) -> bytes:
    """The record: canonical (seats, slots). A seat whose module keeps no rows says slot nil."""
    seats = tuple(
        (
            seat.name,
            seat.digest,
            seat.flag_score_min,
            seat.refuse_score_min,
            seat.weight,
            seat.rows_key,
            seat.row_bytes,
            None if seat.slot == NO_SLOT else seat.slot,
        )
        for seat in seating.seats
    )
    return codec.encode((seats, tuple((slot.size_bytes, slot.generation) for slot in seating.slots)))


def decode_seating(record: bytes) -> Seating:
    """Raises Rejected when `record` is none; one from the state never is."""
    items_max = (_SEAT_FIELDS + 2) * MODULES_MAX + 4 * SLOTS_MAX + 5
    value: Any = codec.decode(record, what="modules", bytes_max=RECORD_BYTES_MAX, items_max=items_max)
    seats, slots = codec.check_fields(value, 2, "modules")
    return Seating(
        tuple(_read_seat(codec.check_fields(seat, _SEAT_FIELDS, "modules.seats")) for seat in seats),
        tuple(Slot(*codec.check_fields(slot, 2, "modules.slots")) for slot in slots),
    )


def _read_seat(fields: tuple[Any, ...]) -> ModuleSeat:
    seat = ModuleSeat(*fields)
    return seat if seat.slot is not None else replace(seat, slot=NO_SLOT)


def compute_modules_digest(modules_record: bytes) -> bytes:
    """What a header commits to: the modules that judged its block, as its parent's state names them."""
    return crypto.hash_bytes(MODULES_TAG + modules_record)
