"""The audit: silent when all holds, and naming the right height when one thing does not."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.block import Block, compute_certificate_digest, compute_transactions_root
from consensus.crypto import PrivateKey
from consensus.errors import Rejected
from consensus.ledger.snapshot import dump_state
from consensus.vote import FINALIZE, Certificate
from node import audit as audit_module
from node.__main__ import main
from node.audit import AuditReport, audit_home
from node.clock import ManualClock
from node.store.block_file import BODY, FINAL, Record, encode_record, scan_records
from node.store.checkpoint import CheckpointFolder
from node.store.disk import RealDisk
from node.store.index import Index
from node.store.positions import FinalityMark, decode_mark
from node.store.store import Store
from tests.chain_factory import ChainFactory, forge

REPOSITORY = Path(audit_module.__file__).parent.parent
LENGTH = 6
CHECKPOINT = 3


@pytest.fixture(scope="module")
def factory() -> ChainFactory:
    made = ChainFactory()
    made.grow(LENGTH)
    return made


@pytest.fixture(scope="module")
def filled(factory: ChainFactory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with six final blocks, an orphan, a block that is not final yet, a checkpoint and an index."""
    home = factory.write_home(tmp_path_factory.mktemp("audit") / "home")
    store = Store.open(home, factory.rules)
    for height, block in enumerate(factory.blocks, start=1):
        if height == 4:
            store.write_checkpoint(store.recover().state)
            store.put_block(forge(block, view=block.header.view + 50))
        store.put_final(factory.finalizations[height - 1], (block,))
        store.sync()
    store.put_block(factory.build())
    store.close()
    return home


@pytest.fixture
def home(filled: Path, tmp_path: Path) -> Path:
    shutil.copytree(filled, tmp_path / "home")
    return tmp_path / "home"


def audit(home: Path) -> AuditReport:
    return audit_home(home, processes=0, clock=ManualClock())


def read_records(home: Path) -> list[Record]:
    log = RealDisk().open_log(home / "blocks.log", read_only=True)
    items = list(scan_records(log))
    log.close()
    assert all(isinstance(item, Record) for item in items)
    return [item for item in items if isinstance(item, Record)]


def rewrite(home: Path, change: Callable[[Record], Record | None]) -> None:
    """The block file again with some records changed or dropped, every checksum right."""
    changed = [change(record) for record in read_records(home)]
    data = b"".join(encode_record(r.type, r.height, r.payload) for r in changed if r is not None)
    (home / "blocks.log").write_bytes(data)


def test_a_sound_home_passes(home: Path, factory: ChainFactory) -> None:
    seen: list[tuple[int, int]] = []
    report = audit_home(
        home, lambda done, total: seen.append((done, total)), processes=0, clock=ManualClock()
    )
    assert report == AuditReport(LENGTH, 2 * LENGTH, True, None, None, 0.0)
    assert seen == [(height, LENGTH) for height in range(1, LENGTH + 1)]


def test_a_home_that_was_never_started_passes_with_no_blocks(factory: ChainFactory, tmp_path: Path) -> None:
    report = audit(factory.write_home(tmp_path / "new"))
    assert (report.ok, report.blocks) == (True, 0)


def test_a_folder_that_is_no_home_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="does not exist"):
        audit(tmp_path)


def test_worker_processes_give_the_same_report(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "WORKERS_FROM_TRANSACTIONS", 0)
    assert audit_home(home, processes=1, clock=ManualClock()) == audit(home)


