"""`assay verify refusal` against nodes that keep their log, lost it, rewrote it, or hide it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from consensus import merkle
from consensus.block import Header
from consensus.genesis import write_genesis
from consensus.refusal import LogBeginning, LogEntry, LogHead, RefusalEntry, encode_entry, get_head
from node import clock
from node.api.door import BlockRecord
from node.api.refusal_records import ConsistencyProof, LoggedRecord, RefusalPage, RefusalProof, RefusalRecord
from node.client import refusals
from tests.fakes.light_door import LightDoor
from tests.ledger_chain import alter
from tests.staking_chain import OPERATORS
from tests.unit.test_client_commands import run
from tests.unit.test_light import Source
from tests.unit.test_verify_command import name, serve, verify

OWN = OPERATORS[2]
WANTED = b"w" * 32
TXID = "0x" + WANTED.hex()


def make_entry(number: int, transaction_id: bytes = b"") -> RefusalEntry:
    tx_id = transaction_id or bytes([number]) * 32
    return RefusalEntry(tx_id, 9_000 + number, b"m" * 32, ("amount is 5 times the mean",), 1_000, 2)


class Proposer:
    """A chain in which one validator keeps a log, and a door to it; `entries` may change as a liar's do."""

    def __init__(self) -> None:
        self.source = Source()
        self.entries: list[LogEntry] = []
        self.committed = 0  # entries that the newest own block counts
        self.door = RefusalDoor(self)

    @property
    def leaves(self) -> list[bytes]:
        return [encode_entry(entry) for entry in self.entries]

    def grow(self, blocks: int) -> None:
        chain = self.source.chain
        for _ in range(blocks):
            block = chain.build().block
            if block.header.proposer == OWN.public_key:
                leaves = self.leaves
                self.committed = len(leaves)
                block = alter(block, refusal_count=len(leaves), refusal_root=merkle.compute_root(leaves))
            chain.add(block)
            self.source.remember()

    def grow_past_own(self) -> Header:
        """Until a block of its own is followed by others; that block's header."""
        self.grow(5)
        return self.get_newest()

    def get_newest(self) -> Header:
        own = [b.header for b in self.source.chain.blocks if b.header.proposer == OWN.public_key]
        return own[-1]


class RefusalDoor(LightDoor):
    def __init__(self, proposer: Proposer) -> None:
        super().__init__(proposer.source)
        self.proposer = proposer

    def get_blocks(self, first: int, limit: int) -> Iterator[BlockRecord]:
        for block in self.source.chain.blocks[first - 1 : first - 1 + limit]:
            final = self.source.finalize(block.header)
            yield BlockRecord(block, True, final.certificate, ())

    def list_logged(self) -> list[LoggedRecord]:
        pairs = zip(self.proposer.leaves, self.proposer.entries, strict=True)
        return [LoggedRecord(index, leaf, entry) for index, (leaf, entry) in enumerate(pairs)]

    def get_refusal(self, transaction_id: bytes) -> RefusalRecord | None:
        found = [
            logged
            for logged in self.list_logged()
            if isinstance(logged.entry, RefusalEntry) and logged.entry.transaction_id == transaction_id
        ]
        if not found:
            return None
        proof = None
        if found[0].index < self.proposer.committed:
            header = self.proposer.get_newest()
            siblings = merkle.prove_inclusion(self.proposer.leaves[: header.refusal_count], found[0].index)
            proof = RefusalProof(header, siblings, self.source.finalize(header).certificate, ())
        return RefusalRecord(transaction_id, "refused", "scored", 9_000, 2, 1_000, found[0], proof)

    def get_refusals(self, first: int, limit: int) -> RefusalPage:
        self.logged = self.list_logged()
        return super().get_refusals(first, limit)

    def prove_refusals(self, first: int, second: int | None) -> ConsistencyProof:
        self.logged = self.list_logged()
        return super().prove_refusals(first, second)


@pytest.fixture
def proposer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Proposer:
    proposer = Proposer()
    monkeypatch.chdir(tmp_path)  # where proofs of lies go
    monkeypatch.setattr(clock.SystemClock, "now_ms", lambda _: proposer.source.now_ms)
    return proposer


@pytest.fixture
def url(proposer: Proposer) -> Iterator[str]:
    with serve(proposer.door) as url:
        yield url


def trust(proposer: Proposer) -> tuple[str, str]:
    return "--checkpoint", name(proposer.source, 1)


def log_three(proposer: Proposer) -> None:
    """Two refusals, committed to; then the wanted one, committed to later."""
    proposer.entries += [make_entry(1), make_entry(2)]
    proposer.grow_past_own()
    proposer.entries.append(make_entry(3, WANTED))
    proposer.grow_past_own()


