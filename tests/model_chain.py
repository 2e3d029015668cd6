"""A chain in memory whose validators change its modules: operators by number, artifacts of a few bytes.

An artifact says `factor letter row_bytes`: the module multiplies the counting module's scores by the factor
and reads rows of others with its letter and size. "broken" loads as nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from consensus.errors import Rejected
from consensus.genesis import Genesis, ModuleEntry
from consensus.ledger import models, motion
from consensus.ledger.models import Manifest
from consensus.ledger.motion import Change, Era, Motion, RetireModel, SeatModel
from consensus.ledger.publication import Chunk, compute_fee_min, cut_artifact, encode_chunk
from consensus.ledger.scoring import (
    SCORE_MAX,
    ModuleView,
    ReportColumns,
    Thresholds,
    TransferColumns,
    Verdicts,
)
from consensus.ledger.seating import Seating
from consensus.transaction import KIND_APPROVE_MOTION, KIND_PUBLISH_MODEL, Transaction
from tests.ledger_chain import CountingModule
from tests.staking_chain import OPERATORS, PEOPLE, STAKE, StakingChain, make_staking_genesis

LIMITS = Thresholds(2_000, 5_000)
NOTICE = 2
SETTINGS = {"motion_notice_blocks": NOTICE, "publication_ms": 2_000, "module_room_bytes": 20}
GENESIS_DIGEST = CountingModule.digest


class MadeModule(CountingModule):
    """Of an artifact."""

    def __init__(self, artifact: bytes) -> None:
        try:
            factor, letter, row_bytes = artifact.decode().split()[:3]
        except ValueError:
            raise Rejected("is no artifact", field="model") from None
        self.factor = int(factor)
        self.row_bytes = int(row_bytes)
        self.digest = sha256(artifact).digest()
        self.rows_key = sha256(letter.encode()).digest() if letter != "c" else CountingModule.digest

    def evaluate(
        self, transactions: TransferColumns, reports: ReportColumns, view: ModuleView
    ) -> tuple[Verdicts, NDArray[np.uint8]]:
        if not self.row_bytes:
            score = np.minimum(transactions.amount * self.factor, SCORE_MAX)
            return Verdicts.from_scores(score, view.thresholds), view.rows
        head = ModuleView(np.ascontiguousarray(view.rows[:, :4]), view.thresholds)
        verdicts, written = super().evaluate(transactions, reports, head)
        rows = view.rows.copy()
        rows[:, :4] = written
        score = np.minimum(verdicts.score * self.factor, SCORE_MAX)
        return replace(Verdicts.from_scores(score, view.thresholds), memo=verdicts.memo), rows


LOADED: list[bytes] = []  # artifacts in the order they were asked for


def load_counting(name: str, artifact: bytes) -> MadeModule:
    assert name == "counting"
    LOADED.append(artifact)
    return MadeModule(artifact)


def digest_of(artifact: bytes) -> bytes:
    return sha256(artifact).digest()


def make_model_genesis(stakes: Sequence[int] = (STAKE,) * 4, **parameters: object) -> Genesis:
    """One counting module, which flags from 2,000 and refuses from 5,000; an epoch of a thousand blocks."""
    settings = {**SETTINGS, "epoch_blocks": 1_000, **parameters}
    genesis = make_staking_genesis(stakes, **settings)
    entry = ModuleEntry("counting", GENESIS_DIGEST, LIMITS.flag_score_min, LIMITS.refuse_score_min)
    return replace(genesis, modules=(entry,))


class ModelChain(StakingChain):
    """A staking chain with modules that change."""

    def __init__(self, genesis: Genesis | None = None, modules: tuple[object, ...] | None = None) -> None:
        super(StakingChain, self).__init__(genesis or make_model_genesis(), modules, load_counting)
        self.absent: set[int] = set()

    # --- what stands ---------------------------------------------------------------------------

    @property
    def height(self) -> int:
        return self.view.header.height

    @property
    def seating(self) -> Seating:
        return motion.get_seating(self.view.records)

    @property
    def judging(self) -> list[bytes]:
        """Digests of those who judge the next block."""
        return [seat.digest for seat in self.seating.seats]

    @property
    def eras(self) -> dict[int, Era]:
        return dict(motion.walk_eras(self.view.records))

    def is_known(self, artifact: bytes) -> bool:
        return models.find_model(self.view.records, digest_of(artifact)) is not None

    # --- transactions --------------------------------------------------------------------------

    def publish(self, artifact: bytes, digest: bytes = b"", name: str = "counting") -> list[Transaction]:
        """All chunks, by the first of the people."""
        return [
            self.send_chunk(payload)
            for payload in cut_artifact(name, digest or digest_of(artifact), artifact)
        ]

    def send_chunk(self, payload: bytes, **fields: int) -> Transaction:
        fields.setdefault("fee", compute_fee_min(payload, 1, 1))
        return self.make(KIND_PUBLISH_MODEL, PEOPLE[0], PEOPLE[0].address, payload, **fields)

    def chunk(self, artifact: bytes, index: int = 0, data: bytes | None = None) -> bytes:
        """One payload, of these bytes instead when they are given."""
        manifest = Manifest("counting", digest_of(artifact), sha256(artifact).digest(), len(artifact))
        start = index * models.CHUNK_BYTES
        return encode_chunk(
            Chunk(manifest, index, artifact[start : start + models.CHUNK_BYTES] if data is None else data)
        )

    def approve(self, number: int, change: Change, height: int, **fields: int) -> Transaction:
        payload = motion.encode_motion(Motion(height, change))
        return self.make(KIND_APPROVE_MOTION, OPERATORS[number], OPERATORS[number].address, payload, **fields)

    def decide(self, *changes: Change, height: int = 0) -> int:
        """Three of four approve, in the next block; the height from which it holds."""
        height = height or self.height + NOTICE + 2
        self.grow(*(self.approve(number, change, height) for change in changes for number in range(3)))
        return height

    def reach_height(self, height: int) -> None:
        """Until the next block is that one."""
        while self.height < height - 1:
            self.grow()

    def settle(self, *changes: Change) -> None:
        """Decided and in force."""
        self.reach_height(self.decide(*changes))


def seat(
    artifact_or_digest: bytes, in_place_of: bytes = b"", *, weight: int = 1, limits: Thresholds = LIMITS
) -> SeatModel:
    return SeatModel(_as_digest(artifact_or_digest), limits, weight, _as_digest(in_place_of))


def retire(artifact_or_digest: bytes) -> RetireModel:
    return RetireModel(_as_digest(artifact_or_digest))


def _as_digest(value: bytes) -> bytes:
    return value if len(value) in (0, 32) else digest_of(value)
