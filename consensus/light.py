"""Light client: what a phone can check without a node, from one header that it trusts.

A `Trust` is a header and the sets of its epoch and the next, both of which the header commits to. An
`Update` moves it on: a later header with what makes it final. One that lies in the same or the next
epoch is checked by the set known (sequential verification). One further on is believed when

    1. stake of at least floor(2W/3) + 1 of the set that it names itself signed it, and
    2. those signers hold more than a third of the stake of the *next* set of the trusted header,

signers being the same where their voting keys are. Where less than a third of that stake lies, one
honest validator signed, and no honest one signs in an epoch whose set it has not seen fixed.
`churn_bp_max` keeps quorums inside an unbonding period above that third (decision 41).

Invariant: pure; nothing is believed beyond `trusting_ms` of the trusted header's time, for then its
validators may have taken their stake home (weak subjectivity). Two final blocks that exclude each
other are a `Fork` (forks.py).
Source: Braithwaite et al., "Tendermint light client" (2020), and ICS-07: trust level 1/3. Leaves out: fetching.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from consensus import block, codec, crypto, merkle, vote
from consensus.block import Header
from consensus.errors import NotYet, Rejected
from consensus.forks import Fork
from consensus.genesis import Genesis
from consensus.ledger import scoring
from consensus.ledger.proofs import AccountProof, verify_account_proof
from consensus.ledger.record_proofs import RecordProof, verify_record_proof
from consensus.ledger.seating import Seating, compute_modules_digest, decode_seating
from consensus.ledger.state import Account
from consensus.vote import FINALIZE, Certificate, ValidatorSet, Verifier

LINKS_MAX: Final = 4096  # headers between a final block and the certified one, as nodes keep them
STEPS_MAX: Final = 64  # of `follow`: halvings of 2^32 epochs, twice


@dataclass(frozen=True, slots=True)
class LightSettings:
    """chain_id: signatures bind it. trusting_ms: how old a trusted header may be. drift_ms: of clocks."""

    chain_id: str
    trusting_ms: int
    drift_ms: int

    @classmethod
    def from_genesis(cls, genesis: Genesis) -> LightSettings:
        """Trust for two thirds of the unbonding period: the rest is time to bring evidence into a block.

        On a chain without epochs no stake ever leaves, and trust does not end.
        """
        parameters = genesis.parameters
        trusting_ms = parameters.unbonding_ms * 2 // 3 if parameters.epoch_blocks else codec.TIME_MS_MAX
        return cls(genesis.chain_id, trusting_ms, parameters.clock_drift_ms_max)


@dataclass(frozen=True, slots=True)
class FinalHeader:
    """A header and what makes its block final: a finalization of it, or of a descendant in its epoch.

    links: the headers from its child to the certified one; empty when it is certified itself. Of tails the last is
    enough, for each names its boundary block.
    """

    header: Header
    certificate: Certificate
    links: tuple[Header, ...] = ()


@dataclass(frozen=True, slots=True)
class Update:
    """A final header with the sets that it commits to."""

    final: FinalHeader
    validators: ValidatorSet
    next_validators: ValidatorSet


@dataclass(frozen=True, slots=True)
class Trust:
    """What the client stands on. `final` is None for a checkpoint that was given by hand."""

    header: Header
    validators: ValidatorSet
    next_validators: ValidatorSet
    final: FinalHeader | None = None


# --- trust --------------------------------------------------------------------------------------------


def open_checkpoint(
    settings: LightSettings,
    trusted_hash: bytes,
    header: Header,
    validators: ValidatorSet,
    next_validators: ValidatorSet,
    now_ms: int,
) -> Trust:
    """The trust that a hash given by somebody trusted stands for; the rest may come from anybody.

    Raises Rejected when they do not belong together, or when the checkpoint is too old.
    """
    if header.hash != trusted_hash:
        raise Rejected(
            f"is 0x{header.hash.hex()}, the checkpoint says 0x{trusted_hash.hex()}",
            field="header",
            mend="ask another node",
            code="checkpoint",
        )
    _check_sets(header, validators, next_validators)
    trust = Trust(header, validators, next_validators)
    check_age(settings, trust, now_ms)
    return trust


def check_age(settings: LightSettings, trust: Trust, now_ms: int) -> None:
    """Raises Rejected once the trusted header is too old to stand on."""
    age_ms = now_ms - trust.header.timestamp_ms
    if age_ms >= settings.trusting_ms:
        raise Rejected(
            f"is {age_ms} ms old, at most {settings.trusting_ms} can be trusted: its validators may have unbonded",
            field="checkpoint",
            mend="get a newer hash from somebody you trust",
            code="checkpoint_age",
        )


def advance(
    settings: LightSettings, trust: Trust, update: Update, now_ms: int, verify: Verifier = crypto.verify
) -> Trust:
    """The trust that `update` leads to. Raises Rejected (code "overlap": verify an epoch between first),
    NotYet for a header from the future, Fork for one that excludes the trusted one."""
    check_age(settings, trust, now_ms)
    header, old = update.final.header, trust.header
    if header.timestamp_ms > now_ms + settings.drift_ms:
        raise NotYet(
            f"{header.timestamp_ms} is ahead of the clock {now_ms}",
            field="header.timestamp_ms",
            code="timestamp",
        )
    _check_sets(header, update.validators, update.next_validators)
    if header.epoch < old.epoch or (header.epoch == old.epoch and header.height < old.height):
        raise Rejected(
            f"block {header.height} of epoch {header.epoch} is below the trusted block {old.height}",
            field="header.height",
            mend="show it in the history (verify_ancestor)",
            code="height",
        )
    if header.epoch == old.epoch:
        _check_known(header, trust.validators, "the trusted one's")
    elif header.epoch == old.epoch + 1:
        _check_known(header, trust.next_validators, "the one that the trusted header fixed")
    else:
        check_overlap(trust.next_validators, update.validators, update.final.certificate)
    check_final(update.final, update.validators, settings.chain_id, verify)
    if header.height == old.height and header.hash != old.hash:
        if _is_same_boundary(header, old):
            raise Rejected(
                f"is a tail of epoch {header.epoch}, or the trusted block is one",
                field="header",
                mend="ask for the boundary block, or a later one",
                code="tail",
            )
        raise Fork(trust.final, update.final, update.validators)
    if header.height > old.height and header.timestamp_ms < old.timestamp_ms:
        raise Rejected(
            f"{header.timestamp_ms} is before the trusted {old.timestamp_ms}",
            field="header.timestamp_ms",
            code="timestamp",
        )
    return Trust(header, update.validators, update.next_validators, update.final)


def check_overlap(trusted: ValidatorSet, validators: ValidatorSet, certificate: Certificate) -> None:
    """Raises Rejected unless the signers hold more than a third of the trusted set's stake."""
    stakes = {validator.public_key: validator.stake for validator in trusted.validators}
    signers = {signer for signer in certificate.signers if 0 <= signer < len(validators)}
    overlap = sum(stakes.get(validators.validators[signer].public_key, 0) for signer in signers)
    if 3 * overlap <= trusted.total:
        raise Rejected(
            f"signers that are trusted hold {overlap} of {trusted.total}, more than a third is needed",
            field="certificate",
            mend="verify a header of an epoch between first",
            code="overlap",
        )


