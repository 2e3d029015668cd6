"""Models in plain Python: which of them judge after every block, reckoned anew from the transactions.

Written from docs/ledger.md and not from `consensus/ledger/`: lists and dictionaries. It loads nothing: the
world tells which artifacts are sound. Invariant: `apply` and `close` raise Violation at the first broken
promise. Leaves out: rows and slots (the room of a simulated chain suffices), expiry (a run is too short).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from consensus import codec
from consensus.genesis import Genesis
from consensus.transaction import KIND_PUBLISH_MODEL, PAYLOAD_BYTES_MAX, Transaction
from node.simulation.checkers import Violation


@dataclass(frozen=True, slots=True)
class PlainSeat:
    """A module that judges, or watches with weight 0."""

    digest: bytes
    flag_score_min: int
    refuse_score_min: int
    weight: int


class PlainModels:
    """sound: SHA-256 of an artifact -> the digest of its module; all others are unsound."""

    def __init__(self, genesis: Genesis, sound: Mapping[bytes, bytes]) -> None:
        self.seats = [
            PlainSeat(m.digest, m.flag_score_min, m.refuse_score_min, m.weight) for m in genesis.modules
        ]
        self._sound = sound
        self._known = {seat.digest for seat in self.seats}
        self._notice = genesis.parameters.motion_notice_blocks
        self._chunks: dict[tuple[Any, ...], dict[int, bytes]] = {}
        self._approvers: dict[bytes, list[bytes]] = {}  # payload -> who approved it
        self._decided: dict[int, list[bytes]] = {}  # height -> payloads

    @property
    def refuse_score_min(self) -> int | None:
        """Of the one that judges alone; None when none or several do."""
        judging = [seat for seat in self.seats if seat.weight]
        return judging[0].refuse_score_min if len(judging) == 1 else None

    def apply(self, tx: Transaction, height: int, stakes: Mapping[bytes, int]) -> None:
        """A final transaction about models, in this block. stakes: of the epoch's operators."""
        fields = codec.decode(tx.payload, what="payload", bytes_max=PAYLOAD_BYTES_MAX)
        if tx.kind == KIND_PUBLISH_MODEL:
            self._publish(tx, fields, height)
        else:
            self._approve(tx, fields, height, stakes)

    def _publish(self, tx: Transaction, fields: Any, height: int) -> None:
        name, digest, artifact_hash, size, index, data = fields
        if digest in self._known:
            raise Violation(f"models: block {height} takes a chunk of a model that is known")
        chunks = self._chunks.setdefault((tx.sender, name, digest, artifact_hash, size), {})
        if index in chunks:
            raise Violation(f"models: block {height} takes chunk {index} twice")
        chunks[index] = data
        artifact = b"".join(chunks[number] for number in sorted(chunks))
        if len(artifact) < size:
            return
        if sha256(artifact).digest() != artifact_hash:
            raise Violation(f"models: block {height} completes an artifact that is not what was announced")
        if self._sound.get(artifact_hash) == digest:
            self._known.add(digest)

    def _approve(self, tx: Transaction, fields: Any, height: int, stakes: Mapping[bytes, int]) -> None:
        activation, _, *subjects = fields
        if tx.sender not in stakes:
            raise Violation(f"models: 0x{tx.sender.hex()} has no say, and block {height} lets it approve")
        if height + self._notice >= activation:
            raise Violation(f"models: block {height} takes an approval for block {activation}, too late")
        if subjects[0] not in self._known:
            raise Violation(f"models: block {height} takes an approval of a model that nobody knows")
        approvers = self._approvers.setdefault(tx.payload, [])
        if tx.sender in approvers:
            raise Violation(f"models: 0x{tx.sender.hex()} approves twice, again in block {height}")
        approvers.append(tx.sender)
        approved = sum(stakes.get(approver, 0) for approver in approvers)
        decided = self._decided.setdefault(activation, [])
        if 3 * approved > 2 * sum(stakes.values()) and tx.payload not in decided:
            decided.append(tx.payload)

    def close(self, height: int) -> None:
        """After this block: what was decided for the next one holds."""
        for payload in self._decided.pop(height + 1, []):
            _, kind, digest, *rest = codec.decode(payload, what="payload", bytes_max=PAYLOAD_BYTES_MAX)
            if kind == 1:
                self.seats = [seat for seat in self.seats if seat.digest != digest]
                continue
            flag, refuse, weight, place = rest
            new, digests = PlainSeat(digest, flag, refuse, weight), [seat.digest for seat in self.seats]
            if place and place not in digests:
                continue
            if digest in digests:
                self.seats = [new if seat.digest == digest else seat for seat in self.seats]
                self.seats = [seat for seat in self.seats if seat.digest == digest or seat.digest != place]
            elif place:
                self.seats = [new if seat.digest == place else seat for seat in self.seats]
            else:
                self.seats.append(new)
