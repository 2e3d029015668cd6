"""When a validator that lost its journal may sign again.

It may have voted in views it knows nothing of, so it watches first: M is the highest view in which
validators of stake >= q, itself excluded, are seen to vote since it began to watch, and it signs
only above M + 1, or from the next epoch on that nobody had reached when it began to watch. Seen means signed votes for views that nobody had reached when it began to watch, whose
blocks became final since: an old vote that a stranger replays says nothing.

Invariant: with less than a quorum of others active, nothing is ever allowed: a quorum ends an epoch, too.
Source: consensus.md, What must survive a crash. Leaves out: making the permission durable; the journal does.
"""

from __future__ import annotations

from collections.abc import Callable

from consensus.vote import FINALIZE, Certificate, ValidatorSet


class Observation:
    """Of one epoch. Feed it every certificate that arrives while observing; `above_view` is set once, or stays
    None. own_index: None when this validator has no seat in this epoch."""

    def __init__(self, validators: ValidatorSet, own_index: int | None) -> None:
        self._validators = validators
        self._own_index = own_index
        self._first_view: int | None = None
        self._views: dict[int, int] = {}  # signer -> the highest view it finalised while we watched
        self.above_view: int | None = None

    def forget(self) -> None:
        """What was seen says nothing of what others had reached: begin to watch anew."""
        self._first_view = None
        self._views.clear()

    def note(self, certificate: Certificate, view: int) -> None:
        """A checked finalization (other certificates say nothing here), and the view that peers have reached.

        Only for a node that is connected and not behind: what it catches up with are old votes.
        """
        subject = certificate.subject
        if subject.kind != FINALIZE or self.above_view is not None:
            return
        if self._first_view is None or self._own_index in certificate.signers:
            # It may have been waiting for us, or the lost journal's own vote is in it: only later ones count.
            self._first_view = max(subject.view, view)
            self._views.clear()
            return
        if subject.view <= self._first_view:
            return
        for signer in certificate.signers:
            if signer != self._own_index:
                self._views[signer] = max(self._views.get(signer, 0), subject.view)
        stake = sum(self._validators.validators[signer].stake for signer in self._views)
        if stake >= self._validators.quorum:
            self.above_view = max(self._views.values()) + 1


class Vigil:
    """One Observation after the other, an epoch each, until signing is safe again.

    find_epoch: the highest epoch that any peer claims to be in; None while nobody is connected or we are behind.
    Who turns out to have been behind had heard too few: what it noted then says nothing of how far others were.
    """

    def __init__(self, find_epoch: Callable[[], int | None]) -> None:
        self._find_epoch = find_epoch
        self._observation: Observation | None = None
        self._reached: int | None = None  # the highest epoch that anybody had reached when we began to watch

    def begin(self, epoch: int, validators: ValidatorSet, own_index: int | None) -> bool:
        """An epoch begins here; whether it is one that this key cannot have voted in."""
        self._observation = Observation(validators, own_index)
        if self._reached is not None and self._find_epoch() is None:
            self._reached = None
        return self._reached is not None and epoch > self._reached

    def forget(self) -> None:
        """We are behind, or were until now: begin to watch anew."""
        self._reached = None
        if self._observation is not None:
            self._observation.forget()

    def note(self, certificate: Certificate, view: int) -> int | None:
        """A certificate of this epoch, and its engine's view; the view above which to sign, once that is known."""
        epoch = self._find_epoch()
        if epoch is None:
            self.forget()
        if epoch is None or self._observation is None:
            return None  # alone or behind: what comes now are old votes
        if self._reached is None:
            self._reached = max(epoch, certificate.subject.epoch)
        self._observation.note(certificate, view)
        return self._observation.above_view
