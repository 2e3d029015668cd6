"""What one node knows of an epoch, and what the rules ask of that knowledge.

The current view, the last final block, the rounds above it, the blocks. `follower.Follower` adds how it
learns, `simplex.SimplexEngine` how it acts.

Invariant: `_final_view` and `_view` never fall; own votes are those in the tally, nowhere else.
Source: consensus.md. Private to `consensus/bft/`, apart from EngineConfig and the public reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, assert_never

from consensus.bft.blocks import Blocks, KnownBlock
from consensus.bft.contract import (
    BlockRef,
    Build,
    CertificateRequest,
    Effect,
    Halt,
    Judge,
    Message,
    Proposal,
)
from consensus.bft.fetching import Fetching
from consensus.bft.leader import DrawnSchedule, LeaderSchedule
from consensus.bft.pacing import Pacing
from consensus.bft.restore import Record
from consensus.bft.standstill import Rotation
from consensus.bft.tally import Tally
from consensus.forks import contradicts
from consensus.vote import (
    FINALIZE,
    NOTARIZE,
    NULLIFY,
    Certificate,
    Subject,
    ValidatorSet,
    Vote,
)

VIEWS_AHEAD_MAX: Final = 64  # Simplex rule 12: what a liar can make us keep, per validator


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What an engine is told once. Times in ms; `own_index` None makes an observer.

    genesis: the block below the epoch's first, as `messages.make_genesis_ref` gives it (view 0).
    height_max: the epoch's boundary, None when it has none. Past it blocks keep that height (tails); once a
    block of that height is final nothing more is signed, and the host may go on with the next epoch.
    leader_offset: `leader.compute_offset` of the epoch. leader_seed: the beacon's, where leaders are drawn
    (`ledger.beacon.compute_seed`); empty: they take turns.
    observe_until_view: nothing at or below this view is signed; None: nothing at all, until the event
    SigningAllowed. `delta_ms_max` must exceed the time to judge a full block.
    """

    chain_id: str
    epoch: int
    validators: ValidatorSet
    own_index: int | None
    genesis: BlockRef
    height_max: int | None = None
    leader_offset: int = 0
    leader_seed: bytes = b""
    delta_ms: int = 500
    delta_ms_max: int = 10_000
    block_interval_ms: int = 1_000
    standstill_ms: int = 5_000
    standstill_ms_max: int = 40_000
    observe_until_view: int | None = 0