def test_it_works_beside_a_running_node(home: Path, factory: ChainFactory) -> None:
    store = Store.open(home, factory.rules)
    with open(home / "blocks.log", "ab") as log:
        log.write(encode_record(BODY, 7, b"being written")[:-5])
    before = (home / "blocks.log").read_bytes()
    command = [sys.executable, "-m", "node", "audit", "--home", str(home), "--json"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["blocks"] == LENGTH
    assert (home / "blocks.log").read_bytes() == before
    store.close()


@settings(max_examples=80)
@given(data=st.data())
def test_any_flipped_byte_of_the_block_file_is_found_at_its_height(
    data: st.DataObject, filled: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("flipped") / "home"
    shutil.copytree(filled, home)
    log = bytearray((home / "blocks.log").read_bytes())
    place = data.draw(st.integers(0, len(log) - 1))
    record = max((r for r in read_records(home) if r.offset <= place), key=lambda r: r.offset)
    log[place] ^= data.draw(st.integers(1, 255))
    (home / "blocks.log").write_bytes(log)
    report = audit(home)
    assert not report.ok
    assert report.first_bad_height == record.height
    assert report.problem


@settings(max_examples=20)
@given(data=st.data())
def test_any_flipped_byte_of_a_checkpoint_is_found_at_its_height(
    data: st.DataObject, filled: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("flipped") / "home"
    shutil.copytree(filled, home)
    path = next((home / "checkpoints").iterdir())
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    report = audit(home)
    assert (report.ok, report.first_bad_height) == (False, CHECKPOINT)
    assert "checkpoint" in str(report.problem)


def test_a_checkpoint_with_a_right_checksum_and_a_wrong_state_is_found(
    home: Path, factory: ChainFactory
) -> None:
    folder = CheckpointFolder(RealDisk(), home / "checkpoints")
    folder.write(folder.list_names()[0], [bytes(chunk) for chunk in dump_state(factory.state)])
    report = audit(home)
    assert (report.first_bad_height, report.blocks) == (CHECKPOINT, CHECKPOINT - 1)
    assert "not the state" in str(report.problem)


def seal(factory: ChainFactory, block: Block, **changes: object) -> Block:
    """The block with other contents, its header's roots of the body made right again."""
    block = replace(block, **changes)
    root = compute_transactions_root(block.transactions, block.scores, block.outcomes)
    digest = compute_certificate_digest(block.parent_certificate)
    return forge(block, transactions_root=root, certificate_digest=digest)


def write_chain(
    factory: ChainFactory, home: Path, last: Block, finalization: Certificate | None = None
) -> Path:
    """A home whose chain is the factory's first two blocks and this third one, all certified."""
    factory.write_home(home)
    store = Store.open(home, factory.rules)
    for height in (1, 2):
        store.put_final(factory.finalizations[height - 1], (factory.blocks[height - 1],))
    store.put_final(finalization or factory.certify(last.header, FINALIZE), (last,))
    store.sync()
    store.close()
    return home


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("score", "score"),
        ("state_root", "state_root"),
        ("history_root", "history_root"),
        ("parent_view", "header"),
        ("timestamp", "timestamp"),
        ("signature", "signature of transaction 1 does not verify"),
        ("parent certificate", "parent certificate"),
        ("stranger's parent certificate", "(parent certificate) does not verify"),
        ("finalization of few", "finalization"),
        ("finalization of strangers", "(finalization) does not verify"),
    ],
)
def test_what_a_lying_quorum_could_store_is_found(
    name: str, problem: str, factory: ChainFactory, tmp_path: Path
) -> None:
    third = factory.blocks[2]
    stranger = replace(third.parent_certificate, signatures=tuple((i, bytes([i + 1]) * 64) for i in range(3)))  # type: ignore[type-var]
    good = factory.certify(third.header, FINALIZE)
    finalization = None
    match name:
        case "score":
            third = seal(factory, third, scores=(1, 0))
        case "state_root" | "history_root":
            third = forge(third, **{name: bytes(32)})
        case "parent_view":
            third = forge(third, parent_view=0)
        case "timestamp":
            third = forge(third, timestamp_ms=third.header.timestamp_ms + 1)
        case "signature":
            first, second = third.transactions
            bad = replace(second, signature=PrivateKey.from_seed(b"another").sign(bytes(32)))
            third = seal(factory, third, transactions=(first, bad))
        case "parent certificate":
            third = seal(factory, third, parent_certificate=factory.certify(factory.blocks[0].header))
        case "stranger's parent certificate":
            third = seal(factory, third, parent_certificate=stranger)
        case "finalization of few":
            finalization = Certificate(good.subject, good.signatures[:2])
        case _:
            finalization = Certificate(good.subject, tuple((i, good.signatures[0][1]) for i in range(3)))
    report = audit(write_chain(factory, tmp_path / "home", third, finalization))
    assert (report.ok, report.first_bad_height, report.blocks) == (False, 3, 2)
    assert problem in str(report.problem)


def test_a_dropped_block_is_missed_at_its_height(home: Path, factory: ChainFactory) -> None:
    rewrite(home, lambda r: None if (r.type, r.height) == (BODY, 5) else r)
    report = audit(home)
    assert (report.first_bad_height, report.blocks) == (5, 4)


def test_a_chain_cut_off_below_a_checkpoint_is_found(home: Path) -> None:
    rewrite(home, lambda r: r if r.height < CHECKPOINT else None)
    report = audit(home)
    assert (report.first_bad_height, report.blocks) == (CHECKPOINT, CHECKPOINT - 1)
    assert "ends before block" in str(report.problem)


def write_index(home: Path, factory: ChainFactory, blocks: list[Block]) -> None:
    shutil.rmtree(home / "index")
    with ThreadPoolExecutor(1) as executor:
        index = Index(home / "index", factory.rules.genesis.digest, executor)
        for block in blocks:
            index.add_block(block)
        index.close()


def test_an_index_with_a_transaction_at_a_wrong_place_is_found(home: Path, factory: ChainFactory) -> None:
    wrong = replace(factory.blocks[4], transactions=factory.blocks[4].transactions[::-1])
    write_index(home, factory, [*factory.blocks[:4], wrong, factory.blocks[5]])
    report = audit(home)
    assert (report.ok, report.first_bad_height) == (False, 5)
    assert "index: transaction 0" in str(report.problem)


def test_an_index_of_another_chain_is_found(home: Path) -> None:
    write_index(home, ChainFactory("other"), [])
    assert audit(home).ok  # it says nothing yet
    write_index(home, ChainFactory("other"), ChainFactory("other").grow(1))
    assert "another chain" in str(audit(home).problem)


def test_an_index_that_lags_or_is_gone_is_no_fault(home: Path, factory: ChainFactory) -> None:
    write_index(home, factory, factory.blocks[:2])
    assert audit(home).ok
    shutil.rmtree(home / "index")
    assert audit(home).ok


def test_a_damaged_index_is_found(home: Path) -> None:
    (home / "index" / "data.mdb").write_bytes(b"no index")
    report = audit(home)
    assert not report.ok
    assert "index" in str(report.problem)


def test_a_finality_mark_for_another_height_is_found(home: Path, factory: ChainFactory) -> None:
    def change(record: Record) -> Record:
        if (record.type, record.height) != (FINAL, 4):
            return record
        mark = decode_mark(record.payload)
        wrong = FinalityMark(factory.blocks[0].hash, factory.finalizations[0])
        assert mark.block_hash == factory.blocks[3].hash
        return replace(record, payload=wrong.encode())

    rewrite(home, change)
    report = audit(home)
    assert (report.ok, report.first_bad_height) == (False, 4)


def test_another_genesis_is_found(home: Path) -> None:
    shutil.copy(ChainFactory("other").write_home(home.parent / "other") / "genesis.json", home)
    report = audit(home)
    assert (report.ok, report.first_bad_height) == (False, 0)
    assert "chain" in str(report.problem)


def test_the_command_prints_one_document_and_its_code_tells(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "--home", str(home), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document) == ["blocks", "transactions", "ok", "first_bad_height", "problem", "seconds"]
    assert document["ok"] is True
    log = bytearray((home / "blocks.log").read_bytes())
    log[read_records(home)[3].offset + 100] ^= 1
    (home / "blocks.log").write_bytes(log)
    assert main(["audit", "--home", str(home)]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("block 2 does not hold: the checksum")
    assert captured.err == ""
    assert main(["audit", "--home", str(home / "nowhere")]) == 2
