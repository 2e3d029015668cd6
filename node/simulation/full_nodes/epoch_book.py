"""The epochs that nodes of a simulated network began, and what is said in them as their engines know it.

Invariant: a set stays for good. The state forgets old ones, a message of theirs may still come; and all nodes
that begin an epoch begin it with the same set, for which a checker answers.
Leaves out: who may sit in a set (`casting.py`), and who leads.
"""

from __future__ import annotations

from collections.abc import Sequence

from consensus.bft.contract import BlockRef, Message
from consensus.bft.messages import decode_message, make_block_ref
from consensus.block import decode_header
from consensus.ledger.epochs import EpochSet
from node.network.frames import CompactProposal, EngineMessage, Frame


class EpochBook:
    """keys: the voting keys of all nodes, in their order."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._node_by_key = {key: index for index, key in enumerate(keys)}
        self._sets: dict[int, EpochSet] = {}
        self._views: dict[int, int] = {}  # epoch -> the highest view that was entered there
        self._messages: dict[bytes, Message] = {}

    def begin(self, epoch: int, epoch_set: EpochSet) -> None:
        """A node makes the engine of this epoch; the first one's set counts."""
        self._sets.setdefault(epoch, epoch_set)

    def note_view(self, epoch: int, view: int) -> None:
        """A node's engine stands in this view."""
        self._views[epoch] = max(self._views.get(epoch, 0), view)

    def count_views(self) -> int:
        """In all epochs."""
        return sum(self._views.values())

    def get_members(self, epoch: int) -> tuple[int, ...]:
        """The node of each index, in an epoch that a node began."""
        validators = self._sets[epoch].validators.validators
        return tuple(self._node_by_key[validator.public_key] for validator in validators)

    def read_block(self, raw: bytes) -> BlockRef:
        """A header as engines of its epoch know it. Raises Rejected."""
        header = decode_header(raw)
        found = self._sets.get(header.epoch)
        return make_block_ref(header, {} if found is None else found.index_by_key)

    def read_message(self, frame: Frame) -> Message | None:
        """The engine's message in a frame, decoded once; None where there is none. Raises Rejected."""
        match frame:
            case EngineMessage(raw) | CompactProposal(raw):
                message = self._messages.get(raw)
                if message is None:
                    message = self._messages[raw] = decode_message(raw, self.read_block)
                return message
        return None
