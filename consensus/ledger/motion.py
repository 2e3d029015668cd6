"""Motions: what validators may decide about the modules, who is for it, and what came of it.

A motion is a height and a change: to seat a model (in place of another, or beside all), or to retire one.
Rolling back is seating a predecessor again. Approvals count by stake: the tally after every approval adds
up what its approvers hold in the set of *that* block's epoch. Who left that set, or was slashed out of it,
does not count, and counts again when it is back (unless so many approve that they would not fit a record:
then those without a seat are forgotten, and may approve anew). With more than two thirds the motion is decided, for good.

Invariant: the modules of block h are those after block h - 1; a decision about h stands at least
`motion_notice_blocks` blocks before. At its time a decision that does not fit any more does nothing, and
the history says so. Leaves out: seats and slots (seating.py), the transaction (approval.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, assert_never

from consensus import codec, crypto
from consensus.errors import Fault, Rejected
from consensus.genesis import WEIGHT_MAX
from consensus.ledger import models, scoring
from consensus.ledger import records as rec
from consensus.ledger.epochs import EpochSet
from consensus.ledger.records import Records
from consensus.ledger.scoring import Thresholds
from consensus.ledger.seating import (
    Outcome,
    Seating,
    apply_retirement,
    apply_seating,
    decode_seating,
    encode_seating,
)
from consensus.vote import VALIDATORS_MAX

MOTION_TAG: Final = b"assay/motion/1"
AHEAD_BLOCKS_MAX: Final = 1 << 20  # between a vote and its height: twelve days at a block a second
DECIDED_MAX: Final = 4  # for one height: what they leave in the history fits a record
EXPIRED_PER_BLOCK_MAX: Final = (
    64  # motions removed in a block, some 2 ms; each was made by a paid transaction
)
PAYLOAD_BYTES_MAX: Final = 256
_SEAT: Final = 0
_RETIRE: Final = 1
_KEY: Final = rec.NAMESPACE_PARAMETER + rec.PARAMETER_MODULES
_ITEMS_MAX: Final = DECIDED_MAX * (VALIDATORS_MAX + 32) + 8


@dataclass(frozen=True, slots=True)
class SeatModel:
    """Give a model a seat with these thresholds and this weight. in_place_of: a digest, or empty: beside all."""

    digest: bytes
    thresholds: Thresholds
    weight: int
    in_place_of: bytes = b""


@dataclass(frozen=True, slots=True)
class RetireModel:
    """Take a model's seat away."""

    digest: bytes


Change = SeatModel | RetireModel


@dataclass(frozen=True, slots=True)
class Motion:
    """change: to hold from block `height` on."""

    height: int
    change: Change


@dataclass(frozen=True, slots=True)
class Tally:
    """approvers: operators, in the order they came. Units of the set in whose epoch the last of them came.

    decided_height: of the block that decided it; 0 while it is open.
    """

    approvers: tuple[bytes, ...] = ()
    approved_units: int = 0
    total_units: int = 0
    decided_height: int = 0

    @property
    def is_decided(self) -> bool:
        return self.decided_height > 0


@dataclass(frozen=True, slots=True)
class Step:
    """A decided motion whose time had come."""

    motion: Motion
    tally: Tally
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Era:
    """The modules from a height on, and the decisions that led to them (none for block 1)."""

    modules_record: bytes
    steps: tuple[Step, ...] = ()


# --- payloads -------------------------------------------------------------------------------------------


def encode_motion(motion: Motion) -> bytes:
    """The payload that approves it."""
    match motion.change:
        case SeatModel(digest, thresholds, weight, in_place_of):
            limits = (thresholds.flag_score_min, thresholds.refuse_score_min)
            return codec.encode((motion.height, _SEAT, digest, *limits, weight, in_place_of))
        case RetireModel(digest):
            return codec.encode((motion.height, _RETIRE, digest))
        case _:
            assert_never(motion.change)


