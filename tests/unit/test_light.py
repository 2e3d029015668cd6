"""The light client: what it follows, what it skips, what it refuses, and the lies that it finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from consensus import light
from consensus.block import Header, compute_leaf, is_link
from consensus.errors import NotYet, Rejected
from consensus.forks import Fork, find_evidence, prove_fork
from consensus.ledger import epochs
from consensus.ledger import records as rec
from consensus.ledger.proofs import prove_account
from consensus.ledger.record_proofs import prove_record
from consensus.light import FinalHeader, LightSettings, TransactionProof, Trust, Update
from consensus.merkle import prove_inclusion
from consensus.vote import FINALIZE, NULLIFY, Certificate, Subject, ValidatorSet, check_evidence
from tests.chain_factory import ChainFactory
from tests.ledger_chain import START_MS, Chain, alter, make_genesis
from tests.staking_chain import OPERATORS, PEOPLE, StakingChain, make_staking_genesis, make_voting_key

ANN = PEOPLE[0]
KEYS = {
    key.public_key: key
    for key in (*OPERATORS, *(make_voting_key(number, step) for number in range(8) for step in range(1, 4)))
}
PERIOD_MS = 100_000


class Source:
    """A chain, and for every height what an honest node serves."""

    def __init__(self, **parameters: object) -> None:
        settings = {"unbonding_ms": PERIOD_MS, "fee_units_min": 0, "participation_bp_min": 0, **parameters}
        self.chain = StakingChain(make_staking_genesis(**settings))
        self.genesis = self.chain.view.header
        self.settings = LightSettings.from_genesis(self.chain.rules.genesis)
        self.sets: dict[int, ValidatorSet] = {}
        self.remember()

    @property
    def now_ms(self) -> int:
        return self.chain.now_ms

    def remember(self) -> None:
        for epoch in range(self.chain.epoch + 2):
            found = self.chain.view.find_set(epoch)
            if found is not None:
                self.sets[epoch] = found.validators

    def grow_to(self, epoch: int, *candidates: object) -> None:
        while self.chain.epoch < epoch:
            self.chain.grow(*candidates)  # type: ignore[arg-type]
            candidates = ()
            self.remember()

    def trust_genesis(self) -> Trust:
        return light.open_checkpoint(
            self.settings, self.genesis.hash, self.genesis, self.sets[0], self.sets[1], self.now_ms
        )

    def header(self, height: int) -> Header:
        return self.chain.blocks[height - 1].header

    def update(self, height: int) -> Update:
        header = self.header(height)
        return Update(self.finalize(header), self.sets[header.epoch], self.sets[header.epoch + 1])

    def finalize(
        self, header: Header, signers: Sequence[int] | None = None, links: tuple[Header, ...] = ()
    ) -> FinalHeader:
        last = links[-1] if links else header
        return FinalHeader(header, self.certify(FINALIZE, last.epoch, last.view, last.hash, signers), links)

    def certify(
        self, kind: int, epoch: int, view: int, block_hash: bytes, signers: Sequence[int] | None = None
    ) -> Certificate:
        validators = self.sets[epoch].validators
        subject = Subject(epoch, kind, view, block_hash)
        digest = subject.compute_digest(self.chain.rules.chain_id)
        chosen = range(len(validators)) if signers is None else signers
        return Certificate(
            subject, tuple((index, KEYS[validators[index].public_key].sign(digest)) for index in chosen)
        )

    def advance(self, trust: Trust, update: Update) -> Trust:
        return light.advance(self.settings, trust, update, self.now_ms)

    def refuse(self, trust: Trust, update: Update) -> str:
        with pytest.raises(Rejected) as caught:
            self.advance(trust, update)
        return caught.value.code


@pytest.fixture(scope="module")
def source() -> Source:
    """Six epochs in which a fifth validator came and the first one got a new key."""
    source = Source(churn_bp_max=500)
    chain = source.chain
    source.grow_to(7, chain.found(4, 600), chain.rotate(0, make_voting_key(0, 2)))
    return source


# --- following --------------------------------------------------------------------------------------


def test_it_follows_header_by_header_through_changes_of_the_set(source: Source) -> None:
    trust = source.trust_genesis()
    for height in range(1, len(source.chain.blocks) + 1, 2):
        trust = source.advance(trust, source.update(height))
    assert trust.header.epoch == 6
    assert len(trust.validators) == 5


def test_it_skips_epochs_while_a_third_of_the_trusted_stake_signed(source: Source) -> None:
    trust = source.advance(source.trust_genesis(), source.update(20))
    assert (trust.header.height, trust.header.epoch) == (20, 6)


def test_a_quorum_of_the_new_set_is_needed_whatever_the_overlap(source: Source) -> None:
    few = source.finalize(source.header(20), signers=(1, 2))
    assert source.refuse(source.trust_genesis(), replace(source.update(20), final=few)) == "quorum"


def test_a_set_bought_overnight_is_not_skipped_to() -> None:
    source = Source(churn_bp_max=10_000)
    chain = source.chain
    source.grow_to(1, chain.found(4, 90_000))
    source.grow_to(5)
    header = source.header(13)
    (buyer,) = [
        i
        for i, v in enumerate(source.sets[4].validators)
        if v.stake == max(w.stake for w in source.sets[4].validators)
    ]
    alone = replace(source.update(13), final=source.finalize(header, signers=(buyer,)))
    assert source.refuse(source.trust_genesis(), alone) == "overlap"
    trust = light.follow(
        source.settings,
        source.trust_genesis(),
        alone,
        lambda epoch: source.update(3 * epoch + 1),
        source.now_ms,
    )
    assert trust.header == header


def test_exactly_a_third_is_not_enough() -> None:
    source = Source(churn_bp_max=10_000)
    source.grow_to(1, source.chain.found(4, 9_000), source.chain.found(5, 3_000))
    source.grow_to(4)
    header = source.header(10)
    stakes = [validator.stake for validator in source.sets[3].validators]
    assert len(stakes) == 6
    trusted = source.sets[1]
    for signers, is_enough in (((0, 4, 5), False), ((0, 1, 4, 5), True)):
        certificate = source.finalize(header, signers).certificate
        overlap = sum(trusted.validators[signer].stake for signer in signers if signer < 4)
        assert (3 * overlap > trusted.total) == is_enough
        if is_enough:
            light.check_overlap(trusted, source.sets[3], certificate)
        else:
            with pytest.raises(Rejected):
                light.check_overlap(trusted, source.sets[3], certificate)
    third = ValidatorSet(tuple(replace(validator, stake=1) for validator in trusted.validators[:3]))
    with pytest.raises(Rejected):
        light.check_overlap(third, source.sets[3], source.finalize(header, (0, 4, 5)).certificate)


def test_a_descendants_certificate_makes_a_block_final(source: Source) -> None:
    links = (source.header(5), source.header(6))
    final = source.finalize(source.header(4), links=links)
    assert source.advance(source.trust_genesis(), replace(source.update(4), final=final)).header.height == 4
    for broken in (links[1:], links[:1], (*links, source.header(7))):
        update = replace(source.update(4), final=replace(final, links=broken))
        assert source.refuse(source.trust_genesis(), update) in ("links", "certificate")


def test_a_final_tail_makes_the_boundary_block_final() -> None:
    source = Source()
    source.grow_to(1)
    tail = source.chain.build(epoch=0).block.header
    final = source.finalize(source.header(3), links=(tail,))
    trust = source.advance(source.trust_genesis(), replace(source.update(3), final=final))
    assert trust.header.height == 3
    assert source.refuse(trust, replace(source.update(3), final=source.finalize(tail))) == "tail"


def test_of_many_tails_the_last_one_proves_the_boundary_block() -> None:
    source = Source()
    source.grow_to(1)
    view, tails = source.chain.view, []
    for _ in range(5):
        built = source.chain.build(view=view, epoch=0)
        view = view.extend(built.delta)
        tails.append(built.block.header)
    for links in ((tails[4],), tuple(tails)):
        final = source.finalize(source.header(3), links=links)
        trust = source.advance(source.trust_genesis(), replace(source.update(3), final=final))
        assert trust.header.height == 3


@pytest.mark.parametrize("height", [2, 3])
def test_a_layer_that_was_made_from_a_forged_blocks_hash_links_to_nothing(height: int) -> None:
    """Who picks an onion may make a layer of any hash, of a block that nobody signed, too."""
    source = Source()
    source.grow_to(1)
    real = source.header(height)
    forged = replace(real, state_root=b"s" * 32)
    revealing = replace(real, reveal=forged.hash)
    assert not is_link(revealing, forged)
    update = Update(source.finalize(forged, links=(revealing,)), source.sets[0], source.sets[1])
    assert source.refuse(source.trust_genesis(), update) == "links"


# --- what it refuses --------------------------------------------------------------------------------


def test_a_checkpoint_older_than_the_period_is_refused(source: Source) -> None:
    late_ms = START_MS + source.settings.trusting_ms
    assert source.settings.trusting_ms <= source.chain.rules.parameters.unbonding_ms
    arguments = (source.settings, source.genesis.hash, source.genesis, source.sets[0], source.sets[1])
    light.open_checkpoint(*arguments, late_ms - 1)
    for now_ms in (late_ms, START_MS + PERIOD_MS, START_MS + 10**9):
        with pytest.raises(Rejected) as caught:
            light.open_checkpoint(*arguments, now_ms)
        assert caught.value.code == "checkpoint_age"
    trust = light.open_checkpoint(*arguments, source.now_ms)
    with pytest.raises(Rejected):
        light.advance(source.settings, trust, source.update(1), late_ms)


def test_without_epochs_trust_does_not_end() -> None:
    chain = Chain(make_genesis())
    assert LightSettings.from_genesis(chain.rules.genesis).trusting_ms > 10**14


def test_a_checkpoint_is_what_its_hash_says(source: Source) -> None:
    header, sets = source.genesis, source.sets
    for arguments in (
        (b"x" * 32, header, sets[0], sets[1]),
        (header.hash, source.header(1), sets[0], sets[1]),
        (header.hash, header, sets[2], sets[1]),
        (header.hash, header, sets[0], sets[2]),
    ):
        with pytest.raises(Rejected):
            light.open_checkpoint(source.settings, *arguments, source.now_ms)  # type: ignore[arg-type]


def test_other_sets_than_the_header_names_are_refused(source: Source) -> None:
    update, trust = source.update(4), source.trust_genesis()
    assert source.refuse(trust, replace(update, validators=source.sets[3])) == "validators"
    assert source.refuse(trust, replace(update, next_validators=source.sets[3])) == "validators"
    # A header of the next epoch that names a set of the forger's own, signed by that set.
    own = ValidatorSet(tuple(replace(v, stake=7) for v in source.sets[1].validators))
    header = alter(source.chain.blocks[3], validators_digest=own.digest).header
    assert source.refuse(trust, Update(source.finalize(header), own, update.next_validators)) == "validators"


def test_a_header_without_its_signatures_is_refused(source: Source) -> None:
    trust, update = source.trust_genesis(), source.update(2)
    forged = alter(source.chain.blocks[1], timestamp_ms=source.now_ms).header
    swapped = replace(update.final, header=forged)
    assert source.refuse(trust, replace(update, final=swapped)) == "certificate"
    good = update.final.certificate
    pairs = ((0, good.signatures[1][1]), *good.signatures[1:])
    bad = replace(update.final, certificate=replace(good, signatures=pairs))
    assert source.refuse(trust, replace(update, final=bad)) == "signature"
    notarized = replace(update.final, certificate=replace(good, subject=replace(good.subject, kind=0)))
    assert source.refuse(trust, replace(update, final=notarized)) == "certificate"


def test_headers_below_the_trusted_one_and_from_the_future_are_refused(source: Source) -> None:
    trust = source.advance(source.trust_genesis(), source.update(8))
    assert source.refuse(trust, source.update(7)) == "height"
    assert source.refuse(trust, source.update(2)) == "height"
    with pytest.raises(NotYet):
        light.advance(source.settings, trust, source.update(20), source.header(20).timestamp_ms - 10_001)


def test_following_ends_when_the_helper_gives_other_epochs_or_never_helps() -> None:
    source = Source(churn_bp_max=10_000)
    source.grow_to(1, source.chain.found(4, 90_000))
    source.grow_to(6)
    buyer = source.sets[5].validators[-1]
    assert buyer.stake == max(validator.stake for validator in source.sets[5].validators)
    target = replace(source.update(16), final=source.finalize(source.header(16), signers=(4,)))
    with pytest.raises(Rejected) as caught:
        light.follow(source.settings, source.trust_genesis(), target, lambda _: target, source.now_ms)
    assert caught.value.code == "epoch"


# --- what it proves ---------------------------------------------------------------------------------


def test_accounts_records_and_older_blocks_are_proven_below_a_trusted_header(source: Source) -> None:
    chain = source.chain
    header = source.advance(source.trust_genesis(), source.update(len(chain.blocks))).header
    proof = prove_account(chain.view, ANN.address)
    assert light.verify_account(header, proof, ANN.address).balance == chain.balance(ANN)
    with pytest.raises(Rejected):
        light.verify_account(header, proof, OPERATORS[0].address)
    key = rec.NAMESPACE_VALIDATOR + OPERATORS[4].address
    assert light.verify_record(header, prove_record(chain.view, key), key) is not None
    absent = rec.NAMESPACE_VALIDATOR + ANN.address
    assert light.verify_record(header, prove_record(chain.view, absent), absent) is None
    with pytest.raises(Rejected):
        light.verify_record(header, prove_record(chain.view, absent), key)
    with pytest.raises(Rejected):
        light.verify_record(source.header(3), prove_record(chain.view, key), key)
    old = source.header(5)
    history = chain.history.prove_inclusion(5, header.height)
    assert light.verify_ancestor(header, old, history)
    assert not light.verify_ancestor(header, source.header(6), history)
    assert not light.verify_ancestor(header, alter(chain.blocks[4], view=9).header, history)


def test_a_transaction_is_proven_with_its_score() -> None:
    chain = Chain()
    built = chain.grow(
        chain.transfer(amount=25_000), chain.transfer(amount=5), chain.transfer(amount=7)
    ).block
    leaves = [
        compute_leaf(tx.id, score, outcome)
        for tx, score, outcome in zip(built.transactions, built.scores, built.outcomes, strict=True)
    ]
    good = TransactionProof(
        built.transactions[0].id, built.scores[0], built.outcomes[0], 0, prove_inclusion(leaves, 0)
    )
    assert light.verify_transaction(built.header, good)
    for lie in (
        {"score": good.score - 1},
        {"outcome": 0},
        {"outcome": 2},
        {"index": 1},
        {"transaction_id": built.transactions[1].id},
        {"transaction_id": b""},
        {"score": -1},
        {"siblings": ()},
    ):
        assert not light.verify_transaction(built.header, replace(good, **lie))  # type: ignore[arg-type]


def test_a_models_activation_is_read_from_the_headers() -> None:
    chain = Chain()
    (seat,) = light.read_modules(chain.view.header, chain.view.modules_record).seats
    assert (seat.name, seat.refuse_score_min) == ("counting", 5_000)
    with pytest.raises(Rejected):
        light.read_modules(chain.view.header, b"\x90")


# --- lies -------------------------------------------------------------------------------------------


def fork(source: Source, height: int, **fields: object) -> Header:
    return alter(source.chain.blocks[height - 1], **{"state_root": b"f" * 32, **fields}).header


def test_two_final_blocks_of_one_view_give_evidence_against_all_who_signed_both(source: Source) -> None:
    trust = source.advance(
        source.trust_genesis(),
        replace(source.update(8), final=source.finalize(source.header(8), (0, 1, 2, 4))),
    )
    other = source.finalize(fork(source, 8), (1, 2, 3, 4))
    with pytest.raises(Fork) as caught:
        source.advance(trust, replace(source.update(8), final=other))
    lies = caught.value.evidence
    assert [lie.first.signer for lie in lies] == [1, 2, 4]
    stakes = [source.sets[2].validators[lie.first.signer].stake for lie in lies]
    assert 3 * sum(stakes) >= source.sets[2].total
    for lie in lies:
        check_evidence(lie, source.sets[2], source.chain.rules.chain_id, _verify)


def _verify(public_key: bytes, digest: bytes, signature: bytes) -> bool:
    return KEYS[public_key].sign(digest) == signature  # RFC 6979: one signature for one digest


def test_a_fork_at_an_older_height_is_found_by_comparing_two_nodes(source: Source) -> None:
    trust = source.advance(source.trust_genesis(), source.update(20))
    proof = source.chain.history.prove_inclusion(8, 20)
    known, other = source.finalize(source.header(8)), source.finalize(fork(source, 8))
    check = (source.settings, trust, known, proof)
    light.check_agreement(*check, known, source.sets[2])
    with pytest.raises(Fork) as caught:
        light.check_agreement(*check, other, source.sets[2])
    assert len(caught.value.evidence) == 5
    unsigned = replace(
        other, certificate=replace(other.certificate, signatures=other.certificate.signatures[:2])
    )
    for arguments in (
        (unsigned, source.sets[2]),
        (source.finalize(source.header(9)), source.sets[2]),
        (other, source.sets[4]),
    ):
        with pytest.raises(Rejected) as refused:
            light.check_agreement(*check, *arguments)
        assert not isinstance(refused.value, Fork)


def test_a_fork_in_another_view_is_proven_with_the_nullification(source: Source) -> None:
    header = source.header(8)
    trust = source.advance(source.trust_genesis(), source.update(8))
    with pytest.raises(Fork) as caught:
        source.advance(trust, replace(source.update(8), final=source.finalize(fork(source, 8, view=9))))
    assert caught.value.evidence == ()
    nullified = source.certify(NULLIFY, 2, header.view, b"", (0, 1, 2))
    final = source.update(8).final.certificate
    assert [lie.first.signer for lie in find_evidence((final, nullified))] == [0, 1, 2]


@pytest.mark.parametrize(
    ("parent_view", "wanted"),
    [
        (0, "the nullification of view 2"),
        (2, "the two notarizations of view 2"),
        (3, "the nullification of view 2, or two notarizations of it"),
    ],
)
def test_what_a_fork_over_views_proves_is_told_and_nobody_is_accused(
    source: Source, parent_view: int, wanted: str
) -> None:
    header, validators = source.header(8), source.sets[2]
    first = source.finalize(header, (0, 1, 2, 4))
    second = source.finalize(fork(source, 8, view=9, parent_view=parent_view), (1, 2, 3, 4))
    assert header.view == 2
    for pair in ((first, second), (second, first)):
        proof = prove_fork(*pair, validators)
        assert (proof.views, proof.signed_both, proof.signed_lower) == ((2, 9), (1, 2, 4), (0, 1, 2, 4))
        assert proof.wanted == wanted
        assert find_evidence([final.certificate for final in pair]) == ()
        assert 3 * proof.liars_stake_min > validators.total
        assert f"{wanted}" in proof.describe(validators.total)
    signed = sum(validators.validators[signer].stake for signer in (0, 1, 2, 4))
    least = signed + validators.quorum if parent_view < 2 else 2 * validators.quorum
    assert proof.liars_stake_min == least - validators.total


def test_in_one_view_all_who_signed_both_lied(source: Source) -> None:
    proof = prove_fork(
        source.finalize(source.header(8), (0, 1, 2, 4)),
        source.finalize(fork(source, 8), (1, 2, 3, 4)),
        source.sets[2],
    )
    stakes = [source.sets[2].validators[signer].stake for signer in (1, 2, 4)]
    assert (proof.wanted, proof.signed_both, proof.liars_stake_min) == ("", (1, 2, 4), sum(stakes))


def test_evidence_of_the_light_client_is_taken_by_the_chain() -> None:
    source = Source(churn_bp_max=10_000, unbonding_epochs=6)
    source.grow_to(3)
    trust = source.advance(source.trust_genesis(), source.update(8))
    with pytest.raises(Fork) as caught:
        source.advance(trust, replace(source.update(8), final=source.finalize(fork(source, 8), (1, 2, 3))))
    accusations = []
    for number, lie in enumerate(caught.value.evidence):
        operator = epochs.get_set(source.chain.view.records, 2).operators[lie.first.signer]
        index = [key.address for key in OPERATORS].index(operator)
        accusations.append(source.chain.accuse(index, lie, PEOPLE[number % len(PEOPLE)]))
    source.chain.grow(*accusations)
    assert [source.chain.stake(number).status for number in range(4)] == [0, 2, 2, 2]


def test_two_empty_blocks_of_one_height_are_a_fork_although_they_change_the_same() -> None:
    """Idle chains are all empty blocks: that no state differs does not make one the other's tail."""
    factory = ChainFactory()
    factory.grow(2)
    settings, validators = LightSettings.from_genesis(factory.rules.genesis), factory.rules.validators
    one, other = (
        FinalHeader(block.header, factory.certify(block.header, FINALIZE))
        for block in (factory.build(), factory.build(skipped_views=1))
    )
    assert (one.header.state_root, one.header.history_root) == (
        other.header.state_root,
        other.header.history_root,
    )
    trust = Trust(one.header, validators, validators, one)
    with pytest.raises(Fork):
        light.check_agreement(settings, trust, one, (), other, validators)
    with pytest.raises(Fork):
        light.advance(settings, trust, Update(other, validators, validators), 10**12)
