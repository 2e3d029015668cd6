"""The door between the HTTP API and the node: all that the API may ask, and what it is told.

The runtime implements `NodeDoor`; tests put a fake in its place. Plain methods answer from memory or
one bounded read of the disk; `async` ones may wait for a worker or for the ledger.

Invariant: nothing here changes the node but `submit`; every record is frozen and holds no private key.
Errors: a method raises Rejected (the caller's fault), NotYet (the node cannot tell yet: 503) or Fault
(ours: 500); "there is no such thing" is None, never an error.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Protocol

from consensus.block import Block, Header
from consensus.ledger.scoring import Counterfactual, Explanation
from consensus.parameters import Parameters
from consensus.transaction import Transaction
from consensus.vote import Certificate
from node.api.model_records import ComparisonRecord, ModelRecord, ModelsRecord
from node.api.refusal_records import ConsistencyProof, RefusalPage, RefusalRecord
from node.api.report_records import CaseRecord, CasesPage, ReporterRecord, ReportersRecord
from node.api.stake_records import (
    NO_STAKE,
    HistoryProof,
    RecordProof,
    StakeRecord,
    UpdateRecord,
    ValidatorRecord,
    ValidatorsRecord,
)
from node.policies.attendant import PolicyReport

ReceiptOutcome = Literal["accepted", "refused", "rejected"]
TransactionStatus = Literal["pending", "final", "refused", "expired"]

EVENT_NAMES: Final = ("head", "finalized", "transaction", "verdict", "evidence", "model", "gap")


@dataclass(frozen=True, slots=True)
class StatusRecord:
    """What /v1/status tells. Hashes are 32 bytes, node_address 20; clock_ms is the chain's clock."""

    chain_id: str
    genesis_hash: bytes
    node_name: str
    node_address: bytes
    version: str
    head: Header
    finalized: Header
    clock_ms: int
    view: int
    epoch: int
    peers: int
    syncing: bool
    mempool_transactions: int
    mempool_bytes: int
    parameters: Parameters  # of the chain: what a client needs to choose fee and expiry
    model: ModelRecord | None  # the first that judges, and does not only watch; None if none does
    policies: tuple[PolicyReport, ...] = ()  # this node's own modules


class Receipt(NamedTuple):
    """A node's answer of the moment to one submitted transaction; a tuple, for one is made for each.

    accepted: in the mempool, or already known. refused: judged and refused. rejected: not valid here and
    now. code is a stable word for machines, reason one line for people (both empty when accepted).
    retry_ms > 0: the same bytes may fare better after that time (the pool is full, a nonce too far ahead).
    """

    id: bytes | None  # None when the bytes are no transaction
    outcome: ReceiptOutcome
    code: str = ""
    reason: str = ""
    score: int | None = None
    retry_ms: int = 0


@dataclass(frozen=True, slots=True)
class ModuleVerdict:
    """One module's explanation of one transaction.

    counterfactuals: changes with which this module would accept it; () where it does, None where nobody looked.
    """

    module: str
    explanation: Explanation
    counterfactuals: tuple[Counterfactual, ...] | None = None


@dataclass(frozen=True, slots=True)
class VerdictRecord:
    """The combined verdict on one transaction and each module's part in it.

    height: of the block whose state it was judged on (its parent's, for one that is in a block).
    """

    transaction: Transaction
    score: int
    outcome: int  # scoring.ACCEPT, FLAG, REFUSE
    height: int
    modules: tuple[ModuleVerdict, ...]


@dataclass(frozen=True, slots=True)
class TransactionRecord:
    """Where a transaction stands. height, index and block_hash are set once it is final."""

    transaction: Transaction
    status: TransactionStatus
    height: int | None = None
    index: int | None = None
    block_hash: bytes | None = None
    score: int | None = None
    outcome: int | None = None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BlockRecord:
    """A valid block on the branch of the head.

    certificate: its own finalization, or the nearest final descendant's, and then `headers` are those
    from the block's child to that descendant, oldest first. None while it is not final, and for genesis.
    """

    block: Block
    is_final: bool
    certificate: Certificate | None
    headers: tuple[Header, ...] = ()