def check_final(final: FinalHeader, validators: ValidatorSet, chain_id: str, verify: Verifier) -> None:
    """Raises Rejected unless a quorum of `validators` finalized the block or a descendant that `links` reach."""
    if len(final.links) > LINKS_MAX:
        raise Rejected(f"{len(final.links)}, at most {LINKS_MAX} allowed", field="links", code="size")
    last = final.header
    for link in final.links:
        if not block.is_link(link, last):
            raise Rejected("do not lead to the certified block", field="links", code="links")
        last = link
    subject = final.certificate.subject
    if (subject.kind, subject.epoch, subject.view, subject.block_hash) != (
        FINALIZE,
        last.epoch,
        last.view,
        last.hash,
    ):
        raise Rejected("is no finalization of the block", field="certificate", code="certificate")
    vote.check_certificate(final.certificate, validators, chain_id, verify)


def follow(
    settings: LightSettings,
    trust: Trust,
    target: Update,
    fetch: Callable[[int], Update],
    now_ms: int,
    verify: Verifier = crypto.verify,
) -> Trust:
    """Skips to `target` as far as overlaps allow, and else through an epoch half-way ("bisection").

    fetch(epoch): a final header of that epoch, from anybody. Raises what `advance` raises.
    """
    waiting = [target]
    for _ in range(STEPS_MAX):
        try:
            trust = advance(settings, trust, waiting[-1], now_ms, verify)
        except Rejected as error:
            if error.code != "overlap":
                raise
            between = (trust.header.epoch + waiting[-1].final.header.epoch) // 2
            found = fetch(between)
            if found.final.header.epoch != between:
                raise Rejected(
                    f"is of epoch {found.final.header.epoch}, {between} was asked for",
                    field="header.epoch",
                    code="epoch",
                ) from None
            waiting.append(found)
        else:
            waiting.pop()
            if not waiting:
                return trust
    raise Rejected(
        f"not there after {STEPS_MAX} steps", field="target", mend="ask another node", code="steps"
    )


