"""The invariants of consensus, checked from outside on every simulated run.

A checker sees what honest nodes say, hold and commit, and knows nothing of how engines work. Each
complaint names the invariant it is about. Source: consensus.md, Safety invariants, Liveness invariant.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from consensus.bft.contract import BlockRef, Message, Proposal
from consensus.errors import Rejected
from consensus.vote import (
    FINALIZE,
    KIND_NAMES,
    NOTARIZE,
    NULLIFY,
    Certificate,
    Evidence,
    ValidatorSet,
    Vote,
    check_certificate,
    is_conflict,
)
from node.simulation import toys

LIVENESS_VIEWS_MAX: Final = 40  # after healing: a few rounds of bad leaders, and the standstill before them
LIVENESS_MS_MAX: Final = 60_000  # in simulated time; several full standstill periods


class Violation(Exception):
    """An invariant does not hold. The world adds the command that replays it."""


@dataclass
class SafetyChecker:
    """Over all honest nodes of one run. Raises Violation."""

    validators: ValidatorSet
    honest: frozenset[int]
    chain: list[BlockRef] = field(default_factory=lambda: [toys.GENESIS])
    notarized: dict[int, bytes] = field(default_factory=dict)
    finalized: dict[int, bytes] = field(default_factory=dict)
    nullified: set[int] = field(default_factory=set)
    votes: dict[tuple[int, int], list[Vote]] = field(default_factory=dict)
    places: dict[int, tuple[int, int]] = field(default_factory=dict)  # node -> (view, final view)
    evidence: int = 0

    def hear(self, node: int, message: Message, *, is_body_durable: bool) -> None:
        """An honest node sends a message."""
        match message:
            case Vote():
                self._hear_vote(node, message, is_body_durable)
            case Proposal():
                if message.parent_certificate is not None:
                    self._hear_certificate(message.parent_certificate)
                for certificate in message.nullifications:
                    self._hear_certificate(certificate)
                self._hear_vote(node, message.vote, is_body_durable)
            case Certificate():
                self._hear_certificate(message)

    def _hear_vote(self, node: int, vote: Vote, is_body_durable: bool) -> None:
        if vote.signer != node:
            raise Violation(f"node {node} speaks for validator {vote.signer}")
        votes = self.votes.setdefault((node, vote.subject.view), [])
        if vote in votes:
            return
        for earlier in votes:
            if is_conflict(earlier, vote):
                kinds = f"{KIND_NAMES[earlier.subject.kind]} and {KIND_NAMES[vote.subject.kind]}"
                raise Violation(f"single votes: honest node {node} cast {kinds} in view {vote.subject.view}")
        votes.append(vote)
        if vote.subject.kind == NOTARIZE and not is_body_durable:
            raise Violation(f"durable bodies: node {node} notarized view {vote.subject.view} without it")

    def _hear_certificate(self, certificate: Certificate) -> None:
        subject = certificate.subject
        view, block_hash = subject.view, subject.block_hash
        if subject.kind == NULLIFY:
            is_new = view not in self.nullified
            self.nullified.add(view)
        else:
            table = self.notarized if subject.kind == NOTARIZE else self.finalized
            is_new = view not in table
            if table.setdefault(view, block_hash) != block_hash:
                raise Violation(
                    f"agreement: two blocks have a {KIND_NAMES[subject.kind]} quorum in view {view}"
                )
        if not is_new:
            return
        if view in self.nullified and view in self.finalized:
            raise Violation(f"agreement: view {view} is both nullified and final")
        if view in self.finalized and self.notarized.get(view) != self.finalized[view]:
            raise Violation(f"final implies notarized: view {view} is not")
        try:
            check_certificate(certificate, self.validators, toys.CHAIN_ID, toys.verify)
        except Rejected as error:
            raise Violation(f"certificates: an honest node sends a bad one ({error})") from error

    def commit(self, node: int, block: BlockRef) -> None:
        """A node's ledger takes the next final block."""
        if block.height < len(self.chain):
            if self.chain[block.height].hash != block.hash:
                raise Violation(f"one chain: node {node} commits another block at height {block.height}")
            return
        parent = self.chain[-1]
        if block.height != len(self.chain) or block.parent_hash != parent.hash:
            raise Violation(f"one chain: node {node} commits height {block.height} on something else")
        skipped = set(range(parent.view + 1, block.view)) - self.nullified
        if skipped:
            raise Violation(f"gaps: views {sorted(skipped)} below view {block.view} are not nullified")
        self.chain.append(block)

    def look_at(self, node: int, view: int, final_view: int) -> None:
        """Where a node stands, after its effects were performed; also right after a restart."""
        view_before, final_before = self.places.get(node, (0, 0))
        if view < view_before or final_view < final_before:
            raise Violation(
                f"no way back: node {node} went from view {view_before} (final {final_before}) "
                f"to {view} (final {final_view})"
            )
        self.places[node] = (view, final_view)

    def accuse(self, evidence: Evidence) -> None:
        """A node reports evidence: it must not hit an honest one."""
        if evidence.first.signer in self.honest:
            raise Violation(f"framing: evidence against honest node {evidence.first.signer}")
        if not is_conflict(evidence.first, evidence.second):
            raise Violation("evidence: the votes do not contradict each other")
        self.evidence += 1

    def check_final_votes(self) -> None:
        """At the end: every final block had a quorum of finalize votes that honest nodes stand by."""
        for view, block_hash in self.finalized.items():
            for node in self.honest:
                for vote in self.votes.get((node, view), ()):
                    if vote.subject.kind == FINALIZE and vote.subject.block_hash != block_hash:
                        raise Violation(f"agreement: node {node} voted another block final in view {view}")


@dataclass(slots=True)
class LivenessChecker:
    """After the world healed, every honest node must finalize a block of a later view, in time."""

    healed_ms: int
    healed_view: int

    def check(self, now_ms: int, places: dict[int, tuple[int, int]]) -> bool:
        """Whether all have done so; raises Violation when it is too late."""
        if all(final_view > self.healed_view for _, final_view in places.values()):
            return True
        view = max(view for view, _ in places.values())
        if view > self.healed_view + LIVENESS_VIEWS_MAX or now_ms > self.healed_ms + LIVENESS_MS_MAX:
            raise Violation(
                f"liveness: {now_ms - self.healed_ms} ms and {view - self.healed_view} views after "
                f"healing in view {self.healed_view}, nodes stand at (view, final) {places}"
            )
        return False