def decode_motion(payload: bytes) -> Motion:
    """Raises Rejected."""
    fields: Any = codec.decode(payload, what="payload", bytes_max=PAYLOAD_BYTES_MAX, items_max=8)
    if type(fields) is not tuple or len(fields) < 2:
        raise Rejected("must be an array that begins with a height and a change", field="payload")
    height = codec.check_int(fields[0], "payload.height", low=1)
    kind = codec.check_int(fields[1], "payload.change", high=_RETIRE)
    if kind == _RETIRE:
        digest = codec.check_fields(fields, 3, "payload")[2]
        return Motion(height, RetireModel(_check_digest(digest, "payload.digest")))
    _, _, digest, flag, refuse, weight, in_place_of = codec.check_fields(fields, 7, "payload")
    codec.check_int(refuse, "payload.refuse_score_min", high=scoring.REFUSE_NEVER)
    codec.check_int(flag, "payload.flag_score_min", high=refuse)
    return Motion(
        height,
        SeatModel(
            _check_digest(digest, "payload.digest"),
            Thresholds(flag, refuse),
            codec.check_int(weight, "payload.weight", high=WEIGHT_MAX),
            in_place_of if in_place_of == b"" else _check_digest(in_place_of, "payload.in_place_of"),
        ),
    )


def _check_digest(value: Any, what: str) -> bytes:
    return codec.check_bytes(value, what, length=crypto.HASH_BYTES)


def compute_motion_digest(motion: Motion) -> bytes:
    """What a motion is known by, 32 bytes."""
    return crypto.hash_bytes(MOTION_TAG + encode_motion(motion))


# --- open and decided motions -----------------------------------------------------------------------------


def find_tally(records: Records, motion: Motion) -> Tally:
    """Who approved it so far; nobody, when nobody did."""
    value = records.get(_get_key(motion))
    return Tally() if value is None else _decode_entry(value)[1]


def put_tally(records: Records, motion: Motion, tally: Tally) -> Records:
    """Writes it; a decided one is on the schedule too."""
    records = records.put(_get_key(motion), codec.encode(_pack(motion, tally)))
    if tally.is_decided:
        records = records.put(_get_schedule_key(motion, tally), b"\x01")
    return records


def walk_motions(records: Records) -> Iterator[tuple[Motion, Tally]]:
    """All whose time has not come, by height. For reading, not for blocks: it is unbounded."""
    for _, value in records.walk(rec.NAMESPACE_MOTION):
        yield _decode_entry(value)


def count_decided(records: Records, height: int) -> int:
    """How many motions are decided for this height."""
    return sum(1 for _ in records.walk(rec.NAMESPACE_SCHEDULE + height.to_bytes(8, "big")))


def compute_tally(tally: Tally, approver: bytes, epoch_set: EpochSet, height: int) -> Tally:
    """With one more approver of the set of its epoch, in a block of this height.

    At most VALIDATORS_MAX approvers are kept: years of rotations must not outgrow a motion's record.
    """
    approvers = (*tally.approvers, approver)
    if len(approvers) > VALIDATORS_MAX:
        approvers = tuple(operator for operator in approvers if epoch_set.get_stake(operator))
    approved = sum(epoch_set.get_stake(operator) for operator in approvers)
    total = epoch_set.validators.total
    decided_height = tally.decided_height or (height if 3 * approved > 2 * total else 0)
    return Tally(approvers, approved, total, decided_height)


def _get_key(motion: Motion) -> bytes:
    return rec.NAMESPACE_MOTION + motion.height.to_bytes(8, "big") + compute_motion_digest(motion)


def _get_schedule_key(motion: Motion, tally: Tally) -> bytes:
    heights = motion.height.to_bytes(8, "big") + tally.decided_height.to_bytes(8, "big")
    return rec.NAMESPACE_SCHEDULE + heights + compute_motion_digest(motion)


def _pack(motion: Motion, tally: Tally) -> tuple[Any, ...]:
    numbers = (tally.approved_units, tally.total_units, tally.decided_height)
    return (encode_motion(motion), tally.approvers, *numbers)


def _unpack(fields: tuple[Any, ...]) -> tuple[Motion, Tally]:
    payload, approvers, approved, total, decided = fields
    return decode_motion(payload), Tally(approvers, approved, total, decided)


