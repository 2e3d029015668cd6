"""The model watch: tells whoever listens that other modules judge from a height on.

Invariant: it reads final states only, and tells each change once, in order. Leaves out: decisions that
came to nothing; /v1/models has those too.
"""

from __future__ import annotations

import logging

from consensus.ledger.state import View
from node.api.event_ring import EventRing
from node.api.model_forms import form_era
from node.desks.models import ModelDesk

log = logging.getLogger("assay.models")


class ModelWatch:
    """One node's, from a final view on."""

    def __init__(self, events: EventRing, view: View) -> None:
        self._events = events
        self._record = view.modules_record
        self._height = view.header.height

    def on_final(self, view: View) -> None:
        """The final state moved on, by one block or by many."""
        if view.modules_record != self._record:
            for era in ModelDesk(view).list_all().history:
                if era.height > self._height + 1:
                    self._events.publish("model", form_era(era))
                    log.info(
                        "other modules judge",
                        extra={
                            "from_height": era.height,
                            "modules": [f"{model.name} 0x{model.digest.hex()}" for model in era.models],
                        },
                    )
        self._record, self._height = view.modules_record, view.header.height
