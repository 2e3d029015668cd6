"""Signature checks beside the loop: right answers in order, once each, and no process left behind."""

import asyncio
import logging
import os
import random
import select
import signal
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus import crypto
from consensus.transaction import Transaction, compute_signing_digest, sign_transaction
from node.signature_worker import (
    BATCHES_IN_FLIGHT_MAX,
    COUNT_BYTES,
    ITEM_BYTES,
    ITEMS_MAX,
    SignatureWorker,
    serve,
    split_items,
)
from node.verification import BATCH_ITEMS, InlineVerifier, VerifiedIds, Verifier

CHAIN = "test-chain"
KEYS = [crypto.PrivateKey.from_seed(bytes([number])) for number in range(8)]
WAIT_SECONDS = 30


def make_transaction(number: int, *, chain_id: str = CHAIN) -> Transaction:
    key = KEYS[number % len(KEYS)]
    return sign_transaction(
        key,
        chain_id,
        nonce=number,
        receiver=KEYS[0].address,
        amount=number,
        fee=1,
        timestamp_ms=1_000,
        expires_ms=2_000,
    )


def make_mixture(count: int, seed: int) -> tuple[list[Transaction], list[bool]]:
    """Transactions of this chain and, here and there, of another one, whose signatures do not hold."""
    rng = random.Random(seed)
    truth = [rng.random() < 0.7 for _ in range(count)]
    chains = [CHAIN if good else "other-chain" for good in truth]
    return [make_transaction(number, chain_id=chain) for number, chain in enumerate(chains)], truth


@pytest.fixture(params=["worker", "inline"])
def worker(request: pytest.FixtureRequest) -> Iterator[SignatureWorker | None]:
    if request.param == "inline":
        yield None
        return
    started = SignatureWorker.start()
    yield started
    if started.is_alive:
        started.close()


async def test_answers_come_one_per_transaction_in_order(worker: SignatureWorker | None, seed: int) -> None:
    transactions, truth = make_mixture(2 * BATCH_ITEMS + 7, seed)
    verifier = Verifier(CHAIN, worker)
    assert await verifier.verify(transactions) == truth
    assert [verifier.is_verified(tx.id) for tx in transactions] == truth
    await verifier.close()


async def test_several_callers_at_once_each_get_their_own_answers(
    worker: SignatureWorker | None, seed: int
) -> None:
    transactions, truth = make_mixture(3 * BATCH_ITEMS, seed)
    verifier = Verifier(CHAIN, worker)
    parts = [slice(start, start + 50) for start in range(0, len(transactions), 50)]
    answers = await asyncio.gather(*(verifier.verify_new(transactions[part]) for part in parts))
    assert [answer for part in answers for answer in part] == truth
    await verifier.close()


async def test_a_signature_is_checked_once_however_many_ask_for_it(
    worker: SignatureWorker | None, seed: int
) -> None:
    transactions, truth = make_mixture(BATCH_ITEMS, seed)
    verifier = Verifier(CHAIN, worker)
    answers = await asyncio.gather(*(verifier.verify_new(transactions) for _ in range(5)))
    assert answers == [truth] * 5
    assert verifier.checked == len(transactions)
    valid = [tx for tx, good in zip(transactions, truth, strict=True) if good]
    assert all(await verifier.verify_new(valid, urgent=True))
    assert verifier.checked == len(transactions)
    await verifier.close()


async def test_a_wrong_signature_is_not_remembered() -> None:
    verifier = InlineVerifier(CHAIN)
    wrong = make_transaction(1, chain_id="other-chain")
    assert await verifier.verify_new([wrong, wrong]) == [False, False]
    assert not verifier.is_verified(wrong.id)
    assert await verifier.verify_new([]) == []


async def test_one_callers_cancellation_is_not_the_others(worker: SignatureWorker | None) -> None:
    transactions = [make_transaction(number) for number in range(BATCH_ITEMS)]
    verifier = Verifier(CHAIN, worker)
    first = asyncio.ensure_future(verifier.verify_new(transactions))
    second = asyncio.ensure_future(verifier.verify_new(transactions))
    await asyncio.sleep(0)
    first.cancel()
    assert all(await second)
    assert first.cancelled()
    await verifier.close()


async def test_an_urgent_request_overtakes_those_that_wait(worker: SignatureWorker | None) -> None:
    verifier = Verifier(CHAIN, worker)
    many = [make_transaction(number) for number in range(8 * BATCH_ITEMS)]
    patient = asyncio.ensure_future(verifier.verify_new(many))
    await asyncio.sleep(0)
    assert verifier.waiting > 0
    assert await verifier.verify_new([make_transaction(100_000)], urgent=True) == [True]
    assert not patient.done()
    assert all(await patient)
    assert verifier.waiting == 0
    await verifier.close()


