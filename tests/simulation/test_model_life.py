"""Models that change in the world of whole nodes: it happens in every run, and the plain ledger notices lies."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest

from consensus.ledger import motion
from consensus.ledger.motion import Change, Motion, encode_motion
from consensus.ledger.publication import cut_artifact
from consensus.parameters import CLOCK_WALL, CLOCK_WORKLOAD
from consensus.transaction import KIND_APPROVE_MOTION, KIND_PUBLISH_MODEL, Transaction
from node.simulation.checkers import Violation
from node.simulation.config import FULL_NODES
from node.simulation.full_nodes.plain_models import PlainModels
from node.simulation.full_nodes.world import NodeWorld
from tests.model_chain import GENESIS_DIGEST, NOTICE, digest_of, make_model_genesis, retire, seat
from tests.staking_chain import OPERATORS, PEOPLE

DOUBLE = b"2 c 4"
STAKES = {key.address: 1_000 for key in OPERATORS[:4]}


@pytest.mark.parametrize(("clock", "epoch_blocks"), [(CLOCK_WORKLOAD, 0), (CLOCK_WALL, 8)])
def test_models_change_in_every_run_and_the_way_back_is_taken(
    clock: str, epoch_blocks: int, seed: int
) -> None:
    config = replace(FULL_NODES, model_switches=2, epoch_blocks=epoch_blocks, clock=clock, faulty_ms=1_200)
    world = NodeWorld(config, seed)
    assert world.run() == ""
    assert world.clients.life is not None
    assert world.clients.life.changes >= 2
    eras = [era for _, era in motion.walk_eras(world.checkers.ledger.observed.records)]
    assert len(eras) >= 3


# --- the plain ledger of models -----------------------------------------------------------------------


def make(kind: int, payload: bytes, number: int = 0, *, is_person: bool = False) -> Transaction:
    key = (PEOPLE if is_person else OPERATORS)[number]
    return Transaction(kind, key.public_key, 0, key.address, 0, 1, 0, 1, payload, bytes(64))


def publish(artifact: bytes, digest: bytes = b"") -> Transaction:
    (payload,) = cut_artifact("counting", digest or digest_of(artifact), artifact)
    return make(KIND_PUBLISH_MODEL, payload, is_person=True)


def approve(number: int, change: Change, height: int, *, is_person: bool = False) -> Transaction:
    return make(KIND_APPROVE_MOTION, encode_motion(Motion(height, change)), number, is_person=is_person)


def make_plain() -> PlainModels:
    plain = PlainModels(make_model_genesis(), {sha256(DOUBLE).digest(): digest_of(DOUBLE)})
    plain.apply(publish(DOUBLE), 1, STAKES)
    return plain


def list_digests(plain: PlainModels) -> list[bytes]:
    return [entry.digest for entry in plain.seats]


def test_the_plain_ledger_follows_a_decision_to_its_height() -> None:
    plain = make_plain()
    for number in range(3):
        assert not plain.close(5 + number)
        plain.apply(approve(number, seat(DOUBLE, GENESIS_DIGEST), 20), 6 + number, STAKES)
    plain.close(18)
    assert list_digests(plain) == [GENESIS_DIGEST]
    plain.close(19)
    assert list_digests(plain) == [digest_of(DOUBLE)]


def test_the_plain_ledger_counts_more_than_two_thirds() -> None:
    plain = make_plain()
    three = dict(list(STAKES.items())[:3])
    for number in range(2):
        plain.apply(approve(number, retire(GENESIS_DIGEST), 20), 6, three)
    plain.close(19)
    assert list_digests(plain) == [GENESIS_DIGEST]


@pytest.mark.parametrize(
    ("tx", "words"),
    [
        (approve(5, seat(DOUBLE), 20), "has no say"),
        (approve(0, seat(DOUBLE), 6 + NOTICE), "too late"),
        (approve(0, seat(b"9 c 4"), 20), "nobody knows"),
        (publish(DOUBLE), "known"),
    ],
)
def test_the_plain_ledger_notices_what_no_block_may_hold(tx: Transaction, words: str) -> None:
    with pytest.raises(Violation, match=words):
        make_plain().apply(tx, 6, STAKES)


def test_the_plain_ledger_notices_a_second_approval() -> None:
    plain = make_plain()
    plain.apply(approve(0, seat(DOUBLE), 20), 6, STAKES)
    with pytest.raises(Violation, match="twice"):
        plain.apply(approve(0, seat(DOUBLE), 20), 7, STAKES)