def test_a_refusal_is_verified_with_the_growth_of_its_log(
    proposer: Proposer, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log_three(proposer)
    code, report = verify(capsys, "refusal", TXID, *trust(proposer), "--api", url)
    assert (code, report["ok"], report["score"], report["index"]) == (0, True, 9_003, 2)
    assert report["reasons"] == ["amount is 5 times the mean"]
    assert report["height"] == proposer.get_newest().height
    assert report["proposer"] == "0x" + OWN.address.hex()
    assert report["earlier_heads_compared"] >= 1
    assert report["log_lost_after"] == []
    genesis = tmp_path / "genesis.json"
    genesis.write_text(write_genesis(proposer.source.chain.rules.genesis))
    assert run("verify", "refusal", TXID, "--genesis", str(genesis), "--api", url) == 0
    assert "amount is 5 times the mean" in capsys.readouterr().out
    late = ("--checkpoint", name(proposer.source, len(proposer.source.chain.blocks)))
    assert verify(capsys, "refusal", TXID, *late, "--api", url)[0] == 0  # proven below the trusted block


def test_what_is_not_in_a_final_block_is_not_verified(
    proposer: Proposer, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    proposer.grow(2)
    code, report = verify(capsys, "refusal", TXID, *trust(proposer), "--api", url)
    assert (code, report["code"]) == (1, "not_found")
    proposer.entries.append(make_entry(3, WANTED))
    code, report = verify(capsys, "refusal", TXID, *trust(proposer), "--api", url)
    assert (code, report["code"]) == (1, "not_committed")
    real = proposer.door.get_refusal(WANTED)
    assert real is not None
    unlogged = RefusalRecord(WANTED, "policy", "not here", None, 2, 1_000)
    monkeypatch.setattr(proposer.door, "get_refusal", lambda _: unlogged)
    code, report = verify(capsys, "refusal", TXID, *trust(proposer), "--api", url)
    assert (code, report["code"]) == (1, "not_logged")


def test_another_entry_or_another_header_does_not_hold(
    proposer: Proposer, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log_three(proposer)
    real = proposer.door.get_refusal(WANTED)
    assert real is not None
    assert real.logged is not None
    assert real.proof is not None
    proof = real.proof
    changed = encode_entry(make_entry(7, WANTED))
    other = encode_entry(make_entry(7))
    fake = alter(proposer.source.chain.blocks[-1], refusal_count=3, refusal_root=b"r" * 32).header
    for logged, shown in (
        (LoggedRecord(2, changed, make_entry(7)), proof),
        (LoggedRecord(2, other, make_entry(7)), proof),
        (real.logged, RefusalProof(proof.header, proof.siblings[:-1], proof.certificate, ())),
        (real.logged, RefusalProof(fake, proof.siblings, proof.certificate, ())),
    ):
        lie = RefusalRecord(WANTED, "refused", "r", 9_003, 2, 1_000, logged, shown)
        monkeypatch.setattr(proposer.door, "get_refusal", lambda _, lie=lie: lie)
        code, report = verify(capsys, "refusal", TXID, *trust(proposer), "--api", url)
        assert (code, report["ok"], report["code"]) == (1, False, "proof")


def test_a_rewritten_log_is_told_with_both_headers(
    proposer: Proposer, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log_three(proposer)
    del proposer.entries[0]  # the refusal of somebody who complained
    proposer.entries += [make_entry(4), make_entry(5)]
    proposer.grow_past_own()
    file = tmp_path / "proof.json"
    code, report = verify(
        capsys, "refusal", TXID, *trust(proposer), "--api", url, "--evidence", str(file)
    )  # fmt: skip
    assert (code, report["ok"], report["code"]) == (1, False, "rewritten")
    assert report["accused"] == ["0x" + OWN.address.hex()]
    document = json.loads(file.read_text())
    earlier, later = (item["header"] for item in document["blocks"])
    assert (earlier["refusal_count"], later["refusal_count"]) == (3, 4)
    assert earlier["proposer"] == later["proposer"]
    assert all(item["certificate"]["kind"] == "finalize" for item in document["blocks"])


def test_a_log_that_was_lost_is_told_from_a_rewritten_one(
    proposer: Proposer, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log_three(proposer)
    lost = proposer.get_newest()
    proposer.entries = [LogBeginning(get_head(lost), lost.hash, lost.height, 5), make_entry(3, WANTED)]
    proposer.grow_past_own()
    code, report = verify(capsys, "refusal", TXID, *trust(proposer), "--api", url)
    assert (code, report["ok"]) == (0, True)
    assert report["log_lost_after"] == [{"height": lost.height, "refusals": 3}]
    # Naming another block than its own newest one is no excuse.
    proposer.entries = [LogBeginning(LogHead(1, b"r" * 32), lost.hash, lost.height, 5), *proposer.entries[1:]]
    proposer.grow_past_own()
    assert verify(capsys, "refusal", TXID, *trust(proposer), "--api", url)[1]["code"] == "rewritten"


def test_a_node_that_hides_its_log_is_told(
    proposer: Proposer, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log_three(proposer)
    del proposer.entries[0]
    proposer.grow_past_own()
    head = get_head(proposer.get_newest())
    monkeypatch.setattr(proposer.door, "get_refusals", lambda *_: RefusalPage(head, ()))
    code, report = verify(capsys, "refusal", TXID, *trust(proposer), "--api", url)
    assert (code, report["code"]) == (1, "hidden")


def test_how_far_back_is_compared_can_be_said(
    proposer: Proposer, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log_three(proposer)
    proposer.entries[0] = make_entry(9)
    proposer.grow_past_own()
    newest = proposer.get_newest().height
    arguments = ("refusal", TXID, *trust(proposer), "--api", url, "--since")
    assert verify(capsys, *arguments, str(newest))[1]["earlier_heads_compared"] == 0
    assert verify(capsys, *arguments, "2")[1]["code"] == "rewritten"
    monkeypatch.setattr(refusals, "HEADERS_MAX", 3)
    assert run("verify", *arguments, "1") == 2
    assert run("verify", *arguments, "0") == 2
    assert "--since" in capsys.readouterr().err
