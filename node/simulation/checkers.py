"""The invariants of consensus, checked from outside on every simulated run.

A checker sees what honest nodes say, hold and commit, and knows nothing of how engines work: quorums,
conflicts and gaps are reckoned anew here, with other code than the engine's. Each complaint begins with
the name of its invariant.
Source: consensus.md, What the simulation checks. Leaves out: what a block holds (the checkers
of whole nodes look into it).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from consensus.bft.contract import BlockRef, Message, Proposal
from consensus.bft.evidence import decode_evidence, encode_evidence
from consensus.bft.replica import VIEWS_AHEAD_MAX, Replica
from consensus.errors import Rejected
from consensus.ledger.epochs import compute_boundary, compute_epoch
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
from node.simulation.seats import EPOCH_VIEWS, AllNodes, Seats, compute_place, is_same
from node.simulation.turns import Draws, Turns

LIVENESS_VIEWS_MAX: Final = 40  # after healing: a few rounds of bad leaders, and the standstill before them
LIVENESS_MS_MAX: Final = 60_000  # in simulated time; several full standstill periods
ROUND_BLOCKS_MAX: Final = 2  # the leader's first proposal, and the block that a quorum certified


class Violation(Exception):
    """An invariant does not hold. The world adds the command that replays it."""


@dataclass
class SafetyChecker:
    """Over all honest nodes of one run. Raises Violation.

    genesis: the block that all engines begin on; chain_id and verify: how a signature is checked. Views stand
    in its tables by their place (`compute_place`). epoch_blocks: heights in an epoch; 0: there is one.
    """

    validators: ValidatorSet
    honest: frozenset[int]
    genesis: BlockRef
    chain_id: str
    verify: Verifier
    epoch_blocks: int = 0
    chain: list[BlockRef] = field(init=False)
    turns: Turns = field(init=False)  # of the first epoch
    sets: dict[int, Seats] = field(default_factory=dict)  # by epoch; a node that knows another one is wrong
    notarized: dict[int, bytes] = field(default_factory=dict)
    finalized: dict[int, bytes] = field(default_factory=dict)
    nullified: set[int] = field(default_factory=set)
    votes: dict[tuple[int, int], list[Vote]] = field(default_factory=dict)
    places: dict[int, tuple[int, int]] = field(default_factory=dict)  # node -> (view, final view)
    heights: dict[int, int] = field(default_factory=dict)  # node -> height that its ledger stands at
    accusations: list[Evidence] = field(default_factory=list)
    opened: dict[int, int] = field(default_factory=dict)  # node -> the last epoch that it began
    rounds_max: int = 0  # the most that any engine kept at once
    _turns: dict[int, Turns | Draws] = field(default_factory=dict)
    _blocks: dict[bytes, BlockRef] = field(default_factory=dict)  # that honest nodes notarized, in epochs

    def __post_init__(self) -> None:
        self.chain = [self.genesis]
        self.turns = Turns([validator.stake for validator in self.validators.validators])
        self._turns[0] = self.turns
        self.sets[0] = AllNodes(self.validators)

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
        subject = vote.subject
        seats = self._get_set(node, subject.epoch).members
        if not 0 <= vote.signer < len(seats) or seats[vote.signer] != node:
            raise Violation(f"own voice: node {node} speaks for validator {vote.signer}")
        place = compute_place(subject.epoch, subject.view)
        votes = self.votes.setdefault((node, place), [])
        if vote in votes:
            return
        for earlier in votes:
            if _contradicts(earlier, vote):
                kinds = f"{KIND_NAMES[earlier.subject.kind]} and {KIND_NAMES[subject.kind]}"
                raise Violation(f"single votes: honest node {node} cast {kinds} in view {subject.view}")
        boundary = compute_boundary(subject.epoch, self.epoch_blocks)
        if boundary is not None and self.heights.get(node, 0) >= boundary:
            raise Violation(f"past the end: node {node} signs in epoch {subject.epoch}, which is over for it")
        votes.append(vote)
        if subject.kind == NOTARIZE:
            if not is_body_durable:
                raise Violation(f"durable bodies: node {node} notarized view {subject.view} without it")
            if block is not None:
                self._check_block(node, block)
        elif subject.kind == FINALIZE and self.notarized.get(place) != subject.block_hash:
            raise Violation(
                f"final implies notarized: node {node} voted final in view {subject.view} what is not"
            )

    def _check_block(self, node: int, block: BlockRef) -> None:
        """What rule 3 asks of a block before anybody honest may notarize it."""
        leader = self._get_turns(block.epoch).get_leader(block.view)
        if block.proposer != leader:
            raise Violation(
                f"turns: node {node} notarized view {block.view} of validator {block.proposer}, "
                f"it was the turn of {leader}"
            )
        first = compute_place(block.epoch, 0)
        if block.parent_view > 0:
            parent = first + block.parent_view
            if block.parent_hash not in (self.notarized.get(parent), self.finalized.get(parent)):
                raise Violation(
                    f"certified parents: node {node} notarized view {block.view} on view {block.parent_view}"
                )
        if self.epoch_blocks:
            self._check_height(node, block)
        skipped = [
            view for view in range(block.parent_view + 1, block.view) if first + view not in self.nullified
        ]
        if skipped:
            raise Violation(
                f"gaps: node {node} notarized view {block.view} on {block.parent_view}; {skipped} not nullified"
            )
        final_view = self.places.get(node, (0, 0))[1]
        if first + block.parent_view < final_view:
            raise Violation(
                f"no way back: node {node} notarized view {block.view} on view {block.parent_view}, "
                f"below its final view {final_view}"
            )

    def _check_height(self, node: int, block: BlockRef) -> None:
        """One above the parent's, but no higher than the epoch's boundary; the first stands on a boundary."""
        parent = self._blocks.get(block.parent_hash)
        if block.parent_view == 0:
            base = block.epoch * self.epoch_blocks
            parent = self.chain[base] if base < len(self.chain) else None
            if parent is None or parent.hash != block.parent_hash:
                raise Violation(f"epochs: node {node} begins epoch {block.epoch} on something else")
        boundary = compute_boundary(block.epoch, self.epoch_blocks)
        assert boundary is not None
        if parent is not None and block.height != min(parent.height + 1, boundary):
            raise Violation(
                f"tails: node {node} notarized height {block.height} of epoch {block.epoch} on {parent.height}"
            )
        self._blocks[block.hash] = block

    def _hear_certificate(self, certificate: Certificate) -> None:
        subject = certificate.subject
        view, block_hash = compute_place(subject.epoch, subject.view), subject.block_hash
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
        members = self.sets[certificate.subject.epoch].validators.validators
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
        if block.epoch != compute_epoch(height, self.epoch_blocks):
            raise Violation(f"epochs: node {node} commits height {height} in epoch {block.epoch}")
        self.heights[node] = height
        if height < len(self.chain):
            if self.chain[height].hash != block.hash:
                raise Violation(f"one chain: node {node} commits another block at height {height}")
            return
        parent = self.chain[-1]
        parent_view = parent.view if block.epoch == parent.epoch else 0
        if block.parent_hash != parent.hash or block.parent_view != parent_view:
            raise Violation(f"one chain: node {node} commits height {height} on something else")
        place = compute_place(block.epoch, block.view)
        if self.notarized.get(place) != block.hash:
            raise Violation(f"final implies notarized: node {node} commits view {block.view}, which is not")
        skipped = set(range(place - block.view + parent_view + 1, place)) - self.nullified
        if skipped:
            raise Violation(f"gaps: views {sorted(skipped)} below view {block.view} are not nullified")
        self.chain.append(block)

    def look_at(self, node: int, view: int, final_view: int) -> None:
        """Where a node stands (places), after its effects were performed; also right after a restart."""
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
        accused = self.sets[evidence.first.subject.epoch].members[evidence.first.signer]
        if accused in self.honest:
            raise Violation(f"framing: evidence against honest node {accused}")
        try:
            told = decode_evidence(encode_evidence(evidence))
            epoch = told.first.subject.epoch
            check_evidence(told, self.sets[epoch].validators, self.chain_id, self.verify)
        except Rejected as error:
            raise Violation(f"evidence: what an honest node reports proves nothing ({error})") from error
        if not _contradicts(told.first, told.second):
            raise Violation("evidence: the votes do not contradict each other")
        self.accusations.append(evidence)

    # --- epochs -------------------------------------------------------------------------------------

    def open_epoch(self, node: int, epoch: int, seats: Seats) -> None:
        """A node goes on with this epoch, and takes these for its validators."""
        if node not in self.honest:
            return
        self.opened[node] = epoch
        known = self.sets.setdefault(epoch, seats)
        if not is_same(known, seats):
            raise Violation(f"equal sets: node {node} knows other validators in epoch {epoch} than others do")

    def _get_set(self, node: int, epoch: int) -> Seats:
        seats = self.sets.get(epoch)
        if seats is None:
            raise Violation(f"epochs: node {node} signs in epoch {epoch}, whose validators nobody knows yet")
        return seats

    def draw(self, node: int, epoch: int, draws: Draws) -> None:
        """Leaders of this epoch are drawn; a node that enters it has this seed."""
        if node not in self.honest:
            return
        known = self._turns.get(epoch)
        if not isinstance(known, Draws):
            self._turns[epoch] = draws
        elif known.seed != draws.seed:
            raise Violation(f"equal seeds: node {node} draws other leaders in epoch {epoch} than others do")

    def _get_turns(self, epoch: int) -> Turns | Draws:
        turns = self._turns.get(epoch)
        if turns is None:
            stakes = [validator.stake for validator in self.sets[epoch].validators.validators]
            turns = self._turns[epoch] = Turns(stakes, epoch * self.epoch_blocks)
        return turns

    def _is_tail(self, block_hash: bytes) -> bool:
        """Whether this is a block past an epoch's boundary, on the boundary block that is on the chain."""
        block = self._blocks.get(block_hash)
        while block is not None:
            if block.height != compute_boundary(block.epoch, self.epoch_blocks):
                return False
            if self.chain[block.height].hash == block.hash:
                return True
            block = self._blocks.get(block.parent_hash)
        return False

    # --- at the end ---------------------------------------------------------------------------------

    def check_final_votes(self) -> None:
        """Every final block is on the one chain, and no honest node voted another one final."""
        places = {compute_place(block.epoch, block.view): block.hash for block in self.chain}
        last = compute_place(self.chain[-1].epoch, self.chain[-1].view)
        for view, block_hash in self.finalized.items():
            if view <= last and places.get(view) != block_hash and not self._is_tail(block_hash):
                raise Violation(f"one chain: the final block of view {view} is not on it")
            for node in self.honest:
                for vote in self.votes.get((node, view), ()):
                    if vote.subject.kind == FINALIZE and vote.subject.block_hash != block_hash:
                        raise Violation(f"agreement: node {node} voted another block final in view {view}")


def _contradicts(first: Vote, second: Vote) -> bool:
    """Whether one validator says in one view what no honest one says (consensus.md, Liars)."""
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
        # An epoch ends by a finalization: views of the next one do not count against the one before.
        is_later = view // EPOCH_VIEWS > self.healed_view // EPOCH_VIEWS
        if (
            view > self.healed_view + LIVENESS_VIEWS_MAX and not is_later
        ) or now_ms > self.healed_ms + LIVENESS_MS_MAX:
            raise Violation(
                f"liveness: {now_ms - self.healed_ms} ms and {view - self.healed_view} views after "
                f"healing in view {self.healed_view}, nodes stand at (view, final) {places}"
            )
        return False