def _check_sets(header: Header, validators: ValidatorSet, next_validators: ValidatorSet) -> None:
    for name, told, given in (
        ("validators", header.validators_digest, validators.digest),
        ("next_validators", header.next_validators_digest, next_validators.digest),
    ):
        if told != given:
            raise Rejected(
                "are not those that the header commits to",
                field=name,
                mend="ask another node",
                code="validators",
            )


def _check_known(header: Header, validators: ValidatorSet, whose: str) -> None:
    if header.validators_digest != validators.digest:
        raise Rejected(
            f"are another set than {whose}", field="validators", mend="ask another node", code="validators"
        )


def _is_same_boundary(one: Header, other: Header) -> bool:
    """Whether two blocks of one height do not exclude each other: a boundary block and a tail of it, or two tails.

    Two tails name the same block in `reveal`. So do two blocks of an onion's layer that change nothing else, whose
    proposer equivocates: they are taken for tails.
    """
    if block.is_link(one, other) or block.is_link(other, one):
        return True
    first, second = (
        (header.state_root, header.history_root, header.transaction_count, header.reveal)
        for header in (one, other)
    )
    return first == second and one.transaction_count == 0 and one.reveal != b""


def check_agreement(
    settings: LightSettings,
    trust: Trust,
    known: FinalHeader,
    history_proof: Sequence[bytes],
    other: FinalHeader,
    validators: ValidatorSet,
    verify: Verifier = crypto.verify,
) -> None:
    """Compares what a second node calls final with the block that the trusted one's history has there.

    known: that block and what made it final; history_proof leads from it to `trust`.
    validators: of its epoch. Raises Fork when both are final, Rejected when something does not hold.
    """
    mine, theirs = known.header, other.header
    if not verify_ancestor(trust.header, mine, history_proof):
        raise Rejected("does not lead to the trusted header", field="history_proof", code="proof")
    if (mine.epoch, mine.height) != (theirs.epoch, theirs.height):
        raise Rejected("are of different heights", field="header.height", code="height")
    _check_known(mine, validators, "the one that the known header names")
    check_final(other, validators, settings.chain_id, verify)
    if mine.hash != theirs.hash and not _is_same_boundary(mine, theirs):
        check_final(known, validators, settings.chain_id, verify)
        raise Fork(known, other, validators)


# --- what lies below a trusted header -----------------------------------------------------------------


def verify_ancestor(trusted: Header, header: Header, proof: Sequence[bytes]) -> bool:
    """Whether `header` is that of a block below the trusted one: RFC 6962 inclusion in its history root."""
    if header.height >= trusted.height:
        return header.hash == trusted.hash
    leaf = merkle.hash_leaf(header.hash)
    return merkle.verify_inclusion(leaf, header.height, trusted.height, proof, trusted.history_root)


def verify_account(header: Header, proof: AccountProof, address: bytes) -> Account:
    """The account as it was after this block. Raises Rejected unless the proof shows this one."""
    if proof.account.address != address or not verify_account_proof(proof, header.state_root):
        raise Rejected("does not show the account", field="proof", mend="ask another node", code="proof")
    return proof.account


@dataclass(frozen=True, slots=True)
class TransactionProof:
    """That a block holds a transaction with this score (0..10000) and outcome, at `index`."""

    transaction_id: bytes
    score: int
    outcome: int
    index: int
    siblings: tuple[bytes, ...]


def verify_transaction(header: Header, proof: TransactionProof) -> bool:
    """Whether the block holds the transaction *and judged it so*."""
    is_sound = (
        type(proof.score) is int
        and 0 <= proof.score <= scoring.SCORE_MAX
        and proof.outcome in (scoring.ACCEPT, scoring.FLAG)
        and len(proof.transaction_id) == block.HASH_BYTES
    )
    if not is_sound:
        return False
    leaf = merkle.hash_leaf(block.compute_leaf(proof.transaction_id, proof.score, proof.outcome))
    return merkle.verify_inclusion(
        leaf, proof.index, header.transaction_count, proof.siblings, header.transactions_root
    )


def verify_record(header: Header, proof: RecordProof, key: bytes) -> bytes | None:
    """The record's value after this block, None for none. Raises Rejected unless the proof shows this key."""
    if proof.key != key or not verify_record_proof(proof, header.state_root):
        raise Rejected("does not show the record", field="proof", mend="ask another node", code="proof")
    return proof.value


def read_modules(header: Header, modules_record: bytes) -> Seating:
    """The seats of those who judged this block; a model was activated where a header names it first.

    modules_record: the preimage of `modules_digest`, from anybody. Raises Rejected when it is none.
    """
    if compute_modules_digest(modules_record) != header.modules_digest:
        raise Rejected("are not those that the header commits to", field="modules", code="modules")
    return decode_seating(modules_record)
