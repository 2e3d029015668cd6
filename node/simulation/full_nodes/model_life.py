"""Small models for simulated chains, and what clients and validators do with them.

A publisher brings artifacts to the chain, validators decide on one change after another: a model takes over,
its predecessor comes back, one watches, one is retired. What happens next is chosen by what is final.
Some motions get too few approvals, and die; some approvals come too late.

Invariant: chance comes from its own generator; the artifacts are the same in every process. Leaves out:
what should come of it (`plain_models.py`), and where offers are sent (`workload.py`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from typing import Final

from consensus.crypto import PrivateKey
from consensus.ledger import models, motion
from consensus.ledger.motion import Change, Motion, RetireModel, SeatModel
from consensus.ledger.publication import compute_fee_min, cut_artifact
from consensus.ledger.rules import Rules
from consensus.ledger.scoring import ValidationModule
from consensus.ledger.seating import Outcome, Seating
from consensus.ledger.state import View
from consensus.transaction import KIND_APPROVE_MOTION, KIND_PUBLISH_MODEL, Transaction
from ml.definitions import RowRules
from ml.discovery import load_module
from ml.forest import Forest
from ml.fraud import read_default_artifact
from ml.model import decode_model, make_sigmoid
from node.modules import FRAUD
from node.simulation.full_nodes.payments import RIVAL, SOUND, SPOILED, Offer
from node.simulation.full_nodes.remembering import RememberingModule
from node.simulation.full_nodes.signing import Signer

TREES: Final = 6  # of a small model: the shipped one's first
ROOM_BYTES: Final = 500  # of a row: two models that keep 226 bytes
NOTICE_BLOCKS: Final = 2
SPARE_BLOCKS: Final = 8  # from a motion to its height, at most, above the notice
CHANGES_MIN: Final = 2  # a switch, and a way back


@lru_cache(maxsize=1)
def make_artifacts() -> tuple[bytes, bytes, bytes]:
    """One that reads the rows of the shipped model, one that keeps other rows, and one that is no model."""
    shipped = decode_model(read_default_artifact())
    small = Forest(shipped.forest.features, shipped.forest.trees[:TREES])
    same = replace(shipped, forest=small, calibration=make_sigmoid(2.0, 0.0))
    definitions = replace(shipped.definitions, rules=RowRules(lately_ms=900_000))
    other = replace(same, definitions=definitions, calibration=make_sigmoid(3.0, 0.5))
    artifacts = same.encode(), other.encode()
    return (*artifacts, artifacts[0][:-1])


def list_sound() -> dict[bytes, bytes]:
    """SHA-256 of an artifact -> the digest of its module, for those of which one comes."""
    return {
        sha256(artifact).digest(): load_remembering(FRAUD, artifact).digest
        for artifact in make_artifacts()[:2]
    }


@lru_cache(maxsize=8)
def load_remembering(name: str, artifact: bytes) -> ValidationModule:
    """As `ml.discovery.load_module`, asked once for all nodes of a run."""
    return RememberingModule(load_module(name, artifact))


class ModelLife:
    """One run's. `get_view`: of the state after the last block that is final anywhere. `goal`: changes to come."""

    def __init__(
        self,
        rules: Rules,
        publisher: PrivateKey,
        validators: Sequence[PrivateKey],
        rng: random.Random,
        get_view: Callable[[], View],
        goal: int,
    ) -> None:
        self._rules = rules
        self._publisher = publisher
        self._validators = validators
        self._rng = rng
        self._get_view = get_view
        self._goal = max(goal, CHANGES_MIN)
        self._digests = [load_remembering(FRAUD, artifact).digest for artifact in make_artifacts()[:2]]
        self._first = rules.genesis.modules[0].digest
        self._signer = Signer(rules, self._get_nonce, rules.parameters.lifetime_ms_max)
        self._pending: Motion | None = None
        self._waiting: list[PrivateKey] = []  # who is still to approve it
        self._is_published = False
        self.changes = 0

    @property
    def is_done(self) -> bool:
        return self.changes >= self._goal

    def choose(self, nodes: Sequence[int]) -> int:
        """To whom the next offer goes."""
        return self._rng.choice(nodes)

    def make(self, wall_ms: int, *, is_ending: bool) -> list[Offer]:
        """What is to be sent now. is_ending: nothing is begun that is not needed for the goal."""
        view = self._get_view()
        if not self._is_published:
            self._is_published = True
            return self._publish(wall_ms)
        if self._pending is not None and view.header.height >= self._pending.height:
            self._note(view, self._pending)
            self._pending, self._waiting = None, []
        if self._pending is None:
            if is_ending and self.is_done:
                return []
            if not all(models.find_model(view.records, digest) for digest in self._digests):
                return []
            self._plan(view)
        return self._approve(wall_ms)

    def _note(self, view: View, subject: Motion) -> None:
        for height, era in motion.walk_eras(view.records):
            if height == subject.height:
                self.changes += any(step.outcome == Outcome.DONE for step in era.steps)

    # --- publishing -------------------------------------------------------------------------------------

    def _publish(self, wall_ms: int) -> list[Offer]:
        *sound, broken = make_artifacts()
        parameters = self._rules.parameters
        artifacts = [*zip(self._digests, sound, strict=True), (b"?" * 32, broken)]
        payloads = [
            payload for digest, artifact in artifacts for payload in cut_artifact(FRAUD, digest, artifact)
        ]
        self._rng.shuffle(payloads)
        return [
            self._offer(
                SOUND,
                self._signer.sign(
                    self._publisher,
                    KIND_PUBLISH_MODEL,
                    wall_ms,
                    payload=payload,
                    fee=compute_fee_min(
                        payload, parameters.fee_units_min, parameters.artifact_byte_fee_units
                    ),
                ),
            )
            for payload in payloads
        ]

    # --- deciding ---------------------------------------------------------------------------------------

    def _plan(self, view: View) -> None:
        height = view.header.height + NOTICE_BLOCKS + 3 + self._rng.randrange(SPARE_BLOCKS)
        self._pending = Motion(height, self._choose(motion.get_seating(view.records)))
        self._waiting = list(self._validators)
        self._rng.shuffle(self._waiting)
        if self._rng.random() < 0.15:
            self._waiting = self._waiting[: len(self._waiting) // 2]  # too few: it dies

    def _choose(self, seating: Seating) -> Change:
        judging = [seat for seat in seating.seats if seat.weight]
        watching = [seat for seat in seating.seats if not seat.weight]
        present = judging[0]
        if watching and self._rng.random() < 0.8:
            if self._rng.random() < 0.5:
                return RetireModel(watching[0].digest)
            return SeatModel(watching[0].digest, present.thresholds, 1, present.digest)
        others = [digest for digest in (self._first, *self._digests) if seating.find(digest) is None]
        if present.digest != self._first and self._first in others and self._rng.random() < 0.6:
            return SeatModel(self._first, present.thresholds, 1, present.digest)  # the way back
        chosen = self._rng.choice(others)
        if not watching and self.changes and self._rng.random() < 0.4:
            return SeatModel(chosen, present.thresholds, 0)  # beside, to watch
        return SeatModel(chosen, present.thresholds, 1, present.digest)

    def _approve(self, wall_ms: int) -> list[Offer]:
        assert self._pending is not None
        payload = motion.encode_motion(self._pending)
        offers = []
        for key in tuple(self._waiting):
            if self._rng.random() < 0.5:
                self._waiting.remove(key)
                approval = self._signer.sign(key, KIND_APPROVE_MOTION, wall_ms, payload=payload)
                offers.append(self._offer(RIVAL, approval))  # it may come too late
        if self._rng.random() < 0.05:  # somebody who has no say; it uses up no nonce
            tx = self._signer.sign(
                self._publisher, KIND_APPROVE_MOTION, wall_ms, payload=payload, is_vain=True
            )
            offers.append(self._offer(SPOILED, tx))
        return offers

    # --- tools ------------------------------------------------------------------------------------------

    def _offer(self, promise: str, tx: Transaction) -> Offer:
        return Offer(tx.raw, tx, promise)

    def _get_nonce(self, address: bytes) -> int:
        account = self._get_view().get_account(address)
        return 0 if account is None else account.nonce_next  # an operator also accuses liars
