"""When a validator that lost its journal may sign again: only after a quorum of others is seen, live."""

from __future__ import annotations

import pytest

from consensus.vote import FINALIZE, NOTARIZE, Certificate, Subject, Validator, ValidatorSet
from node.engine.observation import Observation, Vigil
from tests.chain_factory import make_keys

OWN = 0
VALIDATORS = ValidatorSet(tuple(Validator(key.public_key, 100) for key in make_keys("validator", 4)))


def certify(view: int, *signers: int, kind: int = FINALIZE) -> Certificate:
    return Certificate(Subject(0, kind, view, bytes(32)), tuple((signer, bytes(64)) for signer in signers))


@pytest.fixture
def observation() -> Observation:
    return Observation(VALIDATORS, OWN)


def test_a_quorum_of_others_in_a_view_nobody_had_reached_allows_signing_above_it(
    observation: Observation,
) -> None:
    observation.note(certify(10, 1, 2, 3), 12)
    assert observation.above_view is None
    observation.note(certify(13, 1, 2, 3), 14)
    assert observation.above_view == 14


def test_the_first_finalization_says_nothing_for_it_may_have_waited_for_us(observation: Observation) -> None:
    observation.note(certify(10, 1, 2, 3), 10)
    observation.note(certify(10, 1, 2, 3), 10)
    assert observation.above_view is None


def test_a_late_finalization_of_a_view_that_was_reached_before_says_nothing(observation: Observation) -> None:
    """Whoever lost the journal may have voted in view 12, while 11 became final only now."""
    observation.note(certify(10, 1, 2, 3), 12)
    observation.note(certify(11, 1, 2, 3), 12)
    observation.note(certify(12, 1, 2, 3), 12)
    assert observation.above_view is None


def test_old_finalizations_that_a_stranger_replays_say_nothing(observation: Observation) -> None:
    observation.note(certify(10, 1, 2, 3), 10)
    for view in range(1, 10):
        observation.note(certify(view, 1, 2, 3), 10)
    assert observation.above_view is None


def test_less_than_a_quorum_of_others_is_not_enough(observation: Observation) -> None:
    observation.note(certify(10, 1, 2, 3), 10)
    observation.note(certify(11, 1, 2), 11)
    assert observation.above_view is None
    observation.note(certify(12, 1, 3), 12)  # together they are three
    assert observation.above_view == 13


def test_an_own_signature_means_that_it_is_from_before_and_watching_begins_anew(
    observation: Observation,
) -> None:
    observation.note(certify(10, 1, 2, 3), 10)
    observation.note(certify(11, 1, 2), 11)
    observation.note(certify(20, OWN, 1, 3), 20)
    observation.note(certify(15, 1, 2, 3), 20)
    assert observation.above_view is None
    observation.note(certify(21, 1, 2, 3), 21)
    assert observation.above_view == 22


def test_other_certificates_say_nothing(observation: Observation) -> None:
    observation.note(certify(10, 1, 2, 3), 10)
    observation.note(certify(11, 1, 2, 3, kind=NOTARIZE), 11)
    assert observation.above_view is None


# --- epochs -----------------------------------------------------------------------------------------------


class Peers:
    """What peers claim, as a Vigil asks for it."""

    def __init__(self, epoch: int | None) -> None:
        self.epoch = epoch

    def find(self) -> int | None:
        return self.epoch


def test_an_epoch_that_nobody_had_reached_when_it_began_to_watch_is_free() -> None:
    vigil = Vigil(Peers(0).find)
    assert not vigil.begin(0, VALIDATORS, OWN)
    assert vigil.note(certify(10, 1, 2, 3), 10) is None
    assert vigil.begin(1, VALIDATORS, OWN)


def test_an_epoch_that_a_peer_had_reached_before_is_not() -> None:
    """It may have voted there: the boundary was final already."""
    vigil = Vigil(Peers(1).find)
    vigil.begin(0, VALIDATORS, OWN)
    vigil.note(certify(10, 1, 2, 3), 10)
    assert not vigil.begin(1, VALIDATORS, OWN)
    assert vigil.begin(2, VALIDATORS, OWN)


def test_epochs_that_it_catches_up_through_say_nothing() -> None:
    peers = Peers(None)  # far ahead
    vigil = Vigil(peers.find)
    for epoch in range(3):
        assert not vigil.begin(epoch, VALIDATORS, OWN)
        assert vigil.note(certify(10, 1, 2, 3), 10) is None
    peers.epoch = 2
    assert vigil.note(certify(11, 1, 2, 3), 11) is None
    assert vigil.begin(3, VALIDATORS, None)  # without a seat, too: the journal is the key's, not the seat's


def test_within_an_epoch_a_quorum_tells_the_view() -> None:
    vigil = Vigil(Peers(0).find)
    vigil.begin(0, VALIDATORS, OWN)
    assert vigil.note(certify(10, 1, 2, 3), 12) is None
    assert vigil.note(certify(13, 1, 2, 3), 14) == 14


def test_what_was_seen_beside_a_lagging_peer_alone_says_nothing_once_others_came() -> None:
    """The lost journal's votes may lie in views that only the others had reached."""
    peers = Peers(0)
    vigil = Vigil(peers.find)
    vigil.begin(0, VALIDATORS, OWN)
    assert vigil.note(certify(102, 1, 2, 3), 103) is None
    peers.epoch = None  # the others connect: we are behind
    assert vigil.note(certify(120, 1, 2, 3), 121) is None
    peers.epoch = 0
    assert vigil.note(certify(139, 1, 2, 3), 142) is None
    assert vigil.note(certify(142, 1, 2, 3), 143) is None
    assert vigil.note(certify(143, 1, 2, 3), 144) == 144


def test_a_single_batch_that_was_caught_up_with_is_enough_to_begin_anew() -> None:
    vigil = Vigil(Peers(0).find)
    vigil.begin(0, VALIDATORS, OWN)
    assert vigil.note(certify(102, 1, 2, 3), 103) is None
    vigil.forget()
    assert vigil.note(certify(139, 1, 2, 3), 142) is None
    assert vigil.note(certify(143, 1, 2, 3), 144) == 144


def test_no_epoch_that_begins_while_it_catches_up_is_free() -> None:
    peers = Peers(3)
    vigil = Vigil(peers.find)
    vigil.begin(3, VALIDATORS, OWN)
    vigil.note(certify(10, 1, 2, 3), 11)
    peers.epoch = None  # a peer of epoch 5 connects
    assert not vigil.begin(4, VALIDATORS, OWN)
    peers.epoch = 5
    assert not vigil.begin(5, VALIDATORS, OWN)