def _decode_entry(value: bytes) -> tuple[Motion, Tally]:
    fields = codec.decode(value, what="motion", bytes_max=rec.VALUE_BYTES_MAX, items_max=_ITEMS_MAX)
    return _unpack(codec.check_fields(fields, 5, "motion"))


# --- at a block's end -------------------------------------------------------------------------------------


def close_block(records: Records, height: int, room_bytes: int) -> Records:
    """After block `height`: what was decided for the next one holds, and what is past is forgotten."""
    prefix = rec.NAMESPACE_SCHEDULE + (height + 1).to_bytes(8, "big")
    decided = tuple(records.walk(prefix))
    if decided:
        records = _activate(
            records, height + 1, [key[-crypto.HASH_BYTES :] for key, _ in decided], room_bytes
        )
        for key, _ in decided:
            records = records.remove(key)
    for key, _ in tuple(islice(records.walk(rec.NAMESPACE_MOTION), EXPIRED_PER_BLOCK_MAX)):
        if int.from_bytes(key[1:9], "big") > height + 1:
            break
        records = records.remove(key)
    return records


def _activate(records: Records, height: int, digests: list[bytes], room_bytes: int) -> Records:
    seating = get_seating(records)
    steps = []
    for digest in digests:
        value = records.get(rec.NAMESPACE_MOTION + height.to_bytes(8, "big") + digest)
        if value is None:
            raise Fault(f"the motion 0x{digest.hex()} is missing", field="state.records")
        motion, tally = _decode_entry(value)
        seating, outcome = apply_change(records, seating, motion.change, room_bytes)
        if outcome == Outcome.DONE and isinstance(motion.change, SeatModel):
            records = models.keep_model(records, motion.change.digest, height)
        steps.append(Step(motion, tally, outcome))
    record = encode_seating(seating)
    return put_era(records.put(_KEY, record), height, Era(record, tuple(steps)))


def apply_change(
    records: Records, seating: Seating, change: Change, room_bytes: int
) -> tuple[Seating, Outcome]:
    """The seating after a change, or the same and why nothing came of it."""
    match change:
        case RetireModel(digest):
            return apply_retirement(seating, digest)
        case SeatModel(digest, thresholds, weight, in_place_of):
            model = models.find_model(records, digest)
            if model is None:
                return seating, Outcome.UNKNOWN
            candidate = model.as_candidate(digest)
            return apply_seating(seating, candidate, thresholds, weight, in_place_of, room_bytes)
        case _:
            assert_never(change)


# --- who judges, and who did --------------------------------------------------------------------------------


def get_seating(records: Records) -> Seating:
    """Who judges the next block."""
    value = records.get(_KEY)
    if value is None:
        raise Fault("the modules are missing", field="state.records")
    return decode_seating(value)


def put_era(records: Records, height: int, era: Era) -> Records:
    steps = tuple((*_pack(step.motion, step.tally), int(step.outcome)) for step in era.steps)
    return records.put(
        rec.NAMESPACE_MODULES + height.to_bytes(8, "big"), codec.encode((era.modules_record, steps))
    )


def walk_eras(records: Records) -> Iterator[tuple[int, Era]]:
    """(height from which it held, era), the oldest first."""
    for key, value in records.walk(rec.NAMESPACE_MODULES):
        fields = codec.decode(value, what="era", bytes_max=rec.VALUE_BYTES_MAX, items_max=_ITEMS_MAX)
        record, steps = codec.check_fields(fields, 2, "era")
        yield (
            int.from_bytes(key[1:], "big"),
            Era(record, tuple(Step(*_unpack(step[:-1]), Outcome(step[-1])) for step in steps)),
        )


def put_genesis_modules(records: Records, seating: Seating) -> Records:
    """Those of genesis judge block 1, and may judge again later."""
    record = encode_seating(seating)
    records = put_era(records.put(_KEY, record), 1, Era(record))
    for seat in seating.seats:
        model = models.Model(seat.name, seat.rows_key, seat.row_bytes, b"", 0, 1)
        records = models.put_model(records, seat.digest, model)
    return records


def keep_decided(records: Records, motion: Motion) -> Records:
    """A model that was approved stays, whatever comes of the motion."""
    if isinstance(motion.change, SeatModel):
        return models.keep_model(records, motion.change.digest)
    return records
