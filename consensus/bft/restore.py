"""What a validator knows after a restart: the maximum over its journal's records, not the last of them.

Invariant: records of this epoch bind, whatever their order; others' votes and other epochs are left
out. A view was reached if a certificate of the view before it, or an own vote or proposal in it, is on
record.
Source: consensus.md, What must survive a crash.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from consensus.bft.contract import Proposal
from consensus.vote import FINALIZE, Certificate, Vote

Record = Vote | Certificate | Proposal


@dataclass(frozen=True, slots=True)
class Restored:
    """final: the highest finalization. The rest lies above it; `entry` led into `view`, if known.

    all_certificates: of whatever view, for two may contradict each other.
    """

    view: int
    final: Certificate | None
    entry: Certificate | None
    certificates: tuple[Certificate, ...]
    all_certificates: tuple[Certificate, ...]
    votes: tuple[Vote, ...]
    proposals: tuple[Proposal, ...]


def restore(records: Iterable[Record], epoch: int, own_index: int | None) -> Restored:
    """Read the records of this epoch into what still binds."""
    certificates: list[Certificate] = []
    votes: list[Vote] = []
    proposals: list[Proposal] = []
    for record in records:
        match record:
            case Certificate():
                if record.subject.epoch == epoch:
                    certificates.append(record)
            case Proposal():
                if record.block.epoch == epoch and record.block.proposer == own_index:
                    proposals.append(record)
                    votes.append(record.vote)
            case Vote():
                if record.subject.epoch == epoch and record.signer == own_index:
                    votes.append(record)
    finals = [certificate for certificate in certificates if certificate.subject.kind == FINALIZE]
    final = max(finals, key=lambda certificate: certificate.subject.view, default=None)
    final_view = 0 if final is None else final.subject.view
    # A finalize vote may concern a view that was left; the two others are cast in the current view only.
    reached = [vote.subject.view for vote in votes if vote.subject.kind != FINALIZE]
    reached += [certificate.subject.view + 1 for certificate in certificates]
    view = max(reached, default=1)
    entries = [certificate for certificate in certificates if certificate.subject.view < view]
    return Restored(
        view=max(view, final_view + 1),
        final=final,
        entry=max(entries, key=lambda certificate: certificate.subject.view, default=None),
        certificates=tuple(entry for entry in certificates if entry.subject.view > final_view),
        all_certificates=tuple(certificates),
        votes=tuple(vote for vote in votes if vote.subject.view > final_view),
        proposals=tuple(proposal for proposal in proposals if proposal.block.view > final_view),
    )
