"""What a scenario says, as nouns: who takes part, what goes wrong when, and what shall come of it.

`language.parse_scenario` makes these from text, `acting.act_out` acts them out. A place is a node's
number; the second machine of a double identity is its number plus SECOND.
Leaves out: chance. Whatever is left open (latencies, judging times) the seed decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from consensus.bft.contract import CertificateRequest, Message, Proposal
from consensus.vote import KIND_NAMES, Certificate, Vote

SECOND: Final = 1_000  # "0'" in a scenario is place 1000
BODIES: Final = "bodies"

# How a node goes down: at once, in order, standing still, or losing what it had on its disk.
CRASH: Final = "crash"
STOP: Final = "stop"
PAUSE: Final = "pause"
FORGET_JOURNAL: Final = "journal"
FORGET_STORE: Final = "store"

# What a scenario may call a message; some words are broader than others.
MESSAGE_WORDS: Final[dict[str, frozenset[str]]] = {
    "proposals": frozenset(("proposal",)),
    "votes": frozenset(KIND_NAMES),
    "notarize": frozenset(("notarize",)),
    "nullify": frozenset(("nullify",)),
    "finalize": frozenset(("finalize",)),
    "certificates": frozenset(("notarization", "nullification", "finalization")),
    "notarizations": frozenset(("notarization",)),
    "nullifications": frozenset(("nullification",)),
    "finalizations": frozenset(("finalization",)),
    "requests": frozenset(("request",)),
    BODIES: frozenset((BODIES,)),
}
_CERTIFICATE_NAMES: Final = ("notarization", "nullification", "finalization")


def name_message(message: Message) -> str:
    """ "proposal", "notarize", "finalization", "request" ..."""
    match message:
        case Vote(subject):
            return KIND_NAMES[subject.kind]
        case Certificate(subject):
            return _CERTIFICATE_NAMES[subject.kind]
        case Proposal():
            return "proposal"
        case CertificateRequest():
            return "request"


@dataclass(frozen=True, slots=True)
class Span:
    """When: for messages about these views (for `lasting_ms` after the first of each), or in this time.

    epoch: whose views; None: every epoch's.
    """

    views: range | None = None
    lasting_ms: int | None = None
    times_ms: range | None = None
    epoch: int | None = None

    def is_on(self, epoch: int, view: int, now_ms: int, first_ms: int) -> bool:
        """`first_ms`: when the first message about this view was sent."""
        if self.epoch is not None and epoch != self.epoch:
            return False
        if self.views is not None and view not in self.views:
            return False
        if self.lasting_ms is not None and now_ms >= first_ms + self.lasting_ms:
            return False
        return self.times_ms is None or now_ms in self.times_ms


@dataclass(frozen=True, slots=True)
class Partition:
    """Only places that share a group hear each other. Groups may overlap."""

    groups: tuple[frozenset[int], ...]
    span: Span

    def is_cut(self, sender: int, receiver: int) -> bool:
        return not any(sender in group and receiver in group for group in self.groups)


@dataclass(frozen=True, slots=True)
class Loss:
    """Messages of these names, from some to some, are lost. None: whatever, whoever."""

    names: frozenset[str] | None
    senders: frozenset[int] | None
    receivers: frozenset[int] | None
    span: Span

    def is_lost(self, name: str, sender: int, receiver: int) -> bool:
        return (
            (self.names is None or name in self.names)
            and (self.senders is None or sender in self.senders)
            and (self.receivers is None or receiver in self.receivers)
        )


@dataclass(frozen=True, slots=True)
class Crash:
    """Nodes go down, each once: at a time, or when it says something (`name`, `view`).

    is_before: its record is in the journal and nobody has heard it. down_ms None: until the world heals.
    way: how; all but CRASH happen to whole nodes alone.
    """

    nodes: frozenset[int]
    at_ms: int | None = None
    name: str = ""
    view: int = 0
    is_before: bool = False
    down_ms: int | None = None
    way: str = CRASH


@dataclass(frozen=True, slots=True)
class Restart:
    """Nodes come up at a time; `is_forgetful`: their journal is gone, their key's mark is not."""

    nodes: frozenset[int]
    at_ms: int
    is_forgetful: bool = False


@dataclass(frozen=True, slots=True)
class Expectation:
    """One `expect` line: its words, and what they mean (see expectations.py)."""

    line: int
    text: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scenario:
    """All of a file. `title` is its first comment."""

    title: str
    is_full: bool  # whole nodes
    stakes: tuple[int, ...]
    seed: int
    faults_ms: int
    latency_ms_max: int
    delta_ms: int
    epoch_blocks: int
    joiners: int  # whole nodes that are not in genesis
    loss: float
    absent: int
    is_beyond_promise: bool
    villains: tuple[tuple[int, str], ...]
    leaders: tuple[tuple[int, int], ...]  # view, node
    slow_ms: tuple[tuple[int, int], ...]  # node, how long its judging takes
    partitions: tuple[Partition, ...]
    losses: tuple[Loss, ...]
    crashes: tuple[Crash, ...]
    restarts: tuple[Restart, ...]
    expectations: tuple[Expectation, ...]
