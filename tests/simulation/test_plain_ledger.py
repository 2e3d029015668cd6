"""The plain ledger reckons a sound chain as the real one does, and objects to each broken promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from consensus.block import Block
from consensus.ledger.cases import encode_about
from consensus.ledger.report import decode_payload, encode_payload
from consensus.ledger.rules import Rules
from consensus.ledger.scoring import FLAG, REFUSE
from consensus.transaction import (
    KIND_DISPUTE_REPORT,
    KIND_REPORT,
    KIND_WITHDRAW_REPORT,
    Transaction,
)
from consensus.vote import NULLIFY, Certificate
from node.simulation.checkers import Violation
from node.simulation.full_nodes.plain_ledger import PlainAccount, PlainLedger
from tests.fakes.final_chains import ACCOUNTS, BALANCE, BYTE_FEE, START_MS, STRANGER, History, make_rules


def make_plain(rules: Rules) -> PlainLedger:
    first = rules.create_genesis_state().header
    return PlainLedger(rules.genesis, first, rules.row_bytes)


def replay(history: History) -> PlainLedger:
    plain = make_plain(history.rules)
    for block in history.blocks:
        plain.apply(block)
    return plain


def test_a_sound_history_is_reckoned_as_the_ledger_has_it() -> None:
    history = History()
    history.grow(history.pay(0, 0), history.pay(0, 1), history.pay(1, 7, receiver=ACCOUNTS[1].address))
    fee = 1 + BYTE_FEE * history.rules.row_bytes
    history.grow(history.pay(2, 3, receiver=STRANGER.address, amount=600, fee=fee))
    history.grow(history.pay(STRANGER, 70), history.pay(STRANGER, 8))
    history.grow(history.report(1))
    history.grow()
    plain, view = replay(history), history.state.view()
    assert view.account_count == len(plain.accounts)
    for address, account in plain.accounts.items():
        row = view.get_account(address)
        assert row is not None
        told = (row.balance, view.get_bonded_units(address), row.nonce_next, row.nonce_window)
        assert told == (account.balance, account.stake, account.nonce_next, account.nonce_window)
    assert plain.supply == view.supply == plain.count_money()
    assert plain.places[history.blocks[2].transactions[1].id] == (3, 1)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("one chain", lambda h: h.craft(height=4)),
        ("one chain", lambda h: h.craft(parent_hash=bytes(32))),
        ("one chain", lambda h: h.craft(parent_view=1)),
        ("one chain", lambda h: h.craft(view=2)),
        ("proposers", lambda h: h.craft(proposer=ACCOUNTS[0].public_key)),
        ("history", lambda h: h.craft(history_root=bytes(32))),
        ("bodies", lambda h: h.craft(h.pay(1), transaction_count=2)),
        ("bodies", lambda h: replace(h.craft(h.pay(1)), scores=(0, 0))),
        ("bodies", lambda h: h.craft(h.pay(1), transactions_root=bytes(32))),
        ("bodies", lambda h: replace(h.craft(h.pay(1)), scores=(1,))),
        ("sizes", lambda h: h.craft(*(h.pay(1, nonce) for nonce in range(9)))),
        ("refusals", lambda h: h.craft(h.pay(1), outcomes=bytes((REFUSE,)))),
        ("refusals", lambda h: h.craft(h.pay(1), scores=(5_000,), outcomes=bytes((FLAG,)))),
        ("refusal logs", lambda h: h.craft(refusal_count=1)),
        ("refusal logs", lambda h: h.craft(refusal_root=b"r" * 32)),
        ("certificates", lambda h: replace(h.craft(), parent_certificate=None)),
        ("certificates", lambda h: h.craft(certificate=h.certify(h.headers[0]))),
        ("certificates", lambda h: h.craft(certificate=h.certify(h.headers[-1], NULLIFY))),
        ("certificates", lambda h: h.craft(certificate=h.certify(h.headers[-1], signers=(0, 1)))),
        ("certificates", lambda h: h.craft(certificate=h.certify(h.headers[-1], signers=(0, 1, 1)))),
        ("certificates", lambda h: h.craft(certificate=forge_signature(h.certify(h.headers[-1])))),
        ("times", lambda h: h.craft(timestamp_ms=h.now_ms - 1)),
        ("once", lambda h: h.craft(h.blocks[0].transactions[0])),
        ("signatures", lambda h: h.craft(replace(h.pay(1), signature=bytes(64)))),
        ("signatures", lambda h: h.craft(replace(h.pay(1), amount=11))),
        ("money", lambda h: h.craft(h.pay(STRANGER))),
        ("nonces", lambda h: h.craft(h.pay(0, 0, amount=1))),
        ("nonces", lambda h: h.craft(h.pay(1, 70), h.pay(1, 6))),
        ("times", lambda h: h.craft(h.pay(1, expires_ms=h.now_ms + 1), timestamp_ms=h.now_ms + 2)),
        ("times", lambda h: h.craft(h.pay(1, timestamp_ms=h.now_ms - 1_001), timestamp_ms=h.now_ms)),
        ("times", lambda h: h.craft(h.pay(1, timestamp_ms=h.now_ms + 101), timestamp_ms=h.now_ms)),
        ("fees", lambda h: h.craft(h.pay(1, fee=0))),
        ("fees", lambda h: h.craft(h.pay(1, receiver=STRANGER.address, fee=BYTE_FEE))),
        ("money", lambda h: h.craft(h.pay(1, amount=BALANCE + 10))),
        ("money", lambda h: h.craft(h.pay(2, 0, amount=6_000), h.pay(2, 1, amount=6_000))),
        ("transfers", lambda h: h.craft(h.pay(1, payload=b"x"))),
        ("reports", lambda h: h.craft(h.report(1, sender=1, nonce=0))),
        ("reports", lambda h: h.craft(h.report(1), h.report(1, nonce=51))),
        ("reports", lambda h: h.craft(misquote(h, score=1))),
        ("reports", lambda h: h.craft(misquote(h, index=1))),
        ("reports", lambda h: h.craft(misquote(h, header=replace(h.headers[1], view=9)))),
    ],
)
def test_a_block_that_breaks_a_promise(name: str, make: Callable[[History], Block]) -> None:
    history = History()
    history.append(history.craft(history.pay(0, 0)))
    history.append(history.craft())
    plain = replay(history)
    plain_again = replay(history)
    plain_again.apply(history.craft(history.pay(1), history.pay(3, 5)))  # but for its fault it would pass
    with pytest.raises(Violation, match=rf"^{name}: "):
        plain.apply(make(history))


def forge_signature(certificate: Certificate) -> Certificate:
    return replace(certificate, signatures=(*certificate.signatures[:2], (2, bytes(64))))


def misquote(history: History, **fields: object) -> Transaction:
    sound = history.report(1)
    payload = encode_payload(replace(decode_payload(sound.payload), **fields))  # type: ignore[arg-type]
    return history.pay(0, 50, kind=KIND_REPORT, receiver=ACCOUNTS[1].address, amount=0, payload=payload)


def test_a_report_that_comes_too_late() -> None:
    history = History(make_rules(report_window_ms=5))
    history.append(history.craft(history.pay(0, 0)))
    history.append(history.craft())
    plain = replay(history)
    with pytest.raises(Violation, match=r"^reports: .* too late"):
        plain.apply(history.craft(history.report(1)))


def make_reported() -> History:
    """Block 1 pays, block 3 holds a report of that by account 0."""
    history = History(make_rules())
    history.append(history.craft(history.pay(0, 0)))
    history.append(history.craft())
    history.append(history.craft(history.report(1)))
    return history


def about(history: History, sender: int, nonce: int, kind: int, amount: int = 0) -> Transaction:
    payload = encode_about(history.blocks[0].transactions[0])
    return history.pay(sender, nonce, kind=kind, amount=amount, payload=payload)


def test_a_report_that_is_taken_back_or_disputed_is_reckoned() -> None:
    history = make_reported()
    deposit = history.rules.parameters.dispute_deposit_units
    taken = replay(history)
    taken.apply(history.craft(about(history, 0, 60, KIND_WITHDRAW_REPORT)))
    disputed = replay(history)
    disputed.apply(history.craft(about(history, 1, 60, KIND_DISPUTE_REPORT, deposit)))
    assert disputed.count_money() == disputed.supply
    assert sum(a.balance + a.stake for a in disputed.accounts.values()) == disputed.supply - deposit


@pytest.mark.parametrize(
    "spoil",
    [
        lambda h: (about(h, 1, 60, KIND_WITHDRAW_REPORT),),
        lambda h: (about(h, 0, 60, KIND_WITHDRAW_REPORT), about(h, 0, 61, KIND_WITHDRAW_REPORT)),
        lambda h: (about(h, 0, 60, KIND_WITHDRAW_REPORT), h.report(1, nonce=61)),
        lambda h: (about(h, 2, 60, KIND_DISPUTE_REPORT, 1_000),),
        lambda h: (about(h, 1, 60, KIND_DISPUTE_REPORT, 999),),
        lambda h: (about(h, 1, 60, KIND_DISPUTE_REPORT, 1_000), about(h, 0, 60, KIND_WITHDRAW_REPORT)),
        lambda h: (about(h, 1, 60, KIND_DISPUTE_REPORT, 1_000), about(h, 0, 60, KIND_DISPUTE_REPORT, 1_000)),
    ],
)
def test_a_block_that_takes_back_or_disputes_what_may_not_be(
    spoil: Callable[[History], tuple[Transaction, ...]],
) -> None:
    history = make_reported()
    with pytest.raises(Violation, match=r"^reports: "):
        replay(history).apply(history.craft(*spoil(history)))


def test_a_report_told_of_and_taken_back_in_one_block() -> None:
    history = History()
    history.append(history.craft(history.pay(0, 0)))
    history.append(history.craft())
    both = (history.report(1), about(history, 0, 60, KIND_WITHDRAW_REPORT))
    with pytest.raises(Violation, match=r"^reports: .* takes it back"):
        replay(history).apply(history.craft(*both))


def test_on_the_workload_clock_a_block_is_of_its_latest_transaction() -> None:
    history = History(make_rules("workload"))
    transfer = history.pay(0, 0, timestamp_ms=START_MS + 40, expires_ms=START_MS + 900)
    make_plain(history.rules).apply(history.craft(transfer, timestamp_ms=START_MS + 40))
    for wrong_ms in (START_MS + 39, START_MS + 41):
        with pytest.raises(Violation, match=r"^times: "):
            make_plain(history.rules).apply(history.craft(transfer, timestamp_ms=wrong_ms))


def test_money_that_comes_from_nowhere() -> None:
    history = History()
    plain = make_plain(history.rules)
    plain.accounts[STRANGER.address] = PlainAccount(balance=1)
    with pytest.raises(Violation, match=r"^money: after block 1"):
        plain.apply(history.craft())
