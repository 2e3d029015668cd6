"""The block file: what is written is read back or reported, whatever happens to the bytes."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.errors import Fault, Rejected
from node.simulation.memory_disk import MemoryDisk
from node.store.block_file import (
    BODY,
    FINAL,
    HEAD_BYTES,
    IDENTITY,
    BlockFile,
    Damage,
    Record,
    TornTail,
    encode_record,
)
from node.store.block_file import scan_records as scan
from node.store.disk import RealDisk

RECORDS = st.lists(
    st.tuples(st.sampled_from((IDENTITY, BODY, FINAL)), st.integers(0, 2**48), st.binary(max_size=200)),
    max_size=6,
)


def write(records: list[tuple[int, int, bytes]]) -> bytes:
    return b"".join(encode_record(*record) for record in records)


def read(data: bytes) -> list[Record | Damage | TornTail]:
    disk = MemoryDisk()
    disk.write_file(Path("blocks.log"), [data])
    return list(scan(disk.open_log(Path("blocks.log"))))


@given(RECORDS)
def test_what_is_written_is_read_back(records: list[tuple[int, int, bytes]]) -> None:
    found = read(write(records))
    assert [(item.type, item.height, item.payload) for item in found if isinstance(item, Record)] == records
    assert len(found) == len(records)


@given(RECORDS.filter(bool), st.data())
def test_any_flipped_byte_is_reported_and_the_other_records_survive(
    records: list[tuple[int, int, bytes]], data: st.DataObject
) -> None:
    good = write(records)
    place = data.draw(st.integers(0, len(good) - 1))
    bits = data.draw(st.integers(1, 255))
    bad = good[:place] + bytes([good[place] ^ bits]) + good[place + 1 :]
    found = read(bad)
    assert sum(isinstance(item, Damage) for item in found) == 1
    whole = read(good)
    hit = max(item.offset for item in whole if item.offset <= place)
    assert [item for item in found if isinstance(item, Record)] == [
        item for item in whole if item.offset != hit
    ]


@given(RECORDS.filter(bool), st.data())
def test_any_truncation_leaves_a_prefix_and_no_damage(
    records: list[tuple[int, int, bytes]], data: st.DataObject
) -> None:
    whole = read(write(records))
    length = data.draw(st.integers(0, len(write(records))))
    found = read(write(records)[:length])
    kept = [item for item in found if isinstance(item, Record)]
    assert kept == whole[: len(kept)]
    rest = [item for item in found if not isinstance(item, Record)]
    end = (
        kept[-1].offset + len(encode_record(kept[-1].type, kept[-1].height, kept[-1].payload)) if kept else 0
    )
    assert rest == ([] if end == length else [TornTail(end, length - end)])


def test_damage_in_a_payload_names_the_height() -> None:
    data = bytearray(write([(BODY, 7, b"seven"), (BODY, 8, b"eight")]))
    data[HEAD_BYTES] ^= 1
    damage = read(bytes(data))[0]
    assert isinstance(damage, Damage)
    assert (damage.offset, damage.height) == (0, 7)


def test_damage_in_a_head_hands_out_the_payload_that_still_holds() -> None:
    first = encode_record(BODY, 7, b"seven")
    data = bytearray(first + encode_record(BODY, 8, b"eight"))
    data[5] ^= 1
    damage = read(bytes(data))[0]
    assert isinstance(damage, Damage)
    assert (damage.height, damage.payload) == (None, b"seven")


def test_a_tail_of_zeros_after_a_power_cut_is_torn_and_not_damage() -> None:
    good = write([(BODY, 1, b"one")])
    assert read(good + bytes(5000))[1:] == [TornTail(len(good), 5000)]
    begun = encode_record(BODY, 2, b"two" * 100)
    assert read(good + begun[:60] + bytes(len(begun) - 60))[1:] == [TornTail(len(good), len(begun))]


def test_a_magic_inside_a_payload_does_not_mislead_the_scan() -> None:
    inner = encode_record(FINAL, 99, b"planted")
    data = write([(BODY, 1, inner), (BODY, 2, b"two")])
    assert [item.height for item in read(data) if isinstance(item, Record)] == [1, 2]


def test_a_record_read_after_it_was_damaged_is_a_fault_that_names_its_height(tmp_path: Path) -> None:
    file = BlockFile.open(RealDisk(), tmp_path / "blocks.log")
    offset = file.append(BODY, 12, b"twelve")
    with open(tmp_path / "blocks.log", "r+b") as raw:
        raw.seek(HEAD_BYTES + 2)
        raw.write(b"?")
    with pytest.raises(Fault, match="height 12"):
        file.read(offset)
    file.close()


def test_a_full_disk_is_a_fault_and_leaves_nothing_half_written() -> None:
    disk = MemoryDisk()
    file = BlockFile.open(disk, Path("blocks.log"))
    file.append(BODY, 1, b"one")
    size = file.size
    disk.bytes_left = 30
    with pytest.raises(Fault, match="disk is full"):
        file.append(BODY, 2, bytes(100))
    assert file.size == size
    disk.bytes_left = None
    file.append(BODY, 2, b"two")
    assert [item.height for item in file.scan() if isinstance(item, Record)] == [1, 2]


def test_a_failed_sync_is_final() -> None:
    disk = MemoryDisk()
    file = BlockFile.open(disk, Path("blocks.log"))
    file.append(BODY, 1, b"one")
    disk.is_sync_failing = True
    with pytest.raises(Fault):
        file.sync()
    disk.is_sync_failing = False
    with pytest.raises(Fault):
        file.sync()
    with pytest.raises(Fault):
        file.append(BODY, 2, b"two")


def test_a_full_real_disk_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RealDisk().open_log(tmp_path / "log")
    log.append(b"kept")
    real, calls = __import__("os").pwrite, []

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        calls.append(offset)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        written: int = real(descriptor, bytes(data)[:3], offset)
        return written

    monkeypatch.setattr("os.pwrite", pwrite)
    with pytest.raises(Fault, match="disk is full"):
        log.append(b"lost bytes")
    monkeypatch.undo()
    assert (tmp_path / "log").read_bytes() == b"kept"
    log.append(b" and more")
    assert log.read(0, 100) == b"kept and more"
    log.close()


def test_a_missing_file_is_not_made_by_a_reader(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="does not exist"):
        BlockFile.open(RealDisk(), tmp_path / "blocks.log", read_only=True)
    assert not (tmp_path / "blocks.log").exists()


def test_a_whole_file_is_replaced_at_once(tmp_path: Path) -> None:
    disk = RealDisk()
    disk.write_file(tmp_path / "folder" / "a", [b"one", b"two"])
    assert disk.read_file(tmp_path / "folder" / "a") == b"onetwo"

    def broken() -> object:
        yield b"three"
        raise OSError(28, "No space left on device")

    with pytest.raises(Fault, match="disk is full"):
        disk.write_file(tmp_path / "folder" / "a", broken())  # type: ignore[arg-type]
    assert disk.read_file(tmp_path / "folder" / "a") == b"onetwo"
    assert disk.list_names(tmp_path / "folder") == ("a",)
