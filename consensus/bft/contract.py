"""The engine contract: the one pure door between an engine and the world that runs it.

    engine.step(event) -> tuple[Effect, ...]

An engine has no I/O, clock, randomness or logging. The host (the node's runtime, or the simulated
world) performs the effects **in order**: every Persist of one step is durable before any later
effect of that step is performed (one sync may cover them all). The engine therefore counts its own
vote as soon as it has issued its Persist.

The engine orders block hashes; what a block means is the ledger's affair. A `BlockRef` is what it knows
of a block, derived by the host from a header whose hash it has recomputed. `payload` (the header's
bytes) passes through it unread.
Source: consensus.md (What must survive a crash); etcd raft's Ready for the order of durable and audible.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from consensus.vote import Certificate, Evidence, Vote


@dataclass(frozen=True, slots=True)
class BlockRef:
    """What an engine knows of a block; all of it is bound by `hash`. `proposer` is an index."""

    hash: bytes
    epoch: int
    view: int
    height: int
    parent_view: int
    parent_hash: bytes
    proposer: int


NULLIFICATIONS_MAX: Final = 16  # in a proposal: keeps it near a megabyte at 1,024 validators

# --- messages between engines -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Proposal:
    """A leader's block, its own notarize vote, and what justifies the parent.

    parent_certificate: notarization or finalization of the parent (None above genesis).
    nullifications: of views between parent and block, bounded; the rest is fetched.
    """

    block: BlockRef
    payload: bytes
    vote: Vote
    parent_certificate: Certificate | None
    nullifications: tuple[Certificate, ...]


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """Asks for the certificate of `kind` (vote.NOTARIZE ...) for `view`, in this epoch.

    A finalization of that view or of any later one also settles it.
    """

    epoch: int
    view: int
    kind: int


Message = Vote | Certificate | Proposal | CertificateRequest


# --- events: what happened -----------------------------------------------------------------------


class Judgement(Enum):
    """VALID means: judged valid *and* the body and its ancestors are durable (consensus.md, rule 3)."""

    VALID = "valid"
    INVALID = "invalid"  # for good
    NOT_YET = "not yet"  # parent or body missing, or its time has not come; the host judges again


class Timer(Enum):
    LEADER = "leader"  # no proposal arrived
    ADVANCE = "advance"  # the view did not end
    RETRY = "retry"  # resend what the view waits for
    STANDSTILL = "standstill"  # no finalization for long
    INTERVAL = "interval"  # the block interval passed: an empty block may come


@dataclass(frozen=True, slots=True)
class Received:
    """A message whose form and signatures were checked before (`check_message`)."""

    message: Message
    sender: bytes  # the peer's node key; only to answer to


@dataclass(frozen=True, slots=True)
class TimerFired:
    timer: Timer
    view: int  # as it was set; a timer of an older view is stale


@dataclass(frozen=True, slots=True)
class BlockBuilt:
    """Answers Build: a valid block whose body is durable (rule 3). `block` is None when building
    failed for good in this view."""

    view: int
    block: BlockRef | None
    payload: bytes


@dataclass(frozen=True, slots=True)
class BlockFetched:
    """Answers FetchBlock: the header of the block that was asked for, its hash recomputed by the host."""

    block: BlockRef
    payload: bytes


@dataclass(frozen=True, slots=True)
class BlockJudged:
    """Answers Judge; may come again (NOT_YET, later VALID). A block of the final chain is VALID."""

    block_hash: bytes
    judgement: Judgement


@dataclass(frozen=True, slots=True)
class WorkWaiting:
    """Transactions are waiting: a leader that holds back an empty block proposes at once."""


@dataclass(frozen=True, slots=True)
class SigningAllowed:
    """Ends "observe only" (consensus.md, What must survive a crash): nothing at or below `above_view` is ever signed.

    above_view = M + 1, where M is the highest view that validators of stake >= q, self excluded, report.
    The host makes it durable (`Journal.allow_signing`) first.
    """

    above_view: int


Event = Received | TimerFired | BlockBuilt | BlockFetched | BlockJudged | WorkWaiting | SigningAllowed


# --- effects: what the host shall do ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Persist:
    """Make this record durable in the journal before anything that follows."""

    record: Vote | Certificate | Proposal


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Send to all validators (and peers that follow), not to ourselves.

    peers_max: to no more than so many of them, drawn by the host anew each time; None: to all.
    """

    message: Message
    peers_max: int | None = None


@dataclass(frozen=True, slots=True)
class Send:
    peer: bytes
    message: Message


@dataclass(frozen=True, slots=True)
class FetchCertificate:
    """Ask one peer for a certificate; the host chooses: the hinted validator first, then at random.

    `attempt` counts from 0; the engine repeats it with backoff through its RETRY timer.
    """

    request: CertificateRequest
    hint: int | None
    attempt: int


@dataclass(frozen=True, slots=True)
class FetchBlock:
    """Find the block of this hash, in the own store or at a peer, and answer with BlockFetched.

    A quorum certified it or a descendant, so that honest stake above W/3 holds it. `hint` is the index
    of the validator to ask first (the proposer), then at random; repeated with `attempt` + 1.
    """

    block_hash: bytes
    view: int
    hint: int | None
    attempt: int


@dataclass(frozen=True, slots=True)
class Build:
    """Build a block on `parent` for `view` and answer with BlockBuilt.

    `certificate` is the parent's (None above the epoch's genesis), to be carried in the body, with every
    signature known by now. A parent at the epoch's boundary, or past it, asks for a tail.
    `is_empty_allowed` is False while the block interval runs: answer only if transactions wait;
    otherwise stay silent, and send WorkWaiting when they do (the engine then asks again). A later
    Build replaces an earlier one.
    """

    view: int
    parent: BlockRef
    certificate: Certificate | None
    is_empty_allowed: bool


@dataclass(frozen=True, slots=True)
class Judge:
    """Fetch the body if need be, make it durable, check it, and answer with BlockJudged.

    Issued once per block and run: after NOT_YET the host itself judges again when what it lacks came.
    """

    block: BlockRef
    payload: bytes


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Fire TimerFired(timer, view) after delay_ms; replaces an earlier one of the same Timer."""

    timer: Timer
    view: int
    delay_ms: int


@dataclass(frozen=True, slots=True)
class CancelTimer:
    timer: Timer


@dataclass(frozen=True, slots=True)
class Finalize:
    """`certificate` makes its block and all its ancestors final. Bodies may still have to be fetched.

    Issued again at every start for the last one known, since the state may lag behind the journal.
    """

    certificate: Certificate


@dataclass(frozen=True, slots=True)
class ReportEvidence:
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Halt:
    """Stop signing, keep serving: a quorum certified what we judged invalid, or the journal is unfit."""

    reason: str
    block_hash: bytes


Effect = (
    Persist
    | Broadcast
    | Send
    | FetchCertificate
    | FetchBlock
    | Build
    | Judge
    | SetTimer
    | CancelTimer
    | Finalize
    | ReportEvidence
    | Halt
)


class Engine(Protocol):
    """What a host needs of an engine. Construction takes the frozen validator set and parameters."""

    @property
    def view(self) -> int: ...

    @property
    def finalized_view(self) -> int: ...

    def start(self, records: Iterable[Vote | Certificate | Proposal]) -> tuple[Effect, ...]:
        """Restore from the journal's records (in order of writing) and begin. Called once, first."""
        ...

    def step(self, event: Event) -> tuple[Effect, ...]:
        """Take one event and say what to do. Never raises for a checked message."""
        ...
