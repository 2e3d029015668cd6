"""The model desk: what the state says of models and motions, for the API.

Invariant: reads one view only, and a bounded part of it. Leaves out: what a model does on this node
outside consensus (`shadows.py`).
"""

from __future__ import annotations

from itertools import islice

from consensus.ledger import models, motion
from consensus.ledger.motion import Era
from consensus.ledger.seating import compute_modules_digest, decode_seating
from consensus.ledger.state import ROW_FIXED_BYTES, View
from node.api.model_records import (
    EraRecord,
    ModelRecord,
    ModelsRecord,
    MotionRecord,
    PublishedRecord,
)
from node.api.model_schemas import LISTED_MAX


class ModelDesk:
    """Of one view."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._eras = list(motion.walk_eras(view.records))  # one for every change there ever was

    def list_models(self) -> tuple[ModelRecord, ...]:
        """Who judges the next block."""
        return self._list_seats(len(self._eras) - 1)

    def list_all(self) -> ModelsRecord:
        """Seats, publications, motions and history."""
        first = max(0, len(self._eras) - LISTED_MAX)
        return ModelsRecord(
            self._view.header.height,
            self._view.row_bytes - ROW_FIXED_BYTES,
            motion.get_seating(self._view.records).size_bytes,
            self.list_models(),
            tuple(self._list_published()),
            tuple(
                MotionRecord(subject, tally)
                for subject, tally in islice(motion.walk_motions(self._view.records), LISTED_MAX)
            ),
            tuple(self._record_era(number) for number in range(first, len(self._eras))),
        )

    def _record_era(self, number: int) -> EraRecord:
        height, era = self._eras[number]
        return EraRecord(
            height,
            compute_modules_digest(era.modules_record),
            self._list_seats(number),
            tuple(MotionRecord(step.motion, step.tally, step.outcome) for step in era.steps),
        )

    def _list_seats(self, number: int) -> tuple[ModelRecord, ...]:
        return tuple(
            ModelRecord(
                seat.name,
                seat.digest,
                seat.flag_score_min,
                seat.refuse_score_min,
                seat.weight,
                seat.row_bytes,
                self._find_since(number, seat.digest),
            )
            for seat in decode_seating(self._eras[number][1].modules_record).seats
        )

    def _find_since(self, number: int, digest: bytes) -> int:
        """The height from which this module has had a seat without a break, up to era `number`."""
        since = self._eras[number][0]
        for height, era in reversed(self._eras[:number]):
            if not _has_seat(era, digest):
                break
            since = height
        return since

    def _list_published(self) -> list[PublishedRecord]:
        """Genesis's modules first, then publications, each by digest or id."""
        records = self._view.records
        known = dict(islice(models.walk_models(records), LISTED_MAX))
        found = [
            PublishedRecord(model.name, digest, None, 0, None, 0, 0, "genesis", 0, model.since or None, None)
            for digest, model in known.items()
            if not model.publication
        ]
        for publication_id, entry in islice(models.walk_publications(records), LISTED_MAX - len(found)):
            manifest = entry.manifest
            model = models.find_model(records, manifest.digest)
            is_sound = model is not None and model.publication == publication_id
            found.append(
                PublishedRecord(
                    manifest.name,
                    manifest.digest,
                    manifest.artifact_hash,
                    manifest.artifact_bytes,
                    entry.publisher,
                    manifest.chunks,
                    entry.had,
                    "sound" if is_sound else "unsound" if entry.is_unsound else "arriving",
                    model.height if is_sound and model is not None else entry.height,
                    (model.since or None) if is_sound and model is not None else None,
                    entry.expires_ms or None,
                )
            )
        return found


def _has_seat(era: Era, digest: bytes) -> bool:
    return decode_seating(era.modules_record).find(digest) is not None
