"""How a node learns: votes become certificates, certificates open views and make blocks final.

Nothing here signs. An observer does all of this and no more; so does a validator that halted.

Invariant: a certificate is persisted, then relayed to a few, once; views open in rising order; what a quorum
certified is fetched and judged, whoever proposed it.
Source: Chan and Pass, Simplex Consensus (ePrint 2023/463); consensus.md, rules 1, 6 to 12.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, assert_never

from consensus.bft.contract import (
    BlockRef,
    Broadcast,
    CancelTimer,
    CertificateRequest,
    Finalize,
    Judgement,
    Message,
    Persist,
    Proposal,
    ReportEvidence,
    Send,
    SetTimer,
    Timer,
)
from consensus.bft.replica import VIEWS_AHEAD_MAX, Replica
from consensus.bft.tally import Round
from consensus.forks import contradicts, find_evidence
from consensus.vote import (
    FINALIZE,
    NOTARIZE,
    NULLIFY,
    Certificate,
    Subject,
    Vote,
)

SILENT_VIEWS: Final = 8  # a leader unheard for so many views is not waited for
RELAYS_MAX: Final = 4  # all liars once in 81 times; docs/decisions/0044-relaying.md has what it costs
ANSWERS_MAX: Final = 8  # peers helped ahead between two views; each of them relays what it got


class Follower(Replica):
    """Takes messages, judgements and fetched blocks."""

    # --- votes and certificates ------------------------------------------------

    def _receive(self, message: Message, sender: bytes) -> None:
        match message:
            case Vote(subject):
                if subject.epoch == self._config.epoch:
                    self._take_vote(message, sender)
            case Certificate():
                self._take_certificate(message)
            case Proposal():
                self._take_proposal(message)
            case CertificateRequest():
                self._answer(message, sender)
            case _:
                assert_never(message)

    def _take_vote(self, vote: Vote, sender: bytes) -> None:
        subject = vote.subject
        if subject.view > self._view + VIEWS_AHEAD_MAX:
            return  # Simplex rule 12
        self._active[vote.signer] = max(self._active[vote.signer], subject.view)
        if subject.kind == NULLIFY and subject.view < self._view:
            self._help_ahead(subject.view, sender)
        if subject.view > self._final_view:
            self._count_vote(vote)

    def _count_vote(self, vote: Vote) -> None:
        certificate, evidence = self._tally.add_vote(vote)
        if evidence is not None:
            self._emit(ReportEvidence(evidence))
        if certificate is not None:
            self._take_certificate(certificate)  # Simplex rule 6: form, persist, broadcast

    def _take_certificate(self, certificate: Certificate) -> None:
        subject = certificate.subject
        if subject.epoch != self._config.epoch or subject.view < self._final_view:
            return
        if subject.view == self._final_view:
            self._check_agreement([self._final], certificate)
            return
        found = self._tally.open(subject.view)
        others = tuple(found.certificates)
        if others[subject.kind] is not None:
            self._check_agreement(others, certificate)
            return
        found.certificates[subject.kind] = certificate
        # Simplex rule 6: persist, then relay on first receipt; no body is needed for that.
        self._emit(Persist(certificate))
        self._relay(certificate)
        for signer, _ in certificate.signatures:
            self._active[signer] = max(self._active[signer], subject.view)
        for evidence in self._tally.accuse_signers(certificate):
            self._emit(ReportEvidence(evidence))
        self._fetching.settle_certificate(subject.view, subject.kind)
        self._check_agreement(others, certificate)
        if subject.kind == NOTARIZE:
            self._note_notarization(subject)
        elif subject.kind == FINALIZE:
            self._finalize(certificate)
        if subject.view >= self._view:
            self._enter(subject.view + 1, certificate)  # Simplex rule 1: a higher one jumps ahead

    def _check_agreement(self, held: Iterable[Certificate | None], certificate: Certificate) -> None:
        """Certificates that contradict each other mean that more than W/3 broke the protocol: who, they prove."""
        for other in held:
            if other is None or self._contradiction or not contradicts(other, certificate):
                continue
            self._contradiction = (other, certificate)
            self._emit(Persist(certificate))  # so that a restart finds both, and signs as little
            subject = certificate.subject
            found = self._tally.get(subject.view)
            accused = set() if found is None else found.accused
            for evidence in find_evidence(self._contradiction):
                if evidence.first.signer not in accused:
                    accused.add(evidence.first.signer)
                    self._emit(ReportEvidence(evidence))
            self._halt(f"quorums contradict each other in view {subject.view}", subject)

    def _finalize(self, certificate: Certificate) -> None:
        # Simplex rule 7: this block and all its ancestors are final.
        subject = certificate.subject
        self._was_ended = self.is_ended
        self._final, self._final_view, self._final_hash = certificate, subject.view, subject.block_hash
        found = self._tally.open(subject.view)
        self._final_signatures = found.collect(NOTARIZE) or found.collect(FINALIZE)
        self._emit(Finalize(certificate))
        self._note_certified(subject.block_hash, subject.view)
        self._tally.prune(subject.view)
        self._blocks.prune(subject.view, subject.block_hash)
        self._fetching.prune(subject.view, subject.block_hash)
        self._finalizable = {view for view in self._finalizable if view > subject.view}
        self._standstills = 0
        self._emit(SetTimer(Timer.STANDSTILL, subject.view, self._pacing.compute_standstill_ms(0)))

    # --- blocks ----------------------------------------------------------------

    def _note_notarization(self, subject: Subject) -> None:
        self._finalizable.add(subject.view)
        self._note_certified(subject.block_hash, subject.view)

    def _note_certified(self, block_hash: bytes, view: int) -> None:
        """A quorum stands behind this block, directly or through a descendant: get it, judge it."""
        while view >= self._final_view:
            known = self._blocks.get(block_hash)
            if known is None:
                found = self._tally.get(view)
                proposal = None if found is None else found.proposal
                if proposal is None or proposal.block.hash != block_hash:
                    self._want_block(block_hash, view)
                    return
                known = self._blocks.add(proposal.block, proposal.payload)
            if known.judgement is Judgement.INVALID:
                # Simplex rule 11: never vote it away.
                self._halt(f"a quorum certified the block of view {view}, which I judged invalid", known.ref)
            if known.judgement is Judgement.VALID:
                return
            self._ask_judgement(known)
            block_hash, view = known.ref.parent_hash, known.ref.parent_view

    def _take_proposal(self, proposal: Proposal) -> None:
        block = proposal.block
        if block.epoch != self._config.epoch or block.view <= self._final_view:
            return
        if proposal.parent_certificate is not None:
            self._take_certificate(proposal.parent_certificate)
        for certificate in proposal.nullifications:
            self._take_certificate(certificate)
        # Simplex rule 12: the view is near now, or no leader is computed for it.
        if not self._final_view < block.view <= self._view + VIEWS_AHEAD_MAX:
            return
        if self._schedule.get_leader(block.view) != block.proposer:
            return
        self._active[block.proposer] = max(self._active[block.proposer], block.view)
        found = self._tally.open(block.view)
        if found.proposal is None:
            found.proposal = proposal
            if block.view <= self._view:
                self._look_at_proposal(found)
        if found.notarized_hash == block.hash:
            self._fetching.settle_block(block.hash)
            self._blocks.add(block, proposal.payload)
            self._note_certified(block.hash, block.view)
        self._count_vote(proposal.vote)

    def _look_at_proposal(self, found: Round) -> None:
        """The view of this proposal has come: have it judged."""
        proposal = found.proposal
        if proposal is None:
            return
        if found.view == self._view:
            self._emit(CancelTimer(Timer.LEADER))
        known = self._blocks.add(proposal.block, proposal.payload)
        parent = self._blocks.get(proposal.block.parent_hash)
        if parent is not None and proposal.block.height != self._compute_height(parent.ref):
            known.is_asked, known.judgement = True, Judgement.INVALID
        self._ask_judgement(known)

    def _take_fetched(self, block: BlockRef, payload: bytes) -> None:
        if not self._fetching.settle_block(block.hash) or block.view < self._final_view:
            return
        self._blocks.add(block, payload)
        self._note_certified(block.hash, block.view)

    def _take_judgement(self, block_hash: bytes, judgement: Judgement) -> None:
        known = self._blocks.get(block_hash)
        if known is None or known.judgement is not Judgement.NOT_YET:
            return
        known.judgement = judgement  # Simplex rule 10: NOT_YET settles nothing
        if judgement is not Judgement.INVALID:
            return
        found = self._tally.get(known.ref.view)
        if block_hash == self._final_hash or (found is not None and found.notarized_hash == block_hash):
            self._halt(
                f"a quorum certified the block of view {known.ref.view}, judged invalid here", known.ref
            )

    # --- views -----------------------------------------------------------------

    def _enter(self, view: int, entry: Certificate | None) -> None:
        if view > self._view + 1:
            self._watching_from = view
        if entry is None or entry.subject.kind != NULLIFY or view != self._view + 1:
            self._nullified_from = view  # else the run of nullified views grows by one
        self._view, self._entry = view, entry
        self._leader = self._schedule.get_leader(view)
        self._delta_ms = self._pacing.compute_delta_ms(view, self._final_view)
        self._is_hopeless, self._build = False, None
        self._answered.clear()
        self._fetching.forget_certificates()
        self._retries = 0
        found = self._tally.open(view)
        if self._own is not None and found.has_vote(NULLIFY, self._own):
            self._set_retry()  # after a restart: the timer of an empty vote
        else:
            self._emit(SetTimer(Timer.LEADER, view, self._pacing.compute_leader_ms(self._delta_ms)))
            self._emit(SetTimer(Timer.ADVANCE, view, self._pacing.compute_advance_ms(self._delta_ms)))
            if self._is_retrying and not self._fetching:  # quick views must not starve what is fetched
                self._is_retrying = False
                self._emit(CancelTimer(Timer.RETRY))
        if entry is not None and entry.subject.kind != NULLIFY:
            # Pacing: the parent is there now; an empty block may follow one interval later.
            self._is_empty_allowed, self._interval_view = False, view
            self._emit(SetTimer(Timer.INTERVAL, view, self._pacing.interval_ms))
        self._look_at_proposal(found)
        if self._is_leader_silent():
            self._is_hopeless = True

    def _is_leader_silent(self) -> bool:
        """Simplex rule 4: the leader was silent for the last several views while a quorum was active.

        Only checked signatures count as activity; a node that just came or jumped waits and sees.
        """
        horizon = self._view - SILENT_VIEWS
        if (
            self._watching_from > horizon
            or self._active[self._leader] >= horizon
            or self._leader == self._own
        ):
            return False
        stakes = zip(self._active, self._stakes, strict=True)
        return sum(stake for active, stake in stakes if active >= horizon) >= self._quorum

    # --- helping others, and asking again --------------------------------------

    def _help_ahead(self, view: int, sender: bytes) -> None:
        """Who still nullifies a view that we left lacks a certificate: hand it over, once per view."""
        if sender in self._answered or len(self._answered) >= ANSWERS_MAX:
            return
        self._answered.add(sender)
        if self._final is not None and view <= self._final_view:
            self._emit(Send(sender, self._final))
        if self._entry is not None and self._entry is not self._final:
            self._emit(Send(sender, self._entry))

    def _answer(self, request: CertificateRequest, sender: bytes) -> None:
        # Simplex rule 9: one certificate at most for a request. Any that closes the view helps.
        if request.epoch != self._config.epoch:
            return
        if self._final is not None and request.view <= self._final_view:
            self._emit(Send(sender, self._final))
            return
        found = self._tally.get(request.view)
        if found is not None:
            asked = found.certificates[request.kind] if request.kind <= FINALIZE else None
            for certificate in (asked, *reversed(found.certificates)):
                if certificate is not None:
                    self._emit(Send(sender, certificate))
                    return

    def _set_retry(self) -> None:
        self._is_retrying = True
        delay_ms = self._pacing.compute_retry_ms(self._delta_ms, self._retries)
        self._emit(SetTimer(Timer.RETRY, self._view, delay_ms))

    def _retry(self) -> None:
        """Resend nullify and the certificate by which this view was entered; ask again for what lacks."""
        self._retries += 1
        self._is_retrying = False
        self._answered.clear()
        own = None if self._own is None else self._tally.open(self._view).votes[NULLIFY].get(self._own)
        if own is not None and self._may_sign(self._view):
            self._emit(Broadcast(own))
            if self._entry is not None:
                self._relay(self._entry)
        for effect in self._fetching.repeat():
            self._emit(effect)
        if own is not None or self._is_hopeless:
            self._want_certificate(self._view, NOTARIZE)  # others may have gone ahead
            self._set_retry()

    def _resend(self) -> None:
        # Simplex rule 8
        if self._final is not None:
            self._relay(self._final)
        if self._entry is not None and self._entry is not self._final:
            self._relay(self._entry)
        for record in self._rotation.select(self._list_above_final()):
            if isinstance(record, Certificate):
                self._relay(record)
            else:
                self._emit(Broadcast(record))

    def _relay(self, certificate: Certificate) -> None:
        """To a few: a certificate grows with the validators, so it may not go to all of them, too."""
        self._emit(Broadcast(certificate, RELAYS_MAX))
