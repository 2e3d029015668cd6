"""Villains whose messages nobody should take, or that are too many: forged, stale, or a flood.

What a forger sends fails `check_message`, so that no engine ever sees it. A node does not even check what
its engine has no need of, so a forger is quick: it forges when it votes, before others have what is forged.
What a replayer and a flooder send is genuine: engines must bear it, within bounded memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from consensus import crypto
from consensus.bft.contract import Broadcast, CertificateRequest, Effect, Event, Message, Proposal, Received
from consensus.vote import FINALIZE, NO_BLOCK, NOTARIZE, NULLIFY, Certificate, Subject, Vote
from node.simulation.villains.villain import Means, Villain, get_parent

MEMORIES_MAX: Final = 300  # of a replayer: a few dozen views
FLOOD_VIEWS: Final = 200  # how far ahead a flooder votes: three times what an engine looks at


class Forger(Villain):
    """Bad signatures, foreign names, other epochs, unknown and doubled signers, quorums one unit short."""

    def __init__(self, means: Means) -> None:
        super().__init__(means)
        self._genuine: dict[Subject, dict[int, bytes]] = {}  # of the current view: signer -> signature

    def rewrite(self, effect: Effect) -> Iterable[Effect]:
        match effect:
            case Broadcast(Vote() as vote):
                return (Broadcast(self.anticipate(vote)), effect)
            case _:
                return (effect,)

    def anticipate(self, vote: Vote) -> Vote | Certificate:
        """What nobody has yet, and everybody waits for: others' votes, and the certificate of them."""
        self.keep(vote)
        subject, everybody = vote.subject, range(len(self.means.validators))
        own = (self.index, vote.signature)
        copied = tuple((signer, vote.signature) for signer in everybody)
        guessed = tuple(
            own if signer == self.index else (signer, self.rng.randbytes(64)) for signer in everybody
        )
        ways: list[Vote | Certificate] = [
            replace(vote, signature=self.rng.randbytes(64)),
            replace(vote, signer=self.rng.choice(self.others)),
            Certificate(subject, copied),
            Certificate(subject, guessed),
            Certificate(subject, (own,) * len(everybody)),
            # All genuine, and a little short of a quorum.
            self.cut_short(Certificate(subject, tuple(sorted(self._genuine[subject].items())))),
        ]
        return self.rng.choice(ways)

    def keep(self, vote: Vote) -> None:
        for subject in [subject for subject in self._genuine if subject.view < self.view]:
            del self._genuine[subject]
        self._genuine.setdefault(vote.subject, {})[vote.signer] = vote.signature

    def add(self, event: Event) -> Iterable[Effect]:
        if isinstance(event, Received) and isinstance(event.message, Vote | Proposal):
            self.keep(event.message if isinstance(event.message, Vote) else event.message.vote)
        if not isinstance(event, Received) or self.rng.random() < 0.7:
            return ()
        match event.message:
            case Vote() as vote:
                return [Broadcast(self.forge_vote(vote))]
            case Certificate() as certificate:
                return [Broadcast(self.forge_certificate(certificate))]
            case Proposal() as proposal:
                return [Broadcast(self.forge_proposal(proposal))]
            case _:
                return ()

    def forge_vote(self, vote: Vote) -> Vote:
        subject = vote.subject
        other = replace(subject, kind=NOTARIZE, block_hash=crypto.hash_bytes(vote.signature))
        if self.rng.random() < 0.2:
            # Its own and genuine, of an epoch that is not: the engine's affair.
            return self.make_vote(subject.kind, subject.view, subject.block_hash, epoch=self.means.epoch + 1)
        return self.rng.choice(
            [
                replace(vote, signature=self.rng.randbytes(64)),
                replace(vote, subject=other),  # another's signature on what it never said
                replace(vote, signer=len(self.means.validators)),
                replace(
                    vote, signer=self.rng.choice(self.others), signature=self.make_vote(0, 1, b"").signature
                ),
                replace(vote, subject=replace(subject, epoch=subject.epoch + 1)),
            ]
        )

    def forge_certificate(self, certificate: Certificate) -> Certificate:
        pairs, subject = certificate.signatures, certificate.subject
        signer, signature = pairs[0]
        return self.rng.choice(
            [
                self.cut_short(certificate),
                replace(certificate, signatures=(*self.cut_short(certificate).signatures, pairs[0])),
                replace(certificate, signatures=tuple((signer, signature) for _ in pairs)),
                replace(certificate, signatures=(*pairs[1:], (len(self.means.validators), signature))),
                replace(certificate, signatures=((signer, bytes(64)), *pairs[1:])),
                replace(certificate, subject=replace(subject, view=subject.view + 1)),
                replace(certificate, subject=replace(subject, epoch=subject.epoch + 1)),
                replace(certificate, signatures=()),
            ]
        )

    def cut_short(self, certificate: Certificate) -> Certificate:
        """The largest part that is no quorum."""
        validators, kept, stake = self.means.validators, [], 0
        for signer, signature in certificate.signatures:
            if stake + validators.validators[signer].stake < validators.quorum:
                stake += validators.validators[signer].stake
                kept.append((signer, signature))
        return replace(certificate, signatures=tuple(kept))

    def forge_proposal(self, proposal: Proposal) -> Proposal:
        """Another leader's proposal with something exchanged."""
        parent = proposal.parent_certificate
        forged = None if parent is None else self.forge_certificate(parent)
        # Its own block in another leader's view, rightly signed: the engine's affair.
        usurped = self.make_proposal(get_parent(proposal.block), proposal.block.view, parent, ())
        own = self.make_vote(NOTARIZE, proposal.block.view, proposal.block.hash)
        choices = [usurped or proposal, replace(proposal, vote=own)]
        if forged is not None:
            choices += [
                replace(proposal, parent_certificate=forged),
                replace(proposal, parent_certificate=None),
            ]
        return self.rng.choice(choices)


class Replayer(Villain):
    """Repeats old messages of everybody, out of order, for ever."""

    def __init__(self, means: Means) -> None:
        super().__init__(means)
        self._heard: list[Message] = []

    def add(self, event: Event) -> Iterable[Effect]:
        if not isinstance(event, Received):
            return ()
        if len(self._heard) < MEMORIES_MAX:
            self._heard.append(event.message)
        else:
            self._heard[self.rng.randrange(MEMORIES_MAX)] = event.message
        return [Broadcast(self.rng.choice(self._heard))] if self.rng.random() < 0.3 else ()


class Flooder(Villain):
    """Votes for views far ahead, asks for what nobody has, and says everything twice."""

    _flooded = 0

    def rewrite(self, effect: Effect) -> Iterable[Effect]:
        return (effect, effect) if isinstance(effect, Broadcast) else (effect,)

    def add(self, event: Event) -> Iterable[Effect]:
        del event
        if self.view <= self._flooded:
            return
        low, self._flooded = max(self._flooded, self.view), self.view
        for view in self.rng.sample(range(low, low + FLOOD_VIEWS), 30):
            block_hash = crypto.hash_bytes(self.rng.randbytes(8))
            yield Broadcast(self.make_vote(NULLIFY, view, NO_BLOCK))
            yield Broadcast(self.make_vote(NOTARIZE, view, block_hash))
            yield Broadcast(CertificateRequest(self.means.epoch, view, FINALIZE))
