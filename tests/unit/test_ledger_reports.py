"""Reports: by whom, of what, once, in time, and with both proofs; and what they leave in the state."""

from dataclasses import replace

import pytest

from consensus.errors import NotYet, Rejected
from consensus.ledger import cases, report
from consensus.ledger import records as rec
from consensus.ledger.report import decode_payload, encode_payload
from consensus.parameters import DAY_MS, Parameters
from consensus.transaction import KIND_REPORT, Transaction
from tests.ledger_chain import KEYS, START_MS, STRANGERS, Chain, make_genesis

A, B, C, D = KEYS[:4]
HOUR_MS = 3_600_000
CONTEST_MS, VOTE_MS = Parameters().report_contest_ms, Parameters().dispute_vote_ms


@pytest.fixture
def chain() -> Chain:
    """Block 1 holds three transfers (C to D first), three more blocks stand above it."""
    chain = Chain()
    chain.grow(chain.transfer(C, D, amount=25_000), chain.transfer(D, A), chain.transfer(C, A))
    for _ in range(3):
        chain.grow(chain.transfer(A, B))
    return chain


def reject(chain: Chain, tx: Transaction) -> Rejected | NotYet:
    root = chain.view.root
    built = chain.build(tx)
    assert [found for found, _ in built.rejected] == [tx]
    assert chain.view.root == root
    return built.rejected[0][1]


def change(chain: Chain, **fields: object) -> Transaction:
    """A report of block 1's first transfer, with other fields in its payload."""
    good = chain.report(1, 0)
    return replace(good, payload=encode_payload(replace(decode_payload(good.payload), **fields)))  # type: ignore[arg-type]


def count_records(chain: Chain) -> int:
    return sum(1 for _ in chain.view.records.walk(cases.NAMESPACE))


def test_a_report_counts_in_the_rows_of_the_receiver_and_is_not_scored(chain: Chain) -> None:
    built = chain.grow(chain.report(1, 0), chain.transfer(A, B))
    assert (built.block.scores[0], built.block.outcomes[0]) == (0, 0)
    assert chain.view.get_module_rows(D.address) == b"\x00\x00\x01\x00\x01"
    assert chain.view.get_module_rows(C.address) == b"\x00\x00\x02\x00\x00"
    assert count_records(chain) == 1


def test_a_report_takes_effect_after_the_transfers_of_its_block(chain: Chain) -> None:
    spend = chain.transfer(D, B, amount=1_000)
    alone = chain.build(spend)
    built = chain.grow(chain.report(1, 0), spend)
    assert built.block.scores == (0, *alone.block.scores)


def test_a_payload_decodes_to_itself(chain: Chain) -> None:
    payload = chain.report(1, 2).payload
    decoded = decode_payload(payload)
    assert encode_payload(decoded) == payload
    assert decoded.reported == chain.blocks[0].transactions[2]


def test_only_a_reporter_may_report(chain: Chain) -> None:
    assert reject(chain, chain.report(1, 0, C)).code == "report_sender"
    chain.grow(chain.report(1, 0, A))


def test_a_reporter_reports_a_transfer_once(chain: Chain) -> None:
    first, second = chain.report(1, 0, A), chain.report(1, 0, A)
    built = chain.build(first, second)
    assert [(tx, error.code) for tx, error in built.rejected] == [(second, "report_twice")]
    chain.add(built.block)
    assert reject(chain, chain.report(1, 0, A)).code == "report_twice"
    chain.grow(chain.report(1, 1, A))


def test_two_reporters_of_one_transfer_count_once(chain: Chain) -> None:
    chain.grow(chain.report(1, 0, A), chain.report(1, 0, B))
    assert chain.view.get_module_rows(D.address) == b"\x00\x00\x01\x00\x01"
    assert count_records(chain) == 1


def test_a_report_cannot_be_reported(chain: Chain) -> None:
    chain.grow(chain.report(1, 0))
    chain.grow(chain.transfer(A, B))
    chain.grow(chain.transfer(A, B))
    assert reject(chain, chain.report(5, 0, A)).code == "report_kind"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"score": 2_499}, "report_proof"),
        ({"outcome": 0}, "report_proof"),
        ({"outcome": 2}, "range"),
        ({"score": 10_001}, "range"),
        ({"index": 1}, "report_proof"),
        ({"index": 3}, "report_proof"),
        ({"inclusion_proof": ()}, "report_proof"),
        ({"inclusion_proof": (b"x" * 32,) * 64}, "encoding"),
        ({"history_proof": ()}, "report_proof"),
        ({"history_proof": (b"x" * 31,)}, "size"),
        ({"anchor_height": 1}, "report_proof"),
        ({"anchor_height": 2}, "report_proof"),
    ],
)
def test_a_proof_that_does_not_hold_is_refused(chain: Chain, fields: dict[str, object], code: str) -> None:
    assert reject(chain, change(chain, **fields)).code == code


def test_a_transaction_of_another_chain_cannot_be_reported(chain: Chain) -> None:
    other = Chain(make_genesis(report_window_ms=DAY_MS))
    other.grow(other.transfer(C, D, amount=7))
    for _ in range(3):
        other.grow(other.transfer(A, B))
    foreign = other.report(1, 0)
    assert reject(chain, replace(foreign, nonce=40)).code == "report_proof"


