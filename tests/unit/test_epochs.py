"""Epochs: heights, sets fixed ahead, tails, who sits, and how much of the stake may change."""

from dataclasses import replace

import pytest

from consensus.crypto import PrivateKey
from consensus.errors import Fault, NotYet, Rejected
from consensus.ledger import epochs
from consensus.ledger.records import Records
from consensus.ledger.snapshot import dump_state, load_state
from consensus.vote import NOTARIZE, Certificate, Subject, Validator, ValidatorSet
from tests.ledger_chain import NO_SIGNATURE, alter
from tests.staking_chain import OPERATORS, PEOPLE, STAKE, StakingChain, make_staking_genesis

ANN = PEOPLE[0]
CALM = {"reward_units": 0, "fee_units_min": 0, "participation_bp_min": 0}


def make_chain(stakes: tuple[int, ...] = (STAKE,) * 4, **parameters: object) -> StakingChain:
    return StakingChain(make_staking_genesis(stakes, **{**CALM, **parameters}))


# --- heights and headers ----------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "epoch"), [(0, 0), (1, 0), (3, 0), (4, 1), (6, 1), (7, 2)])
def test_an_epoch_covers_its_heights(height: int, epoch: int) -> None:
    assert epochs.compute_epoch(height, 3) == epoch
    assert epochs.compute_epoch(height, 0) == 0
    assert epochs.is_boundary(height, 3) == (height in (3, 6))
    assert epochs.compute_boundary(epoch, 3) in (3, 6, 9)


def test_views_and_certificates_begin_anew_in_every_epoch() -> None:
    chain = make_chain()
    chain.reach(2)
    headers = [block.header for block in chain.blocks]
    assert [header.epoch for header in headers] == [0, 0, 0, 1, 1, 1]
    assert [(header.parent_view, header.view) for header in headers] == [(0, 1), (1, 2), (2, 3)] * 2
    assert [block.parent_certificate is None for block in chain.blocks] == [True, False, False] * 2


def test_every_header_commits_to_the_next_set_before_it_begins() -> None:
    chain = make_chain(churn_bp_max=10_000, unbonding_epochs=8)
    chain.grow(chain.found(4, 500))
    chain.reach(4)
    told: dict[int, bytes] = {}
    for block in chain.blocks:
        header = block.header
        assert header.validators_digest == chain.set_of(header.epoch).validators.digest
        told.setdefault(header.epoch + 1, header.next_validators_digest)
    for epoch, digest in told.items():
        assert digest == chain.set_of(epoch).validators.digest
    assert told[1] != told[2]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"epoch": 2}, "epoch"),
        ({"height": 3}, "height"),
        ({"parent_view": 3}, "parent_view"),
        ({"view": 0}, "view"),
        ({"proposer": OPERATORS[7].public_key}, "proposer"),
    ],
)
def test_the_first_block_of_an_epoch_with_another_place_is_refused(
    fields: dict[str, object], code: str
) -> None:
    chain = make_chain()
    chain.reach(1)
    with pytest.raises(Rejected) as caught:
        chain.check(alter(chain.build().block, **fields))
    assert caught.value.code == code


def test_the_first_block_of_an_epoch_carries_no_certificate() -> None:
    chain = make_chain()
    chain.reach(1)
    header = chain.view.header
    certificate = Certificate(Subject(0, NOTARIZE, header.view, header.hash), ((0, NO_SIGNATURE),))
    with pytest.raises(Rejected) as caught:
        chain.check(replace(chain.build().block, parent_certificate=certificate))
    assert caught.value.code == "certificate"


@pytest.mark.parametrize("signers", [(0, 0), (1, 0), (0, 4), ()])
def test_a_certificate_whose_signers_are_no_indices_of_the_set_is_refused(signers: tuple[int, ...]) -> None:
    chain = make_chain()
    chain.grow()
    block = chain.build().block
    assert block.parent_certificate is not None
    pairs = tuple((signer, NO_SIGNATURE) for signer in signers)
    with pytest.raises(Rejected) as caught:
        chain.check(replace(block, parent_certificate=replace(block.parent_certificate, signatures=pairs)))
    assert caught.value.code == "certificate"


def test_a_proposer_of_another_epoch_is_our_own_fault() -> None:
    chain = make_chain()
    with pytest.raises(Fault):
        chain.rules.build_block(
            chain.view,
            (),
            epoch=0,
            view_number=1,
            proposer_key=OPERATORS[7].public_key,
            now_ms=0,
            certificate=None,
        )


# --- tails ------------------------------------------------------------------------------------------


def test_a_tail_has_its_parents_height_and_state_and_changes_nothing() -> None:
    chain = make_chain()
    chain.grow()
    chain.grow()
    waiting = chain.transfer(ANN, OPERATORS[0])
    chain.grow()
    boundary = chain.view
    tail = chain.build(waiting, epoch=0)
    assert tail.deferred == (waiting,)
    header = tail.block.header
    assert (header.epoch, header.height, header.view) == (0, 3, 4)
    assert (header.state_root, header.timestamp_ms) == (boundary.root, boundary.header.timestamp_ms)
    after = boundary.extend(chain.check(tail.block))
    second = chain.build(view=after, epoch=0)
    assert second.block.header.parent_hash == header.hash
    assert chain.rules.check_block(after, second.block, None).root == boundary.root
    assert after.supply == boundary.supply
    assert after.get_account(ANN.address) == boundary.get_account(ANN.address)