class Replica:
    """The state and the reads. `sign` None, or no own index, makes an observer."""

    def __init__(self, config: EngineConfig, sign: Callable[[bytes], bytes] | None) -> None:
        self._config = config
        self._own = config.own_index if sign is not None else None
        self._sign = sign
        self._pacing = Pacing(
            config.delta_ms,
            config.delta_ms_max,
            config.block_interval_ms,
            config.standstill_ms,
            config.standstill_ms_max,
        )
        self._schedule: LeaderSchedule | DrawnSchedule = (
            DrawnSchedule(config.validators, config.leader_seed)
            if config.leader_seed
            else LeaderSchedule(config.validators, config.leader_offset)
        )
        self._stakes = tuple(validator.stake for validator in config.validators.validators)
        self._quorum = config.validators.quorum
        self._tally = Tally(config.validators)
        self._blocks = Blocks(config.genesis)
        self._fetching = Fetching(config.epoch)
        self._rotation = Rotation()
        self._effects: list[Effect] = []
        # The last final view; its certificate is None for genesis alone.
        self._final: Certificate | None = None
        self._final_view = config.genesis.view
        self._final_hash = config.genesis.hash
        self._final_signatures: Certificate | None = None  # its fullest certificate, for the next body
        self._was_ended = False  # before that: a tail that became final later changes nothing
        # The current view.
        self._view = 0
        self._leader = 0
        self._entry: Certificate | None = None  # what led into it
        self._delta_ms = config.delta_ms
        self._is_hopeless = False  # a reason to nullify it was found
        self._nullified_from = 1  # every view from here to below the current one is nullified
        self._build: Build | None = None  # what was asked for last
        self._is_empty_allowed = True  # the block interval is over
        self._interval_view = 0
        self._is_retrying = False
        self._retries = 0
        self._standstills = 0
        self._finalizable: set[int] = set()  # notarized views that may still get our finalize vote
        self._answered: set[bytes] = set()  # peers helped ahead since we entered this view
        self._active = [0] * len(self._stakes)  # the highest view each validator signed in
        self._watching_from = 0  # the view since which we watch without a gap
        self._observe_until = config.observe_until_view
        self._is_halted = False
        self._contradiction: tuple[Certificate, ...] = ()  # two that exclude each other: why it halted

    # --- what a host may read --------------------------------------------------

    @property
    def view(self) -> int:
        return self._view

    @property
    def leader(self) -> int:
        """The index of the current view's leader."""
        return self._leader

    @property
    def finalized_view(self) -> int:
        return self._final_view

    @property
    def finalized_hash(self) -> bytes:
        return self._final_hash

    @property
    def finalization(self) -> Certificate | None:
        """The certificate of the last final block; None while that is genesis."""
        return self._final

    @property
    def is_ended(self) -> bool:
        """Whether the epoch's boundary is final: nothing more is signed here, others are still served."""
        height_max = self._config.height_max
        if height_max is None:
            return False
        known = self._blocks.get(self._final_hash)
        return self._was_ended or (known is not None and known.ref.height >= height_max)

    @property
    def is_halted(self) -> bool:
        return self._is_halted

    @property
    def is_signing(self) -> bool:
        """Whether this engine would sign in the current view."""
        return self._may_sign(self._view)

    def get_certificate(self, view: int, kind: int) -> Certificate | None:
        """The certificate of `kind` for a view above the last final one, or the last finalization."""
        if self._final is not None and view == self._final_view and kind == FINALIZE:
            return self._final
        found = self._tally.get(view)
        return None if found is None else found.certificates[kind]

    def is_needed(self, message: Message) -> bool:
        """Whether `step` would learn from this message; if not, its signatures need no check.

        Reads only. Late votes of validators not heard of for a while count as news: they are alive. What
        contradicts an earlier signature is news until its signer is accused: once per validator and view.
        """
        match message:
            case Vote(subject, signer):
                if subject.epoch != self._config.epoch or signer >= len(self._stakes):
                    return False
                if subject.view <= self._final_view:
                    return self._active[signer] < subject.view or subject.kind == NULLIFY
                if subject.view > self._view + VIEWS_AHEAD_MAX:
                    return False
                found = self._tally.get(subject.view)
                if found is None or not found.has_vote(subject.kind, signer):
                    return True
                if subject.kind == NULLIFY:
                    return subject.view < self._view  # repeated, it asks for help
                is_other = found.votes[subject.kind][signer].subject != subject
                return is_other and signer not in found.accused
            case Certificate(subject):
                if subject.epoch != self._config.epoch or subject.view < self._final_view:
                    return False
                if subject.view == self._final_view:
                    held = self._final
                    return held is not None and not self._contradiction and contradicts(held, message)
                certificate = self.get_certificate(subject.view, subject.kind)
                return certificate is None or (certificate.subject != subject and not self._contradiction)
            case Proposal(block):
                if block.epoch != self._config.epoch or block.view <= self._final_view:
                    return False
                if block.view > self._view + VIEWS_AHEAD_MAX:
                    # Simplex rule 12: its certificates may still back it.
                    backing = (message.parent_certificate, *message.nullifications)
                    return any(found is not None and self.is_needed(found) for found in backing)
                # Leaders are computed near the current view alone, where the engine itself asks for them.
                is_near = block.view > self._view - VIEWS_AHEAD_MAX
                if is_near and self._schedule.get_leader(block.view) != block.proposer:
                    return False
                known = self._tally.get(block.view)
                if known is None or known.proposal is None:
                    return True
                if known.proposal.block == block:
                    return False
                is_wanted = known.notarized_hash == block.hash and self._blocks.get(block.hash) is None
                return is_wanted or block.proposer not in known.accused
            case CertificateRequest():
                return True
            case _:
                assert_never(message)

    def list_records(self) -> tuple[Record, ...]:
        """What a journal must keep of this epoch: all that lies above the last final view, and that."""
        records = (*(() if self._final is None else (self._final,)), *self._list_above_final())
        return (*records, *(certificate for certificate in self._contradiction if certificate not in records))

    # --- what the rules ask ----------------------------------------------------

    def _may_sign(self, view: int) -> bool:
        return (
            self._own is not None
            and not self._is_halted
            and not self._may_have_ended()
            and self._observe_until is not None
            and view > self._observe_until
        )

    def _may_have_ended(self) -> bool:
        """A final block that is not here yet may be the epoch's boundary: wait for it, and sign nothing."""
        is_unknown = self._config.height_max is not None and self._blocks.get(self._final_hash) is None
        return self.is_ended or is_unknown

    def _get_parent_certificate(self, view: int) -> Certificate | None:
        return self._final if view == self._final_view else self.get_certificate(view, NOTARIZE)

    def _collect_signatures(self, view: int) -> Certificate | None:
        """The parent's certificate for a body: participation is counted from it, so it leaves nobody out."""
        if view == self._final_view:
            return self._final_signatures or self._final
        found = self._tally.get(view)
        return None if found is None else found.collect(NOTARIZE)

    def _compute_height(self, parent: BlockRef) -> int:
        """Of a block on `parent`: one more, but for tails."""
        height = parent.height + 1
        return height if self._config.height_max is None else min(height, self._config.height_max)

    def _is_parent_ready(self, block: BlockRef) -> bool:
        """Whether the parent is certified and not below the final view, and the gap nullified."""
        # Simplex rule 3: the parent is certified and not below my last finalised view.
        if block.parent_view == self._final_view:
            if block.parent_hash != self._final_hash:
                return False
        elif block.parent_view < self._final_view:
            return False
        else:
            parent = self._tally.get(block.parent_view)
            if parent is None or parent.notarized_hash != block.parent_hash:
                return False
        # Simplex rule 3: I hold a nullification for every view of the gap.
        return self._get_nullified_from() <= block.parent_view + 1

    def _get_nullified_from(self) -> int:
        """The lowest view from which all views below the current one are nullified."""
        low = self._nullified_from
        while low - 1 > self._final_view:
            found = self._tally.get(low - 1)
            if found is None or not found.is_nullified:
                break
            low -= 1
        self._nullified_from = low
        return low

    def _list_above_final(self) -> list[Record]:
        """Certificates, own votes and own proposals above the last final view."""
        records: list[Record] = []
        for found in self._tally.iterate():
            records.extend(certificate for certificate in found.certificates if certificate is not None)
            if self._own is None:
                continue
            proposal = found.proposal
            is_own = proposal is not None and proposal.block.proposer == self._own
            if proposal is not None and is_own:
                records.append(proposal)
            for kind in (NOTARIZE, NULLIFY, FINALIZE):
                vote = found.votes[kind].get(self._own)
                if vote is not None and not (is_own and kind == NOTARIZE):
                    records.append(vote)
        return records

    # --- asking and telling ----------------------------------------------------

    def _emit(self, effect: Effect) -> None:
        self._effects.append(effect)

    def _want_certificate(self, view: int, kind: int) -> None:
        effect = self._fetching.want_certificate(
            view, kind, self._leader if self._leader != self._own else None
        )
        if effect is not None:
            self._emit(effect)

    def _want_block(self, block_hash: bytes, view: int) -> None:
        # Simplex rule 9: the proposer first.
        if self._blocks.get(block_hash) is None:
            effect = self._fetching.want_block(block_hash, view, self._schedule.get_leader(view))
            if effect is not None:
                self._emit(effect)

    def _ask_judgement(self, known: KnownBlock) -> None:
        if not known.is_asked:
            known.is_asked = True
            self._emit(Judge(known.ref, known.payload))

    def _halt(self, reason: str, about: Subject | BlockRef) -> None:
        # Simplex rule 11: stop signing, keep serving.
        if not self._is_halted:
            self._is_halted = True
            self._emit(Halt(reason, about.block_hash if isinstance(about, Subject) else about.hash))