@dataclass(frozen=True, slots=True)
class ModuleProfile:
    """A module's row of an account: the bytes of the state, and what they say by name (may be empty)."""

    module: str
    row: bytes
    values: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class AccountRecord:
    """An account after the last final block; zeros when the address was never used.

    nonce is the next one above all used; bit i of nonce_window is set when nonce - 1 - i was used.
    nonce_pending: the next one above those that wait in this node's mempool too, for the account's next
    transaction (None: none wait).
    """

    address: bytes
    balance: int
    nonce: int
    nonce_window: int
    stake: int
    height: int
    modules: tuple[ModuleProfile, ...] = ()
    nonce_pending: int | None = None
    stakes: StakeRecord = NO_STAKE


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Final transactions of an account, newest first; `before` asks for the next page, None at the end."""

    records: tuple[TransactionRecord, ...]
    before: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class TransactionProof:
    """RFC 6962 inclusion of leaf(id, score, outcome) in the header's transactions_root, and its finality.

    history_proof: inclusion of the block's hash, at its height, in the history_root of the final block at
    anchor_height (what a fraud report carries); empty when the block is itself the last final one.
    """

    header: Header
    index: int
    tree_size: int
    siblings: tuple[bytes, ...]
    certificate: Certificate | None
    headers: tuple[Header, ...]  # as in BlockRecord
    anchor_height: int
    history_proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class AccountProof:
    """A proof of the account's row against the header's state_root; `proof` is its canonical encoding."""

    header: Header
    proof: bytes
    certificate: Certificate | None
    headers: tuple[Header, ...]


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """A configured or connected peer. height: the last final block it told of, None when unknown."""

    name: str
    node_key: bytes
    endpoint: str
    direction: Literal["inbound", "outbound"]
    is_connected: bool
    height: int | None


@dataclass(frozen=True, slots=True)
class MempoolEntry:
    transaction: Transaction
    score: int | None


@dataclass(frozen=True, slots=True)
class MempoolPage:
    """Counts of the whole mempool and some of its entries, in the order a proposer would take them."""

    transactions: int
    bytes_total: int
    entries: tuple[MempoolEntry, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. Ids rise, also across restarts; `data` is ready for JSON."""

    id: int
    name: str  # one of EVENT_NAMES; "gap" says that events in between are lost
    data: Mapping[str, Any]


class NodeDoor(Protocol):
    """What the API asks of a node."""

    def get_status(self) -> StatusRecord: ...

    def is_ready(self) -> bool:
        """Whether the node serves current state: started, not catching up, not stopped by a Fault."""
        ...

    def get_wait_ms(self) -> int:
        """How long a client should wait before it submits anything, ms; 0: not at all."""
        ...

    async def submit(self, raws: Sequence[bytes]) -> list[Receipt]:
        """Take in encoded transactions; one receipt each, in order. A bad one never spoils its neighbours."""
        ...

    async def score(self, transaction: Transaction) -> VerdictRecord:
        """The verdict it would get on the last final block. Its signature, nonce and fee mean nothing here."""
        ...

    def get_transaction(self, transaction_id: bytes) -> TransactionRecord | None: ...

    async def explain(self, transaction_id: bytes) -> VerdictRecord | None:
        """The verdict of record on a known transaction, explained again on the state it was judged on."""
        ...

    def get_block(self, key: int | bytes | Literal["head", "finalized"]) -> BlockRecord | None:
        """By height, by hash (32 bytes), or the highest valid or final one."""
        ...

    def get_blocks(self, first: int, limit: int) -> Iterator[BlockRecord]:
        """Blocks of the head's branch from height `first` upwards, read one at a time."""
        ...

    def get_account(self, address: bytes) -> AccountRecord: ...

    def get_account_history(self, address: bytes, before: tuple[int, int] | None, limit: int) -> HistoryPage:
        """Final transactions sent or received below (height, index) `before`, newest first."""
        ...

    def prove_transaction(self, transaction_id: bytes) -> TransactionProof | None:
        """None unless it is final."""
        ...

    def prove_account(self, address: bytes) -> AccountProof | None:
        """Against the last final state root; None when the address has no account (absence is not proven)."""
        ...

    def get_validators(self) -> ValidatorsRecord: ...

    def get_validator(self, operator: bytes) -> ValidatorRecord | None:
        """The validator that this account operates, with or without a seat."""
        ...

    def get_case(self, tx: Transaction) -> CaseRecord | None:
        """What was reported about a transaction; None: nothing is on record."""
        ...

    def get_cases(self, after: bytes, limit: int, *, is_disputed: bool) -> CasesPage:
        """Reported transfers above the place `after` (empty: from the first), or those under dispute."""
        ...

    def get_reporters(self) -> ReportersRecord: ...

    def get_reporter(self, address: bytes) -> ReporterRecord | None:
        """None: it may not report, and never could."""
        ...

    def get_genesis(self) -> bytes:
        """The chain's genesis file, JSON."""
        ...

    def get_update(self, height: int | None) -> UpdateRecord | None:
        """Of the final block at this height (None: the last); None above it, and of forgotten epochs."""
        ...

    def prove_history(self, height: int, anchor_height: int) -> HistoryProof | None:
        """None unless both blocks are final and the first is below the second."""
        ...

    def prove_record(self, key: bytes) -> RecordProof:
        """Against the last final state root; absence is proven too."""
        ...

    def get_peers(self) -> tuple[PeerRecord, ...]: ...

    def get_mempool(self, limit: int) -> MempoolPage: ...

    def get_models(self) -> ModelsRecord: ...

    async def compare_model(self, digest: bytes) -> ComparisonRecord | None:
        """What this node's shadow log says of a model; None when it has nothing on it."""
        ...

    def get_refusal(self, transaction_id: bytes) -> RefusalRecord | None: ...

    def get_refusals(self, first: int, limit: int) -> RefusalPage:
        """Entries of this node's log from number `first` on."""
        ...

    def prove_refusals(self, first: int, second: int | None) -> ConsistencyProof:
        """That the log with `first` entries begins the one with `second` (None: all). Raises Rejected."""
        ...

    def subscribe(self, last_event_id: int | None) -> AsyncIterator[Event]:
        """Events after that id (a "gap" first, if some are lost); from now on when None."""
        ...
