"""The journal: what this validator has signed and which certificates it holds, durable before audible.

An append-only file of records: length | checksum | epoch | type | payload (big-endian, checksum over
all that follows it and the length). Own votes, own proposals, all certificates, and the journal's own
state: how often it was opened, from where on this key may sign, and whether this node may only observe.

Invariant: what `sync` returned from is there after any crash. A torn tail is cut off. Damage before the
tail, a journal missing beside a key that has voted, or one older than its mark: observe only, loudly.
What binds survives compaction: everything above the last finalization, that, and later epochs. In an epoch
below the one last entered nothing is signed again: its records may be gone.
Source: consensus.md, What must survive a crash. Left out: a backup taken and restored within one run goes unnoticed.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from consensus import codec
from consensus.bft.contract import Proposal
from consensus.bft.messages import RECORD_BYTES_MAX, decode_record, encode_record
from consensus.bft.restore import Record
from consensus.errors import Fault, Rejected
from consensus.vote import FINALIZE, Certificate, Vote, is_conflict
from node.store.disk import Disk, LogFile, RealDisk
from node.store.reserved_log import ReservingDisk

_HEAD: Final = struct.Struct(">IIQB")  # length of the payload, checksum, epoch, type
_LENGTH: Final = struct.Struct(">I")
STATE_TYPE: Final = 0
RECORD_TYPE: Final = 1  # the payload says which: messages.encode_record
STATE_BYTES_MAX: Final = 64
COMPACT_BYTES_MIN: Final = 1_000_000  # a rewrite costs two syncs: once in a few thousand views
COMPACT_FACTOR: Final = 4  # and only when three quarters of the file bind no more


@dataclass(frozen=True, slots=True)
class JournalStatus:
    """What opening found. `problem` is "" when all is well.

    observe_until_view, for `epoch`: 0: sign; None: sign nothing, in any epoch, until that is allowed; otherwise
    sign above that view. is_torn: an unfinished last write was cut off, which is harmless.
    """

    observe_until_view: int | None
    problem: str
    is_torn: bool
    opened: int  # how often, this time included
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class _State:
    """epoch: nothing is signed below it, and in it only above `observe_until_view`; None: nothing anywhere."""

    opened: int
    observe_until_view: int | None
    epoch: int


class Journal:
    """An open journal. `append` then `sync`; any Fault is for good: the process must end."""

    def __init__(self, path: Path, mark_path: Path, disk: Disk, state: _State, *, is_marked: bool) -> None:
        self._path = path
        self._mark_path = mark_path
        self._disk = disk
        self._state = state
        self._is_marked = is_marked
        self._live: dict[tuple[int, int], list[bytes]] = {}  # (epoch, view) -> frames that bind
        self._final_views: dict[int, int] = {}  # epoch -> the last final view
        self._live_bytes = 0
        self._size = 0
        self._log: LogFile | None = None

    @classmethod
    def open(
        cls, path: Path, *, mark_path: Path, epoch: int = 0, disk: Disk | None = None
    ) -> tuple[Journal, tuple[Record, ...], JournalStatus]:
        """Open or make the journal: it, the records of `epoch` and later ones, and what was found.

        mark_path: the file beside the key that says "this key has voted". Raises Fault when the disk
        fails.
        """
        disk = disk or ReservingDisk()
        data, mark = disk.read_file(path), disk.read_file(mark_path)
        scan = _scan(data or b"")
        problem, state = scan.problem, scan.state
        if not problem and mark is not None:
            if state is None:
                problem = "the journal of a key that has voted is missing"
            elif _read_mark(mark) > state.opened:
                problem = "the journal is older than the mark beside the key: a restored backup"
        observe_until_view = None if problem else (state.observe_until_view if state else 0)
        signed_epoch = state.epoch if state and not problem else epoch
        opened = max(_read_mark(mark), state.opened if state else 0) + 1
        state = _State(opened, observe_until_view, signed_epoch)
        if scan.problem and data is not None:
            disk.write_file(path.with_name(f"{path.name}.damaged-{state.opened}"), [data])
        journal = cls(path, mark_path, disk, state, is_marked=mark is not None)
        records = []
        for frame_epoch, payload in scan.payloads:
            if frame_epoch < epoch:
                continue  # only epochs below the durable store's are dropped: later ones bind
            record = _read_record(payload, path)
            records.append(record)
            journal._remember(record, _frame(frame_epoch, RECORD_TYPE, payload))
        journal._rewrite()
        if mark is not None:
            disk.write_file(mark_path, [_make_mark(state.opened)])
        if not problem and observe_until_view is None:
            problem = "this journal was lost or damaged before, and no quorum has told its view yet"
        status = JournalStatus(observe_until_view, problem, scan.is_torn, opened, signed_epoch)
        return journal, tuple(records), status

    @property
    def size_bytes(self) -> int:
        return self._size

    def append(self, records: Iterable[Record]) -> None:
        """Write records; durable only after `sync`. Raises Fault."""
        frames = []
        for record in records:
            if not self._is_marked and not isinstance(record, Certificate):
                self._mark()
            frame = _frame(_get_place(record)[0], RECORD_TYPE, encode_record(record))
            frames.append(frame)
            self._remember(record, frame)
        self._write(b"".join(frames))

    def sync(self) -> None:
        """Make all that was appended durable. A failure is never retried. Raises Fault."""
        self._get_log().sync()
        if self._size > max(COMPACT_BYTES_MIN, COMPACT_FACTOR * self._live_bytes):
            self._rewrite()

    def compute_observe_until(self, epoch: int) -> int | None:
        """`EngineConfig.observe_until_view` for the engine of an epoch."""
        state = self._state
        if state.observe_until_view is None or epoch < state.epoch:
            return None
        return state.observe_until_view if epoch == state.epoch else 0

    def allow_signing(self, above_view: int, epoch: int = 0) -> None:
        """Durably end "observe only": this key signs nothing at or below `above_view` of `epoch`. Raises Fault."""
        self._state = _State(self._state.opened, above_view, epoch)
        self._write(_pack_state(self._state))
        self.sync()

    def enter_epoch(self, epoch: int) -> None:
        """Nothing is signed below `epoch` from now on, and what bound there binds no more. Raises Fault.

        Call when the end of the epoch before is durable, before anything of this one is signed.
        """
        if self._state.observe_until_view is not None and epoch > self._state.epoch:
            self.allow_signing(0, epoch)
        for place in [place for place in self._live if place[0] < epoch]:
            self._live_bytes -= sum(map(len, self._live.pop(place)))
        for past in [past for past in self._final_views if past < epoch]:
            del self._final_views[past]

    def compact(self) -> None:
        """Rewrite the file with what binds alone. Raises Fault."""
        self._get_log().sync()
        self._rewrite()

    def close(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None

    def _get_log(self) -> LogFile:
        if self._log is None:
            raise Fault("is closed, or failed before", field=str(self._path), code="journal")
        return self._log

    def _write(self, data: bytes) -> None:
        self._get_log().append(data)
        self._size += len(data)

    def _mark(self) -> None:
        # Before the first vote can be heard: the mark without a vote costs a while of observing,
        # a vote without the mark could cost the stake.
        self._disk.write_file(self._mark_path, [_make_mark(self._state.opened)])
        self._is_marked = True

    def _remember(self, record: Record, frame: bytes) -> None:
        epoch, view = _get_place(record)
        if view < self._final_views.get(epoch, 0):
            return
        self._live.setdefault((epoch, view), []).append(frame)
        self._live_bytes += len(frame)
        if isinstance(record, Certificate) and record.subject.kind == FINALIZE:
            self._final_views[epoch] = view
            for place in [place for place in self._live if place[0] == epoch and place[1] < view]:
                self._live_bytes -= sum(map(len, self._live.pop(place)))

    def _rewrite(self) -> None:
        frames = [_pack_state(self._state)]
        for place in sorted(self._live):
            frames.extend(self._live[place])
        self.close()  # a failure below leaves it closed: nothing more is written
        self._disk.write_file(self._path, frames)
        self._log = self._disk.open_log(self._path)
        self._size = self._log.size


def read_journal(path: Path, *, disk: Disk | None = None) -> Iterator[Record]:
    """The records of a journal, also of one in use. Raises Rejected when there is none, Fault if damaged."""
    data = (disk or RealDisk()).read_file(path)
    if data is None:
        raise Rejected(f"{path} does not exist", field="journal", mend="name a validator's journal")
    scan = _scan(data)
    if scan.problem:
        raise Fault(scan.problem, field=str(path), code="journal")
    for _, payload in scan.payloads:
        yield _read_record(payload, path)


def check_single_votes(records: Iterable[Record]) -> None:
    """Raises Fault if a validator's records hold two votes that contradict each other."""
    seen: dict[tuple[int, int, int], list[Vote]] = {}
    for record in records:
        if isinstance(record, Certificate):
            continue
        vote = record.vote if isinstance(record, Proposal) else record
        votes = seen.setdefault((vote.signer, vote.subject.epoch, vote.subject.view), [])
        for earlier in votes:
            if is_conflict(earlier, vote):
                raise Fault(
                    f"validator {vote.signer} signed both {earlier.subject} and {vote.subject}",
                    field="journal",
                )
        votes.append(vote)