async def test_a_worker_that_dies_is_replaced_by_the_loop_and_said_once(
    caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    worker = SignatureWorker.start()
    verifier = Verifier(CHAIN, worker)
    transactions, truth = make_mixture(6 * BATCH_ITEMS, seed)
    asked = asyncio.ensure_future(verifier.verify(transactions))
    await asyncio.sleep(0)
    os.kill(worker.pid, signal.SIGKILL)
    with caplog.at_level(logging.ERROR):
        assert await asked == truth
        assert await verifier.verify_new(transactions) == truth
    assert not verifier.has_worker
    assert len(caplog.records) == 1
    assert "signature worker ended" in caplog.text
    await verifier.close()


async def test_closing_ends_the_process_and_cancels_who_waits() -> None:
    worker = SignatureWorker.start()
    verifier = Verifier(CHAIN, worker)
    asked = asyncio.ensure_future(verifier.verify([make_transaction(n) for n in range(4 * BATCH_ITEMS)]))
    await asyncio.sleep(0)
    await verifier.close()
    with pytest.raises(asyncio.CancelledError):
        await asked
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)


def test_the_worker_outlives_neither_a_killed_parent_nor_its_siblings() -> None:
    # A parent with two workers, killed by force. The pipe's end of file comes when the last of the three is gone.
    reading, writing = os.pipe()
    parent = os.fork()
    if parent == 0:
        os.close(reading)
        os.dup2(writing, 1)  # the workers keep standard output, and with it this pipe
        os.close(writing)
        kept = [SignatureWorker.start(), SignatureWorker.start()]
        os.write(1, b"%d" % len(kept))
        signal.pause()
        os._exit(0)
    os.close(writing)
    assert os.read(reading, 16) == b"2"
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    readable, _, _ = select.select([reading], [], [], WAIT_SECONDS)
    assert readable, "a worker lives on after its parent was killed"
    assert os.read(reading, 16) == b""
    os.close(reading)


async def test_the_worker_leaves_stopping_to_its_parent(seed: int) -> None:
    worker = SignatureWorker.start()
    verifier = Verifier(CHAIN, worker)
    assert await verifier.verify([make_transaction(1)]) == [True]  # it has set its signals by now
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker.pid, number)
    transactions, truth = make_mixture(10, seed)
    assert await verifier.verify(transactions) == truth
    assert verifier.has_worker
    await verifier.close()


async def test_answers_that_arrive_in_pieces_are_put_together() -> None:
    ours, its = socket.socketpair()
    ours.setblocking(False)
    child = os.fork()  # only so that close() has a process to wait for
    if child == 0:
        os._exit(0)
    worker = SignatureWorker(child, ours)
    worker.attach(asyncio.get_running_loop())
    answered: list[list[bool] | None] = []
    done = asyncio.Event()

    def take(answers: list[bool] | None) -> None:
        answered.append(answers)
        if len(answered) == 2:
            done.set()

    for count in (3, 2):
        worker.submit([bytes(ITEM_BYTES)] * count, take)
    assert not worker.has_room
    assert BATCHES_IN_FLIGHT_MAX == 2
    its.send(b"\x01\x00")
    await asyncio.sleep(0)
    its.send(b"\x01\x00\x01")
    await asyncio.wait_for(done.wait(), WAIT_SECONDS)
    assert answered == [[True, False, True], [False, True]]
    worker.close()
    its.close()


def test_the_worker_stops_at_a_batch_it_never_takes() -> None:
    ours, its = socket.socketpair()
    ours.sendall((ITEMS_MAX + 1).to_bytes(COUNT_BYTES, "big"))
    serve(its)  # returns instead of waiting for half a megabyte
    its.close()
    assert ours.recv(16) == b""
    ours.close()


def test_items_travel_as_key_digest_and_signature() -> None:
    tx = make_transaction(3)
    item = (tx.public_key, compute_signing_digest(tx, CHAIN), tx.signature)
    assert split_items(b"".join(item) * 2) == [item, item]


@given(st.lists(st.integers(0, 40)), st.integers(1, 16))
def test_the_memory_of_ids_is_bounded_and_keeps_the_newest(numbers: list[int], count_max: int) -> None:
    ids = VerifiedIds(count_max)
    for number in numbers:
        ids.add(number.to_bytes(32, "big"))
        assert len(ids) <= count_max
        assert number.to_bytes(32, "big") in ids


async def test_inline_and_worker_agree(seed: int) -> None:
    transactions, truth = make_mixture(40, seed)
    inline = InlineVerifier(CHAIN)
    assert await inline.verify_new(transactions) == truth
    await inline.close()
