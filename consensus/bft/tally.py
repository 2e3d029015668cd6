"""Votes and certificates of the views above the last final one, and the lies found among them.

A `Round` is one view as this node knows it: the first vote of each validator and kind, the certificate
of each kind, the leader's first proposal. Own votes stand here like any other: what this validator has
signed is what its row says, after a restart too.

Invariant: memory is bounded by validators x views; a second vote of one kind is never kept, only
reported, once per validator and view. Votes come checked (`check_message`).
Source: consensus.md, rules 6 and 12, Liars.
"""

from __future__ import annotations

from collections.abc import Iterator

from consensus.bft.contract import Proposal
from consensus.vote import (
    FINALIZE,
    NO_BLOCK,
    NOTARIZE,
    NULLIFY,
    Certificate,
    Evidence,
    ValidatorSet,
    Vote,
    is_conflict,
)


class Round:
    """One view: votes and certificates by kind (NOTARIZE, NULLIFY, FINALIZE), the first proposal."""

    __slots__ = ("accused", "certificates", "proposal", "stakes", "view", "votes")

    def __init__(self, view: int) -> None:
        self.view = view
        self.votes: tuple[dict[int, Vote], dict[int, Vote], dict[int, Vote]] = ({}, {}, {})
        self.stakes: dict[tuple[int, bytes], int] = {}
        self.certificates: list[Certificate | None] = [None, None, None]
        self.proposal: Proposal | None = None
        self.accused: set[int] = set()

    @property
    def notarized_hash(self) -> bytes:
        """The hash of the block a quorum notarized here, or NO_BLOCK."""
        certificate = self.certificates[NOTARIZE]
        return NO_BLOCK if certificate is None else certificate.subject.block_hash

    @property
    def is_nullified(self) -> bool:
        return self.certificates[NULLIFY] is not None

    def collect(self, kind: int) -> Certificate | None:
        """The certificate of `kind` with every signature on its subject that is here: late ones too."""
        certificate = self.certificates[kind]
        if certificate is None:
            return None
        signatures = dict(certificate.signatures)
        for signer, vote in self.votes[kind].items():
            if vote.subject == certificate.subject:
                signatures.setdefault(signer, vote.signature)
        return Certificate(certificate.subject, tuple(sorted(signatures.items())))

    def has_vote(self, kind: int, signer: int) -> bool:
        return signer in self.votes[kind]


class Tally:
    """The rounds of one epoch, opened when something is heard of them."""

    def __init__(self, validators: ValidatorSet) -> None:
        self._stakes = tuple(validator.stake for validator in validators.validators)
        self._quorum = validators.quorum
        self._rounds: dict[int, Round] = {}

    def __len__(self) -> int:
        return len(self._rounds)

    def get(self, view: int) -> Round | None:
        return self._rounds.get(view)

    def open(self, view: int) -> Round:
        """The round of this view, made if nothing was heard of it yet."""
        found = self._rounds.get(view)
        if found is None:
            found = self._rounds[view] = Round(view)
        return found

    def iterate(self) -> Iterator[Round]:
        """All rounds, by view."""
        for view in sorted(self._rounds):
            yield self._rounds[view]

    def prune(self, final_view: int) -> None:
        """Forget the rounds up to `final_view`."""
        for view in [view for view in self._rounds if view <= final_view]:
            del self._rounds[view]

    def add_vote(self, vote: Vote) -> tuple[Certificate | None, Evidence | None]:
        """Count a vote: the certificate that it completed, and the evidence that it gave, if any."""
        subject = vote.subject
        found = self.open(subject.view)
        votes = found.votes[subject.kind]
        if vote.signer in votes:
            return None, self._accuse(found, vote)  # counted before: once is enough
        evidence = self._accuse(found, vote)
        votes[vote.signer] = vote
        key = (subject.kind, subject.block_hash)
        stake = found.stakes.get(key, 0) + self._stakes[vote.signer]
        found.stakes[key] = stake
        if stake < self._quorum or found.certificates[subject.kind] is not None:
            return None, evidence
        signatures = sorted(
            (signer, held.signature)
            for signer, held in votes.items()
            if held.subject.block_hash == subject.block_hash
        )
        return Certificate(subject, tuple(signatures)), evidence

    def accuse_signers(self, certificate: Certificate) -> list[Evidence]:
        """Evidence against signers of a certificate whose votes held here say something else."""
        subject = certificate.subject
        found = self.open(subject.view)
        accusations = []
        for signer, signature in certificate.signatures:
            evidence = self._accuse(found, Vote(subject, signer, signature))
            if evidence is not None:
                accusations.append(evidence)
        return accusations

    @staticmethod
    def _accuse(found: Round, vote: Vote) -> Evidence | None:
        for kind in _CONFLICTING[vote.subject.kind]:
            held = found.votes[kind].get(vote.signer)
            if held is not None and vote.signer not in found.accused and is_conflict(held, vote):
                found.accused.add(vote.signer)
                return Evidence(held, vote)
        return None


# Which earlier votes a vote of this kind may contradict (notarize with nullify is legal).
_CONFLICTING = {NOTARIZE: (NOTARIZE,), NULLIFY: (FINALIZE,), FINALIZE: (FINALIZE, NULLIFY)}
