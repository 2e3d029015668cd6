"""What the door tells of models: frozen records, as `door.py` has them for the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from consensus.ledger.motion import Motion, Tally
from consensus.ledger.seating import Outcome

# genesis: named there, without an artifact. arriving: chunks are missing. unsound: nothing comes of it.
PublicationStatus = Literal["genesis", "arriving", "sound", "unsound"]


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """A module with a seat: entry-point name, digest (32 bytes), lowest scores that flag and refuse.

    weight: 0 for one that watches. row_bytes: of every account. since: the height from which it sits there.
    """

    name: str
    digest: bytes
    flag_score_min: int
    refuse_score_min: int
    weight: int = 1
    row_bytes: int = 0
    since: int = 1


@dataclass(frozen=True, slots=True)
class PublishedRecord:
    """A model that may get a seat, or a publication on its way. None: a module of genesis has none.

    height: of the block that completed it, else of its first chunk's. since: from which it first judged or
    watched; None if it never did. expires_ms: forgotten then, if nobody approves it; None: it stays.
    """

    name: str
    digest: bytes
    artifact_hash: bytes | None
    artifact_bytes: int
    publisher: bytes | None
    chunks: int
    chunks_here: int
    status: PublicationStatus
    height: int
    since: int | None
    expires_ms: int | None


@dataclass(frozen=True, slots=True)
class MotionRecord:
    """outcome: None before its height."""

    motion: Motion
    tally: Tally
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class EraRecord:
    """Who judged from this height on, and the decisions that led to it."""

    height: int
    modules_digest: bytes
    models: tuple[ModelRecord, ...]
    steps: tuple[MotionRecord, ...]


@dataclass(frozen=True, slots=True)
class ModelsRecord:
    """After the last final block, at `height`. models: who judges the next; history: the newest last.

    room_bytes: of every account's row, for models; room_used_bytes: given away, be it to former ones.
    """

    height: int
    room_bytes: int
    room_used_bytes: int
    models: tuple[ModelRecord, ...]
    published: tuple[PublishedRecord, ...] = ()
    motions: tuple[MotionRecord, ...] = ()
    history: tuple[EraRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class ComparisonRecord:
    """What a model that scores along would have said of final transfers, beside what the chain said.

    Heights: of the first and the last block counted. outcomes[i][j]: transfers with outcome i on the chain
    and j by the shadow. Average precision and ROC AUC against the reports that came, None without any.
    """

    digest: bytes
    is_running: bool
    first_height: int
    last_height: int
    transfers: int
    agreeing: int
    outcomes: tuple[tuple[int, ...], ...]
    mean_difference: float
    reported: int
    chain_quality: tuple[float, float] | None
    shadow_quality: tuple[float, float] | None
