"""When a validator that lost its journal may sign again.

It may have voted in views it knows nothing of, so it watches first: M is the highest view in which
validators of stake >= q, itself excluded, are seen to vote since it began to watch, and it signs
only above M + 1. Seen means signed votes for views that nobody had reached when it began to watch, whose
blocks became final since: an old vote that a stranger replays says nothing.

Invariant: with less than a quorum of others active, nothing is ever allowed.
Source: consensus.md, Journal. Leaves out: making the permission durable; the journal does.
"""

from __future__ import annotations

from consensus.vote import FINALIZE, Certificate, ValidatorSet


class Observation:
    """Feed it every certificate that arrives while observing; `above_view` is set once, or stays None."""

    def __init__(self, validators: ValidatorSet, own_index: int) -> None:
        self._validators = validators
        self._own_index = own_index
        self._first_view: int | None = None
        self._views: dict[int, int] = {}  # signer -> the highest view it finalised while we watched
        self.above_view: int | None = None

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