def test_a_view_is_no_deeper_for_many_tails() -> None:
    chain = StakingChain(make_staking_genesis(fee_units_min=0))
    chain.reach(1)
    view = chain.view
    for _ in range(20):
        view = view.extend(chain.build(view=view, epoch=0).delta)
    assert (len(view.deltas), view.is_tail) == (1, True)
    assert (view.root, view.records.root) == (chain.view.root, chain.view.records.root)
    chain.rules.check_block(view, chain.build(view=view, epoch=0).block, None)


def test_a_tail_is_never_committed_and_nothing_but_tails_stands_on_it() -> None:
    chain = make_chain()
    chain.reach(1)
    delta = chain.build(epoch=0).delta
    after = chain.view.extend(delta)
    with pytest.raises(Fault):
        chain.state.commit(delta)
    with pytest.raises(Fault):
        chain.build(view=after)
    opening = alter(chain.build().block, parent_hash=after.header.hash)
    with pytest.raises(Rejected) as caught:
        chain.rules.check_block(after, opening, None)
    assert caught.value.code == "epoch"
    chain.grow(chain.transfer(ANN, OPERATORS[0]))
    assert chain.view.header.height == 4


def test_a_tail_with_anything_in_it_is_refused() -> None:
    chain = make_chain()
    chain.reach(1)
    tail = chain.build(epoch=0).block
    for fields, code in (
        ({"timestamp_ms": chain.now_ms + 1}, "timestamp"),
        ({"height": 4}, "height"),
        ({"state_root": bytes(32)}, "state_root"),
        ({"history_root": bytes(32)}, "history_root"),
        ({"transaction_count": 1}, "transaction_count"),
    ):
        with pytest.raises(Rejected) as caught:
            chain.check(alter(tail, **fields))
        assert caught.value.code == code
    full = replace(tail, transactions=(chain.transfer(ANN, ANN),), scores=(0,), outcomes=b"\x00")
    with pytest.raises(Rejected) as caught:
        chain.check(alter(full, transaction_count=1))
    assert caught.value.code == "tail"


def test_a_state_between_two_epochs_survives_a_snapshot() -> None:
    chain = make_chain(churn_bp_max=10_000)
    chain.grow(chain.found(4, 500), chain.bond(ANN, 0, 300))
    chain.grow(chain.unbond(ANN, 0))
    chain.reach(2)
    loaded = load_state(chain.rules, b"".join(dump_state(chain.state)))
    block = chain.build(chain.withdraw(OPERATORS[0])).block
    assert chain.rules.check_block(loaded.view(), block, None).root == chain.check(block).root


def test_sets_are_kept_as_long_as_evidence_may_speak_of_them() -> None:
    chain = make_chain()
    chain.reach(7)
    kept = [epoch for epoch in range(12) if chain.view.find_set(epoch) is not None]
    assert kept == [5, 6, 7, 8]
    assert chain.rules.parameters.evidence_epochs == 2
    assert chain.view.find_set(-1) is None
    assert chain.view.find_set(2**70) is None


# --- who sits ---------------------------------------------------------------------------------------


def test_seats_go_to_the_richest_and_among_equals_to_the_eldest() -> None:
    chain = make_chain((500, 300), validators_max=4, churn_bp_max=10_000)
    chain.grow(chain.found(5, 200), chain.found(4, 200), chain.found(6, 200), chain.found(7, 201))
    chain.reach(3)
    # 7 is the richest newcomer; 5 and 4 hold as much as 6, and 5 came first.
    assert set(chain.weights(3)) == {0, 1, 7, 5}
    assert list(chain.weights(3)) == [0, 1, 5, 7]  # in order of seniority


def test_a_richer_candidate_takes_the_poorest_seat_and_an_equal_one_does_not() -> None:
    chain = make_chain((500, 300), validators_max=2, churn_bp_max=10_000)
    chain.grow(chain.found(4, 300))
    chain.reach(2)
    assert set(chain.weights(3)) == {0, 1}
    chain.grow(chain.bond(ANN, 4, 10))
    chain.reach(3)
    assert set(chain.weights(4)) == {0, 4}


def test_a_chain_keeps_its_last_validators_when_everybody_leaves() -> None:
    chain = make_chain((500,), churn_bp_max=10_000)
    chain.grow(chain.unbond(OPERATORS[0], 0))
    chain.reach(5)
    assert chain.weights(6) == {0: 500}


def test_stakes_in_a_set_are_frozen() -> None:
    chain = make_chain(churn_bp_max=10_000)
    chain.reach(1)
    before = chain.weights(2)
    chain.grow(chain.bond(ANN, 0, 5_000))
    assert (chain.weights(1), chain.weights(2)) == (dict.fromkeys(range(4), STAKE), before)
    chain.reach(2)
    assert chain.weights(3)[0] == STAKE + 5_000


