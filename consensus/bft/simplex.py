"""Stake-weighted Simplex: the engine. A block every two message delays, final after three.

Each view has one leader. Validators notarize its block or nullify the view; a quorum of either is a
certificate and opens the next view. Who holds a notarization and never nullified the view votes to
finalize it; a quorum of that makes the block and all its ancestors final.

Invariant: no signature contradicts an earlier one, across restarts; a vote's record goes out before
the vote. `# Simplex rule N` names the rules of docs/consensus.md.
Source: Chan and Pass, Simplex Consensus (ePrint 2023/463); stake-weighted and paced as TON's Simplex
(2026) and Commonware's. Leaves out: what comes after the epoch's boundary (the host starts the next
engine); checking signatures (`messages.check_message`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from consensus.bft.contract import (
    NULLIFICATIONS_MAX,
    BlockBuilt,
    BlockFetched,
    BlockJudged,
    BlockRef,
    Broadcast,
    Build,
    CancelTimer,
    Effect,
    Event,
    Finalize,
    Judgement,
    Persist,
    Proposal,
    Received,
    SetTimer,
    SigningAllowed,
    Timer,
    TimerFired,
    WorkWaiting,
)
from consensus.bft.fetching import GAP_FETCHES_MAX
from consensus.bft.follower import Follower
from consensus.bft.replica import EngineConfig
from consensus.bft.restore import Record, restore
from consensus.forks import find_contradiction
from consensus.vote import (
    FINALIZE,
    NO_BLOCK,
    NOTARIZE,
    NULLIFY,
    Subject,
    Vote,
)

__all__ = ["EngineConfig", "SimplexEngine"]


class SimplexEngine(Follower):
    """One validator's (or observer's) side of one epoch. `sign` maps a digest to a signature."""

    # --- the door --------------------------------------------------------------

    def start(self, records: Iterable[Record]) -> tuple[Effect, ...]:
        """Restore from the journal's records (and the store's finalization, in any order) and begin."""
        restored = restore(records, self._config.epoch, self._own)
        if restored.final is not None:
            self._final = restored.final
            self._final_view = restored.final.subject.view
            self._final_hash = restored.final.subject.block_hash
            self._emit(Finalize(restored.final))
            self._want_block(self._final_hash, self._final_view)
        for certificate in restored.certificates:
            found = self._tally.open(certificate.subject.view)
            found.certificates[certificate.subject.kind] = certificate
        for proposal in restored.proposals:
            # A leader reuses the proposal it logged: as the round's first it is the only one.
            self._tally.open(proposal.block.view).proposal = proposal
            self._blocks.add(proposal.block, proposal.payload)
        for certificate in restored.certificates:
            if certificate.subject.kind == NOTARIZE:
                self._note_notarization(certificate.subject)
        for vote in restored.votes:
            # The own tally is seeded with own votes, each once, so that none is counted again.
            self._count_vote(vote)
        if self._view < restored.view:
            self._enter(restored.view, restored.entry)
        contradiction = find_contradiction(restored.all_certificates)
        if contradiction is not None:
            self._contradiction = contradiction
            self._halt("quorums contradicted each other, before the restart", contradiction[1].subject)
        self._resend()
        self._emit(SetTimer(Timer.STANDSTILL, self._view, self._pacing.compute_standstill_ms(0)))
        return self._finish()

    def step(self, event: Event) -> tuple[Effect, ...]:
        """Take one event and say what to do. Never raises for a checked message."""
        match event:
            case Received(message, sender):
                self._receive(message, sender)
            case BlockJudged(block_hash, judgement):
                self._take_judgement(block_hash, judgement)
            case BlockBuilt():
                self._take_built(event)
            case BlockFetched(block, payload):
                self._take_fetched(block, payload)
            case TimerFired(timer, view):
                self._take_timer(timer, view)
            case WorkWaiting():
                self._build = None  # ask again: now there is something to put in
            case SigningAllowed(above_view):
                if self._observe_until is None:
                    self._observe_until = above_view
            case _:
                assert_never(event)
        return self._finish()

    def _finish(self) -> tuple[Effect, ...]:
        # Simplex rule 3: re-evaluate on every event, never once only. A vote of ours may complete a
        # certificate and so open the next view: go on until nothing moves.
        view = 0
        while view != self._view:
            view = self._view
            self._try_propose()
            self._try_notarize()
            self._try_nullify()
            self._try_finalize()
        if self._fetching and not self._is_retrying:
            self._set_retry()
        effects = tuple(self._effects)
        self._effects.clear()
        return effects

    def _take_timer(self, timer: Timer, view: int) -> None:
        if self.is_ended and timer is not Timer.STANDSTILL:
            return  # the next epoch's engine goes on; here only the finalization is told again
        match timer:
            case Timer.LEADER:
                found = self._tally.get(view)
                if view == self._view and (found is None or found.proposal is None):
                    self._is_hopeless = True
            case Timer.ADVANCE:
                if view == self._view:
                    self._is_hopeless = True
                    self._set_retry()
            case Timer.RETRY:
                if self._is_retrying:
                    self._retry()
            case Timer.INTERVAL:
                if view == self._interval_view:
                    self._is_empty_allowed = True
            case Timer.STANDSTILL:
                self._standstills += 1
                self._resend()
                delay_ms = self._pacing.compute_standstill_ms(self._standstills)
                self._emit(SetTimer(Timer.STANDSTILL, self._view, delay_ms))
            case _:
                assert_never(timer)

    # --- the four acts ---------------------------------------------------------

    def _try_propose(self) -> None:
        # Simplex rule 2
        if self._leader != self._own or not self._may_sign(self._view):
            return
        found = self._tally.open(self._view)
        if found.proposal is not None or found.has_vote(NULLIFY, self._own):
            return
        parent = self._choose_parent()
        if parent is None:
            return  # not yet judged or fetched: wait, up to the timer
        asked = self._build
        if asked is not None and (asked.parent.hash, asked.is_empty_allowed) == (
            parent.hash,
            self._is_empty_allowed,
        ):
            return
        certificate = self._collect_signatures(parent.view)
        self._build = Build(self._view, parent, certificate, self._is_empty_allowed)
        self._emit(self._build)

    def _choose_parent(self) -> BlockRef | None:
        """The highest validated block that is notarized or final, with all views above it nullified."""
        low = self._get_nullified_from()
        for view in range(self._view - 1, max(low - 1, self._final_view + 1) - 1, -1):
            found = self._tally.get(view)
            if found is not None and self._blocks.is_valid(found.notarized_hash):
                known = self._blocks.get(found.notarized_hash)
                return None if known is None else known.ref
        if low <= self._final_view + 1:
            known = self._blocks.get(self._final_hash)
            return known.ref if known is not None and known.judgement is Judgement.VALID else None
        found = self._tally.get(low - 1)
        if found is None or found.notarized_hash == NO_BLOCK:
            self._want_certificate(low - 1, NOTARIZE)
        return None

    def _take_built(self, built: BlockBuilt) -> None:
        block = built.block
        asked = self._build
        if asked is None or built.view != self._view or asked.view != self._view:
            return
        if block is None:
            self._is_hopeless = True  # Simplex rule 2: building failed for good
            return
        if block.parent_hash != asked.parent.hash or not self._may_sign(self._view):
            return
        found = self._tally.open(self._view)
        if found.has_vote(NULLIFY, block.proposer):
            return  # too late: my nullify told everyone to go on
        if found.proposal is not None or found.has_vote(NOTARIZE, block.proposer):
            return  # one proposal a view, also when a slow build answers twice
        if not self._is_parent_ready(block):
            self._build = None
            return
        known = self._blocks.add(block, built.payload)
        known.is_asked, known.judgement = True, Judgement.VALID
        gap = range(max(block.parent_view + 1, self._view - NULLIFICATIONS_MAX), self._view)
        nullifications = [self.get_certificate(view, NULLIFY) for view in gap]
        proposal = Proposal(
            block,
            built.payload,
            self._make_vote(NOTARIZE, self._view, block.hash),
            self._get_parent_certificate(block.parent_view),
            tuple(certificate for certificate in nullifications if certificate is not None),
        )
        found.proposal = proposal
        self._emit(CancelTimer(Timer.LEADER))
        self._emit(Persist(proposal))
        self._emit(Broadcast(proposal))
        self._count_vote(proposal.vote)

    def _try_notarize(self) -> None:
        found = self._tally.get(self._view)
        if found is None or found.proposal is None:
            return
        block = found.proposal.block
        if self._own is not None and found.has_vote(NOTARIZE, self._own):
            return
        is_forked = block.parent_view == self._final_view and block.parent_hash != self._final_hash
        if block.parent_view < self._final_view or is_forked or self._blocks.is_invalid(block.hash):
            self._is_hopeless = True  # Simplex rule 4: the proposal is permanently invalid
            return
        if not self._is_parent_ready(block):
            self._ask_for_parent(block)
            return
        # Simplex rule 3: judged valid and durable. Allowed after my own nullify.
        if self._blocks.is_valid(block.hash) and self._may_sign(self._view):
            self._cast(NOTARIZE, self._view, block.hash)

    def _ask_for_parent(self, block: BlockRef) -> None:
        if block.parent_view > self._final_view and self.get_certificate(block.parent_view, NOTARIZE) is None:
            self._want_certificate(block.parent_view, NOTARIZE)
        missing = 0
        for view in range(self._get_nullified_from() - 1, max(block.parent_view, self._final_view), -1):
            if self.get_certificate(view, NULLIFY) is None:
                self._want_certificate(view, NULLIFY)
                missing += 1
                if missing == GAP_FETCHES_MAX:
                    return

    def _try_nullify(self) -> None:
        # Simplex rule 4: the current view only, and only if I have not finalized it.
        found = self._tally.open(self._view)
        if found.has_vote(NULLIFY, self._leader) and self._leader != self._own:
            self._is_hopeless = True  # the leader itself gave up
        if not self._is_hopeless or self._own is None or not self._may_sign(self._view):
            return
        if found.has_vote(NULLIFY, self._own) or found.has_vote(FINALIZE, self._own):
            return
        self._set_retry()
        self._cast(NULLIFY, self._view, NO_BLOCK)

    def _try_finalize(self) -> None:
        for view in sorted(self._finalizable):
            found = self._tally.get(view)
            # Simplex rule 5: above my last final view, never after my own nullify, never twice.
            if found is None or (
                self._own is not None
                and (found.has_vote(NULLIFY, self._own) or found.has_vote(FINALIZE, self._own))
            ):
                self._finalizable.discard(view)
                continue
            # Simplex rule 5: I hold the notarization and the block is validated.
            if self._may_sign(view) and self._blocks.is_valid(found.notarized_hash):
                self._finalizable.discard(view)
                self._cast(FINALIZE, view, found.notarized_hash)

    # --- signing ---------------------------------------------------------------

    def _make_vote(self, kind: int, view: int, block_hash: bytes) -> Vote:
        assert self._sign is not None
        assert self._own is not None
        subject = Subject(self._config.epoch, kind, view, block_hash)
        return Vote(subject, self._own, self._sign(subject.compute_digest(self._config.chain_id)))

    def _cast(self, kind: int, view: int, block_hash: bytes) -> None:
        vote = self._make_vote(kind, view, block_hash)
        self._emit(Persist(vote))  # durable before audible, and before it is counted
        self._emit(Broadcast(vote))
        self._count_vote(vote)
