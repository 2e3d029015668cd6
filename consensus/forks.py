"""Forks: two final blocks that exclude each other, what their certificates prove, and against whom.

Both are of one epoch, W being its stake and q = floor(2W/3) + 1 a quorum. Two finalizations of one view name
their liars: whoever signed both. Of different views, v below w, two certificates prove *that* validators with
2q - W at least lied, and not *who*: to vote for the later block, honest validators needed either a
nullification of v, so that 2q - W finalized and nullified v; or a notarization of another block in v, so
that 2q - W notarized two blocks there. Somebody honest may have signed both finalizations, which is why
signing both is told, and no evidence. The third certificate makes it evidence: `find_evidence` takes any.

Invariant: pure, nobody is accused but by two of its own signatures. Source: decision 42; consensus.md, The idea.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consensus.errors import Rejected
from consensus.vote import FINALIZE, Certificate, Evidence, ValidatorSet, Vote, is_conflict

if TYPE_CHECKING:
    from consensus.light import FinalHeader


@dataclass(frozen=True, slots=True)
class ForkProof:
    """What two finalizations of an epoch prove. Signers are indices in its set, stakes in smallest units.

    views: of the certificates, rising; equal ones prove who lied. signed_lower: whoever signed the one of the lower view;
    signed_both: and the other one as well. liars_stake_min: so much stake lied at least. wanted: what certificate
    of the lower view proves who it was; empty when that is proven.
    """

    epoch: int
    views: tuple[int, int]
    signed_lower: tuple[int, ...]
    signed_both: tuple[int, ...]
    liars_stake_min: int
    wanted: str

    def describe(self, total: int) -> str:
        """In words; total: the stake of the set."""
        low, high = self.views
        both = f"{len(self.signed_both)} validators signed both"
        if not self.wanted:
            return (
                f"both of view {low}: {both}, and each of them lied: {self.liars_stake_min} of {total} stake"
            )
        return (
            f"of views {low} and {high}: validators with at least {self.liars_stake_min} of {total} stake lied; "
            f"{both}, which alone is no lie; who did is proven by {self.wanted}"
        )


class Fork(Rejected):
    """Two final blocks exclude each other: more than a third of the stake broke the protocol, or a liar lies.

    evidence: what two certificates prove, for a transaction of the kind "evidence" each. It is empty when the
    two are of different views: then a certificate of the lower one, asked of a node, gives it
    (`find_evidence`). first: None for a checkpoint that was given by hand, and then proof is None too.
    """

    def __init__(self, first: FinalHeader | None, second: FinalHeader, validators: ValidatorSet) -> None:
        self.first = first
        self.second = second
        certificates = [final.certificate for final in (first, second) if final is not None]
        self.evidence = find_evidence(certificates)
        self.proof = None if first is None else prove_fork(first, second, validators)
        self.total_stake = validators.total
        height = second.header.height
        super().__init__(
            f"block {height} is final as 0x{second.header.hash.hex()}, and another is",
            field="header",
            mend="trust neither; report the evidence",
            code="fork",
        )


def prove_fork(first: FinalHeader, second: FinalHeader, validators: ValidatorSet) -> ForkProof:
    """Of two finalizations that were checked against this set, whose blocks exclude each other."""
    lower, higher = sorted((first, second), key=lambda final: final.certificate.subject.view)
    low, high = lower.certificate.subject.view, higher.certificate.subject.view
    signed = set(lower.certificate.signers)
    both = tuple(signer for signer in higher.certificate.signers if signer in signed)
    stakes = [validator.stake for validator in validators.validators]
    if low == high:
        wanted, liars_stake = "", sum(stakes[signer] for signer in both)
    else:
        certified = higher.links[-1] if higher.links else higher.header
        liars_stake = 2 * validators.quorum - validators.total
        wanted = f"the nullification of view {low}, or two notarizations of it"
        if certified.parent_view < low:
            # The later block itself skips the view: its voters saw a nullification, and no block there.
            wanted = f"the nullification of view {low}"
            liars_stake = sum(stakes[signer] for signer in signed) + validators.quorum - validators.total
        elif certified.parent_view == low:
            wanted = f"the two notarizations of view {low}"
    return ForkProof(
        lower.certificate.subject.epoch, (low, high), lower.certificate.signers, both, liars_stake, wanted
    )


def contradicts(first: Certificate, second: Certificate) -> bool:
    """Whether two certificates cannot both be unless more than a third of the stake lied in their view.

    Two of one kind for different blocks, or a finalization beside a nullification or another notarized block.
    """
    a, b = first.subject, second.subject
    if (a.epoch, a.view) != (b.epoch, b.view):
        return False
    return a.block_hash != b.block_hash and (a.kind == b.kind or FINALIZE in (a.kind, b.kind))


def find_contradiction(certificates: Iterable[Certificate]) -> tuple[Certificate, Certificate] | None:
    """The first two that contradict each other; None when all may be true."""
    held: dict[tuple[int, int], list[Certificate]] = {}
    for certificate in certificates:
        same_view = held.setdefault((certificate.subject.epoch, certificate.subject.view), [])
        for earlier in same_view:
            if contradicts(earlier, certificate):
                return earlier, certificate
        same_view.append(certificate)
    return None


def find_evidence(certificates: Sequence[Certificate]) -> tuple[Evidence, ...]:
    """Every lie that these certificates prove: two votes of one validator that contradict each other.

    Signatures were checked. One lie of each validator is enough; the first found stands.
    """
    held: dict[tuple[int, int, int], list[Vote]] = {}
    found: dict[tuple[int, int], Evidence] = {}
    for certificate in certificates:
        subject = certificate.subject
        for signer, signature in certificate.signatures:
            new = Vote(subject, signer, signature)
            votes = held.setdefault((subject.epoch, subject.view, signer), [])
            for earlier in votes:
                if is_conflict(earlier, new):
                    found.setdefault((subject.epoch, signer), Evidence(earlier, new))
            votes.append(new)
    return tuple(found[key] for key in sorted(found))