def test_an_anchor_that_is_not_there_yet_may_come(chain: Chain) -> None:
    early = change(chain, anchor_height=chain.view.header.height + 1)
    assert isinstance(reject(chain, early), NotYet)


def test_an_anchor_that_is_forgotten_is_refused(chain: Chain) -> None:
    tx = chain.report(1, 0)
    height = decode_payload(tx.payload).anchor_height
    assert chain.view.get_history_root(height) is not None
    chain.view.records = chain.view.records.remove(rec.NAMESPACE_ANCHOR + height.to_bytes(8, "big"))
    assert reject(chain, tx).code == "report_anchor"


def test_the_last_1024_history_roots_are_kept_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consensus.ledger.work.ANCHORS_MAX", 5)
    chain = Chain()
    for _ in range(9):
        chain.grow()
    kept = [int.from_bytes(key[1:], "big") for key, _ in chain.view.records.walk(rec.NAMESPACE_ANCHOR)]
    assert kept == [5, 6, 7, 8, 9]
    assert report.ANCHORS_MAX == 1024
    for height in kept:
        assert chain.view.get_history_root(height) == chain.history.root(height)
    assert chain.view.get_history_root(-1) is None
    assert chain.view.get_history_root(2**80) is None


@pytest.mark.parametrize(
    ("fields", "named"),
    [({"amount": 1}, "amount"), ({"receiver": A.address}, "receiver"), ({"payload": b""}, "payload")],
)
def test_an_envelope_that_does_not_fit_a_report_is_refused(
    chain: Chain, fields: dict[str, object], named: str
) -> None:
    error = reject(chain, replace(chain.report(1, 0), **fields))  # type: ignore[arg-type]
    assert error.field == named


@pytest.mark.parametrize("payload", [b"\x90", b"\x98" + b"\xc0" * 8, b"\xff" * 50, b"\x98" + b"\xc4\x00" * 8])
def test_nonsense_as_a_payload_is_refused_without_a_traceback(chain: Chain, payload: bytes) -> None:
    assert isinstance(reject(chain, chain.make(KIND_REPORT, A, D.address, payload)), Rejected)


def test_a_report_comes_within_its_window() -> None:
    window_ms = 10 * HOUR_MS
    chain = Chain(make_genesis(report_window_ms=window_ms))
    chain.grow(chain.transfer(C, D))
    chain.grow(chain.transfer(A, B))
    late = chain.report(1, 0, timestamp_ms=START_MS + window_ms + 1)
    assert reject(chain, late).code == "report_window"
    chain.grow(chain.report(1, 0, A, timestamp_ms=START_MS + window_ms))


def test_workload_a_report_at_the_end_of_its_window_is_not_outdated_by_its_block() -> None:
    window_ms = 10 * HOUR_MS
    chain = Chain(make_genesis(report_window_ms=window_ms))
    chain.grow(chain.transfer(C, D))
    chain.grow(chain.transfer(A, B))
    last = chain.report(1, 0, A, timestamp_ms=START_MS + window_ms)
    later = chain.transfer(C, D, timestamp_ms=START_MS + window_ms + 1)
    built = chain.build(last, later)
    assert (built.block.transactions, built.deferred) == ((last,), (later,))
    chain.add(built.block)


def test_what_was_reported_is_forgotten_once_it_cannot_be_reported_again() -> None:
    chain = Chain(make_genesis(report_window_ms=2 * DAY_MS))
    chain.grow(*(chain.transfer(C, D) for _ in range(4)))
    chain.grow(chain.transfer(A, B))
    chain.grow(*(chain.report(1, index) for index in range(4)))
    assert count_records(chain) == 4
    open_ms = 2 * DAY_MS + CONTEST_MS + 2 * VOTE_MS
    for days in (20, 40, 43):
        chain.grow(chain.transfer(A, B, timestamp_ms=START_MS + days * DAY_MS))
    chain.grow(chain.transfer(A, B, timestamp_ms=START_MS + open_ms))
    assert count_records(chain) == 4
    chain.grow(chain.transfer(A, B, timestamp_ms=START_MS + open_ms + DAY_MS))
    assert count_records(chain) == 0
    assert not any(True for _ in chain.view.records.walk(cases.NAMESPACE_FILING))


def test_a_block_forgets_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "EXPIRED_PER_BLOCK_MAX", 3)
    chain = Chain(make_genesis(report_window_ms=2 * DAY_MS))
    chain.grow(*(chain.transfer(C, D) for _ in range(4)))
    chain.grow(chain.transfer(A, B))
    chain.grow(*(chain.report(1, index) for index in range(4)))
    for days in (25, 50):
        chain.grow(chain.transfer(A, B, timestamp_ms=START_MS + days * DAY_MS))
    assert count_records(chain) == 1
    chain.grow()
    assert count_records(chain) == 0


def test_a_report_is_deferred_when_its_account_waits_for_a_refused_one(chain: Chain) -> None:
    refused = chain.transfer(C, STRANGERS[0], amount=90_000)
    tx = chain.report(1, 0, A)
    built = chain.build(refused, tx)
    assert [found for found, _ in built.refused] == [refused]
    assert built.deferred == (tx,)