# --- how much may change ----------------------------------------------------------------------------


def test_what_comes_shares_the_room_and_gets_the_rest_later() -> None:
    chain = make_chain(churn_bp_max=500)
    chain.grow(chain.found(4, 600), chain.found(5, 300))
    chain.reach(1)
    assert chain.weights(2) == {0: STAKE, 1: STAKE, 2: STAKE, 3: STAKE, 4: 133, 5: 66}
    for epoch in range(2, 8):
        chain.reach(epoch)
    assert chain.weights(8) == {0: STAKE, 1: STAKE, 2: STAKE, 3: STAKE, 4: 600, 5: 300}


def test_what_leaves_waits_for_room() -> None:
    chain = make_chain(churn_bp_max=500)
    assert isinstance(chain.refuse(chain.unbond(OPERATORS[0], 0, 201)), Rejected)
    chain.grow(chain.unbond(OPERATORS[0], 0, 150))
    late = chain.refuse(chain.unbond(OPERATORS[1], 1, 51))
    assert isinstance(late, NotYet)
    assert late.code == "churn"
    chain.grow(chain.unbond(OPERATORS[1], 1, 50))
    chain.reach(1)
    chain.grow(chain.unbond(OPERATORS[1], 1, 190))
    assert chain.weights(2) == {0: 850, 1: 950, 2: STAKE, 3: STAKE}


def test_stake_that_does_not_vote_yet_may_leave_at_once() -> None:
    chain = make_chain(churn_bp_max=500)
    chain.grow(chain.found(4, 5_000))
    chain.grow(chain.unbond(OPERATORS[4], 4, 4_000))
    chain.reach(1)
    assert chain.weights(2)[4] == 200


def test_who_falls_below_the_minimum_leaves_as_room_allows() -> None:
    chain = make_chain(churn_bp_max=500, stake_units_min=950)
    chain.grow(chain.unbond(OPERATORS[0], 0, 51))
    weights = []
    for epoch in range(2, 8):
        chain.reach(epoch - 1)
        weights.append(chain.weights(epoch).get(0))
    # 51 unbonded and 149 more in the first epoch; then a twentieth of what votes in each.
    assert weights[:3] == [800, 610, 430]
    assert weights[-1] is None or weights[-1] < weights[-2]


def unbond_as_much_as_goes(chain: StakingChain, number: int) -> None:
    """All at once, or else in the largest steps of 45 that the epoch still takes."""
    for units in (0, 45, 45, 45, 45):
        built = chain.build(chain.unbond(OPERATORS[number], number, units))
        if not built.rejected:
            chain.add(built.block)


@pytest.mark.parametrize("is_capped", [True, False])
def test_without_the_cap_a_tenth_of_the_stake_owns_the_chain_when_the_rest_leaves(is_capped: bool) -> None:
    """One validator, a tenth of the stake, lies. The honest ones are scared off, or paid to leave, at once.

    Without a cap the set two epochs on is the liar alone: its signature is a quorum, and every client that
    trusted the old set is led by a tenth of it, while the honest stake is not even out of its unbonding.
    """
    chain = make_chain((900, 900, 900, 900, 400), churn_bp_max=500 if is_capped else 10_000, epoch_blocks=40)
    shares = []
    for epoch in range(1, 5):
        for number in range(4):
            unbond_as_much_as_goes(chain, number)
        chain.reach(epoch)
        weights = chain.weights(epoch + 1)
        shares.append((weights[4], sum(weights.values())))
    assert all(3 * liar < total for liar, total in shares) == is_capped
    if not is_capped:
        assert shares[0] == (400, 400)


@pytest.mark.parametrize("is_capped", [True, False])
def test_without_the_cap_money_buys_the_chain_in_one_epoch(is_capped: bool) -> None:
    """A newcomer bonds three times all stake. Without a cap it is a quorum at once; with it, whoever looks
    within the unbonding period finds more than a third of any set it trusted in every quorum."""
    chain = make_chain(churn_bp_max=500 if is_capped else 10_000, unbonding_epochs=4)
    trusted = chain.weights(0)
    chain.grow(chain.found(4, 12_000))
    chain.reach(4)
    later, total = chain.weights(5), sum(chain.weights(5).values())
    assert (3 * later[4] > total) != is_capped
    # The worst quorum leaves out as much trusted stake as a third of the later set can be.
    kept = sum(min(units, later[number]) for number, units in trusted.items())
    overlap = kept - (total - (2 * total // 3 + 1))
    assert (3 * overlap > sum(trusted.values())) == is_capped


def test_the_largest_set_fits_its_record() -> None:
    keys = [PrivateKey.from_seed(b"many %d" % number) for number in range(1_024)]
    many = ValidatorSet(tuple(Validator(key.public_key, 2**42) for key in keys))
    found = epochs.create_genesis_set(many)
    assert epochs.get_set(epochs.put_set(Records(), 7, found), 7) == found