# --- the form of the file ---------------------------------------------------------------------------


@dataclass(slots=True)
class _Scan:
    """What a file holds: (epoch, payload) of each record, the last state, and where it goes wrong."""

    payloads: list[tuple[int, bytes]]
    state: _State | None = None
    problem: str = ""
    is_torn: bool = False


def _frame(epoch: int, kind: int, payload: bytes) -> bytes:
    rest = struct.pack(">QB", epoch, kind) + payload
    length = _LENGTH.pack(len(payload))
    return length + _LENGTH.pack(zlib.crc32(rest, zlib.crc32(length))) + rest


def _read_frame(data: bytes, offset: int) -> tuple[int, int, bytes] | None:
    """(epoch, type, payload) at `offset`, or None if no whole and sound record stands there."""
    if len(data) - offset < _HEAD.size:
        return None
    length, checksum, epoch, kind = _HEAD.unpack_from(data, offset)
    end = offset + _HEAD.size + length
    if length > RECORD_BYTES_MAX or end > len(data):
        return None
    if checksum != zlib.crc32(data[offset + 8 : end], zlib.crc32(data[offset : offset + 4])):
        return None
    return epoch, kind, data[offset + _HEAD.size : end]


def _scan(data: bytes) -> _Scan:
    scan = _Scan([])
    offset = 0
    while offset < len(data):
        found = _read_frame(data, offset)
        if found is None:
            if not data[offset:].strip(b"\0"):
                break  # space reserved ahead
            following = _find_frame(data, offset + 1)
            if following is None:
                scan.is_torn = True  # nothing sound comes after it: a write that was never finished
                break
            # Sound records after an unsound one: the disk lost what was durable. What is left binds.
            scan.problem = scan.problem or f"a damaged record at byte {offset}, sound ones after it"
            offset = following
            continue
        epoch, kind, payload = found
        if kind == STATE_TYPE:
            scan.state = _unpack_state(payload)
        elif kind == RECORD_TYPE:
            scan.payloads.append((epoch, payload))
        else:
            raise Fault(f"record type {kind}: written by a later version", field="journal", code="journal")
        offset += _HEAD.size + len(payload)
    if data and scan.state is None and not scan.problem:
        scan.problem = "the journal lost its beginning"
    return scan


