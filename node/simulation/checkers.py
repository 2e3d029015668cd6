"""The invariants of consensus, checked from outside on every simulated run.

A checker sees what honest nodes say, hold and commit, and knows nothing of how engines work: quorums,
conflicts and gaps are reckoned anew here, with other code than the engine's. Each complaint begins with
the name of its invariant.
Source: consensus.md, Safety invariants, Liveness invariant. Leaves out: what a block holds (the checkers
of whole nodes look into it).
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from consensus.bft.contract import BlockRef, Message, Proposal
from consensus.bft.evidence import decode_evidence, encode_evidence
from consensus.bft.replica import VIEWS_AHEAD_MAX, Replica
from consensus.errors import Rejected
from consensus.vote import (
    FINALIZE,
    KIND_NAMES,
    NOTARIZE,
    NULLIFY,
    Certificate,
    Evidence,
    ValidatorSet,
    Verifier,
    Vote,
    check_evidence,
)

LIVENESS_VIEWS_MAX: Final = 40  # after healing: a few rounds of bad leaders, and the standstill before them
LIVENESS_MS_MAX: Final = 60_000  # in simulated time; several full standstill periods
ROUND_BLOCKS_MAX: Final = 2  # the leader's first proposal, and the block that a quorum certified


class Violation(Exception):
    """An invariant does not hold. The world adds the command that replays it."""


class Turns:
    """Whose turn each view is, reckoned the plain way: the k-th turn of stake w falls due at (2k + 1) / w.

    `named`: views whose leader a scenario decides otherwise.
    """

    def __init__(self, stakes: list[int]) -> None:
        self.named: dict[int, int] = {}
        self._stakes = stakes
        self._due = [(Fraction(1, stake), index, 0) for index, stake in enumerate(stakes)]
        heapq.heapify(self._due)
        self._leaders: list[int] = []

    def get_leader(self, view: int) -> int:
        while len(self._leaders) < view:
            _, index, turn = self._due[0]
            self._leaders.append(index)
            due = Fraction(2 * turn + 3, self._stakes[index])
            heapq.heapreplace(self._due, (due, index, turn + 1))
        return self.named.get(view, self._leaders[view - 1])


@dataclass
class SafetyChecker:
    """Over all honest nodes of one run. Raises Violation.

    genesis: the block that all engines begin on; chain_id and verify: how a signature is checked.
    """

    validators: ValidatorSet
    honest: frozenset[int]
    genesis: BlockRef
    chain_id: str
    verify: Verifier
    chain: list[BlockRef] = field(init=False)
    turns: Turns = field(init=False)
    notarized: dict[int, bytes] = field(default_factory=dict)
    finalized: dict[int, bytes] = field(default_factory=dict)
    nullified: set[int] = field(default_factory=set)
    votes: dict[tuple[int, int], list[Vote]] = field(default_factory=dict)
    places: dict[int, tuple[int, int]] = field(default_factory=dict)  # node -> (view, final view)
    heights: dict[int, int] = field(default_factory=dict)  # node -> height that its ledger stands at
    accusations: list[Evidence] = field(default_factory=list)
    rounds_max: int = 0  # the most that any engine kept at once

    def __post_init__(self) -> None:
        self.chain = [self.genesis]
        self.turns = Turns([validator.stake for validator in self.validators.validators])

    @property
    def evidence(self) -> int:
        return len(self.accusations)

    # --- what honest nodes say --------------------------------------------------------------------

    def hear(
        self, node: int, message: Message, *, is_body_durable: bool, block: BlockRef | None = None
    ) -> None:
        """An honest node sends a message. `block`: of a notarize vote, if its body is known."""
        match message:
            case Vote():
                self._hear_vote(node, message, is_body_durable, block)
            case Proposal():
                if message.parent_certificate is not None:
                    self._hear_certificate(message.parent_certificate)
                for certificate in message.nullifications:
                    self._hear_certificate(certificate)
                self._hear_vote(node, message.vote, is_body_durable, message.block)
            case Certificate():
                self._hear_certificate(message)

    def _hear_vote(self, node: int, vote: Vote, is_body_durable: bool, block: BlockRef | None) -> None:
        if vote.signer != node:
            raise Violation(f"own voice: node {node} speaks for validator {vote.signer}")
        subject = vote.subject
        votes = self.votes.setdefault((node, subject.view), [])
        if vote in votes:
            return
        for earlier in votes:
            if _contradicts(earlier, vote):
                kinds = f"{KIND_NAMES[earlier.subject.kind]} and {KIND_NAMES[subject.kind]}"
                raise Violation(f"single votes: honest node {node} cast {kinds} in view {subject.view}")
        votes.append(vote)
        if subject.kind == NOTARIZE:
            if not is_body_durable:
                raise Violation(f"durable bodies: node {node} notarized view {subject.view} without it")
            if block is not None:
                self._check_block(node, block)
        elif subject.kind == FINALIZE and self.notarized.get(subject.view) != subject.block_hash:
            raise Violation(
                f"final implies notarized: node {node} voted final in view {subject.view} what is not"
            )

    def _check_block(self, node: int, block: BlockRef) -> None:
        """What rule 3 asks of a block before anybody honest may notarize it."""
        if block.proposer != self.turns.get_leader(block.view):
            raise Violation(
                f"turns: node {node} notarized view {block.view} of validator {block.proposer}, "
                f"it was the turn of {self.turns.get_leader(block.view)}"
            )
        if block.parent_view > 0:
            certified = self.notarized.get(block.parent_view), self.finalized.get(block.parent_view)
            if block.parent_hash not in certified:
                raise Violation(
                    f"certified parents: node {node} notarized view {block.view} on view {block.parent_view}"
                )
        skipped = [view for view in range(block.parent_view + 1, block.view) if view not in self.nullified]
        if skipped:
            raise Violation(
                f"gaps: node {node} notarized view {block.view} on {block.parent_view}; {skipped} not nullified"
            )
        final_view = self.places.get(node, (0, 0))[1]
        if block.parent_view < final_view:
            raise Violation(
                f"no way back: node {node} notarized view {block.view} on view {block.parent_view}, "
                f"below its final view {final_view}"
            )

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
        self._check_quorum(certificate)
        if view in self.nullified and view in self.finalized:
            raise Violation(f"agreement: view {view} is both nullified and final")
        if view in self.finalized and self.notarized.get(view) != self.finalized[view]:
            raise Violation(f"final implies notarized: view {view} is not")

    def _check_quorum(self, certificate: Certificate) -> None:
        """More than two thirds of the stake, by distinct validators, each with its own signature."""
        digest = certificate.subject.compute_digest(self.chain_id)
        members = self.validators.validators
        signed = {
            signer
            for signer, signature in certificate.signatures
            if 0 <= signer < len(members) and self.verify(members[signer].public_key, digest, signature)
        }
        stake = sum(members[signer].stake for signer in signed)
        total = sum(member.stake for member in members)
        if len(signed) != len(certificate.signatures) or not 3 * stake > 2 * total:
            raise Violation(
                f"quorums: an honest node sends a {KIND_NAMES[certificate.subject.kind]} certificate of view "
                f"{certificate.subject.view} with stake {stake} of {total}, {len(certificate.signatures)} signatures"
            )

    # --- what honest nodes hold and commit ----------------------------------------------------------

    def commit(self, node: int, block: BlockRef) -> None:
        """A node's ledger takes the next final block."""
        if node not in self.honest:
            return
        height = self.heights.get(node, 0) + 1
        if block.height != height:
            raise Violation(f"one chain: node {node} commits height {block.height}, the next is {height}")
        self.heights[node] = height
        if height < len(self.chain):
            if self.chain[height].hash != block.hash:
                raise Violation(f"one chain: node {node} commits another block at height {height}")
            return
        parent = self.chain[-1]
        if block.parent_hash != parent.hash or block.parent_view != parent.view:
            raise Violation(f"one chain: node {node} commits height {height} on something else")
        if self.notarized.get(block.view) != block.hash:
            raise Violation(f"final implies notarized: node {node} commits view {block.view}, which is not")
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

    def weigh(self, node: int, engine: object) -> None:
        """What an engine keeps: no more than its distance to the last final view, and a window, allow."""
        if node not in self.honest or not isinstance(engine, Replica):
            return
        rounds, blocks = len(engine._tally), len(engine._blocks)
        window = engine.view - engine.finalized_view + VIEWS_AHEAD_MAX
        self.rounds_max = max(self.rounds_max, rounds)
        # A node that restarts far behind fetches the blocks of views it has no rounds of (seed 1016747).
        views = max(rounds, engine.view - engine.finalized_view)
        if rounds > window or blocks > ROUND_BLOCKS_MAX * views + 1:
            raise Violation(
                f"bounded memory: node {node} keeps {rounds} rounds and {blocks} blocks in view {engine.view}, "
                f"final {engine.finalized_view}"
            )

    def accuse(self, evidence: Evidence) -> None:
        """An honest node reports evidence: it must hold for anybody, and not hit an honest one."""
        if evidence.first.signer in self.honest:
            raise Violation(f"framing: evidence against honest node {evidence.first.signer}")
        try:
            told = decode_evidence(encode_evidence(evidence))
            check_evidence(told, self.validators, self.chain_id, self.verify)
        except Rejected as error:
            raise Violation(f"evidence: what an honest node reports proves nothing ({error})") from error
        if not _contradicts(told.first, told.second):
            raise Violation("evidence: the votes do not contradict each other")
        self.accusations.append(evidence)

    # --- at the end ---------------------------------------------------------------------------------

    def check_final_votes(self) -> None:
        """Every final block is on the one chain, and no honest node voted another one final."""
        places = {block.view: block.hash for block in self.chain}
        for view, block_hash in self.finalized.items():
            if view <= self.chain[-1].view and places.get(view) != block_hash:
                raise Violation(f"one chain: the final block of view {view} is not on it")
            for node in self.honest:
                for vote in self.votes.get((node, view), ()):
                    if vote.subject.kind == FINALIZE and vote.subject.block_hash != block_hash:
                        raise Violation(f"agreement: node {node} voted another block final in view {view}")


def _contradicts(first: Vote, second: Vote) -> bool:
    """Whether one validator says in one view what no honest one says (consensus.md, Slashable)."""
    a, b = first.subject, second.subject
    if (a.epoch, a.view, first.signer) != (b.epoch, b.view, second.signer):
        return False
    if a.kind != b.kind:
        return NOTARIZE not in (a.kind, b.kind)
    return a.block_hash != b.block_hash


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
