"""What happened in one run, kept for people: the material of `trace.py` (text) and `diagram.py` (pictures).

A World writes here as it goes, if it was given a Timeline. Nothing is ever read back by the world, so a
run with a timeline is the same run.

Invariant: entries stand in order of time. Leaves out: what nodes keep to themselves (timers, judging).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from consensus.bft.contract import CertificateRequest, Message, Proposal
from consensus.vote import FINALIZE, NOTARIZE, NULLIFY, Certificate, Vote

ENTRIES_MAX: Final = 400_000  # a few minutes of simulated time; more than anybody reads
CERTIFICATE_NAMES: Final = {NOTARIZE: "notarization", NULLIFY: "nullification", FINALIZE: "finalization"}
VOTE_NAMES: Final = {NOTARIZE: "notarize", NULLIFY: "nullify", FINALIZE: "finalize"}


@dataclass(frozen=True, slots=True)
class Entry:
    """Something at a node (-1: the whole world). kind: start, crash, view, final, fault, halt, …"""

    at_ms: int
    node: int
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Sent:
    """A message on its way. arrivals_ms: one for each copy that will come; none: lost on the way."""

    at_ms: int
    sender: int
    receiver: int
    kind: str
    view: int
    text: str
    arrivals_ms: tuple[int, ...]


class Timeline:
    """`entries` and `sent`, each in order of time."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.sent: list[Sent] = []
        self.villains: dict[int, str] = {}  # node -> which
        self._views: dict[int, int] = {}

    def add(self, at_ms: int, node: int, kind: str, text: str) -> None:
        if kind == "note":
            kind, text = _read_note(text)
        if kind in ("crash", "start"):
            self._views.pop(node, None)
        if len(self.entries) < ENTRIES_MAX:
            self.entries.append(Entry(at_ms, node, kind, text))

    def add_view(self, at_ms: int, node: int, view: int, leader: int) -> None:
        """A node stands in this view, led by `leader` (-1: unknown). Only the first time is news."""
        if self._views.get(node) != view:
            self._views[node] = view
            self.add(at_ms, node, "view", f"{view} led by {leader}" if leader >= 0 else str(view))

    def add_message(
        self, at_ms: int, sender: int, receiver: int, message: Message, delays_ms: tuple[int, ...]
    ) -> None:
        if len(self.sent) < ENTRIES_MAX:
            kind, view, text = describe_message(message)
            arrivals_ms = tuple(at_ms + delay_ms for delay_ms in delays_ms)
            self.sent.append(Sent(at_ms, sender, receiver, kind, view, text, arrivals_ms))


def _read_note(note: str) -> tuple[str, str]:
    """A line of the trace as (kind, text): its first word, if that names a kind."""
    word, _, rest = note.partition(" ")
    return (word, rest) if word in ("crash", "final", "heal", "cut") else ("fault", note)


def describe_message(message: Message) -> tuple[str, int, str]:
    """(kind, view, words)"""
    match message:
        case Vote(subject, signer):
            block = f" {subject.block_hash.hex()[:6]}" if subject.block_hash else ""
            return VOTE_NAMES[subject.kind], subject.view, f"{signer} votes {VOTE_NAMES[subject.kind]}{block}"
        case Certificate(subject):
            block = f" {subject.block_hash.hex()[:6]}" if subject.block_hash else ""
            name = CERTIFICATE_NAMES[subject.kind]
            signers = ",".join(map(str, message.signers))
            return name, subject.view, f"{name}{block} by {signers}"
        case Proposal(block_ref):
            text = f"{block_ref.proposer} proposes {block_ref.hash.hex()[:6]} on view {block_ref.parent_view}"
            return "proposal", block_ref.view, text
        case CertificateRequest(_, view, kind):
            return "request", view, f"asks for the {CERTIFICATE_NAMES.get(kind, 'certificate')}"