def _find_frame(data: bytes, offset: int) -> int | None:
    written = len(data.rstrip(b"\0"))  # no record begins in the zeros of reserved space
    for place in range(offset, min(written, len(data) - _HEAD.size + 1)):
        if _read_frame(data, place) is not None:
            return place
    return None


def _read_record(payload: bytes, path: Path) -> Record:
    try:
        return decode_record(payload)
    except Rejected as error:  # its checksum holds: we wrote it so, or a later version did
        raise Fault(
            f"holds a record that cannot be read ({error})", field=str(path), code="journal"
        ) from error


def _get_place(record: Record) -> tuple[int, int]:
    """(epoch, view)"""
    if isinstance(record, Proposal):
        return record.block.epoch, record.block.view
    return record.subject.epoch, record.subject.view


def _pack_state(state: _State) -> bytes:
    return _frame(0, STATE_TYPE, codec.encode((state.opened, state.observe_until_view, state.epoch)))


def _unpack_state(payload: bytes) -> _State:
    value: Any = codec.decode(payload, what="journal.state", bytes_max=STATE_BYTES_MAX)
    opened, observe_until_view, epoch = codec.check_fields(value, 3, "journal.state")
    if observe_until_view is not None:
        codec.check_int(observe_until_view, "journal.state")
    return _State(
        codec.check_int(opened, "journal.state"),
        observe_until_view,
        codec.check_int(epoch, "journal.state"),
    )


def _make_mark(opened: int) -> bytes:
    return f"this key has voted; its journal was opened {opened} times\n".encode()


def _read_mark(mark: bytes | None) -> int:
    """How often the journal was opened when the mark was made; 0 for none or an unreadable one."""
    numbers = [word for word in (mark or b"").split() if word.isdigit()]
    return int(numbers[0]) if numbers else 0
