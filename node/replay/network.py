"""All that a replay asks of a network: a small door, so that tests put a hostile network behind it.

Nodes are known by their place in the list that was given. Invariant: a call either answers or raises
`NodeAway` (down, busy, not ready: try it later or ask another); nothing here decides what to do then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from consensus import codec, crypto
from consensus.block import BLOCK_BYTES_MAX, BLOCK_TRANSACTIONS_MAX, HEADER_BYTES_MAX, Header, decode_header
from consensus.errors import NotYet
from consensus.parameters import Parameters
from consensus.vote import CERTIFICATE_BYTES_MAX

ITEMS_MAX = 2 * BLOCK_TRANSACTIONS_MAX + 16  # of a block: its transactions, their scores, a few more


class NodeAway(NotYet):
    """A node did not answer, or asked to be left alone for `retry_ms`."""

    def __init__(self, problem: str, *, retry_ms: int = 0) -> None:
        super().__init__(problem, code="away")
        self.retry_ms = retry_ms


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node's last final block, and its chain. clock_ms is the chain's clock."""

    chain_id: str
    genesis_hash: bytes
    final_height: int
    clock_ms: int
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class Answer:
    """A node's answer of the moment to one transaction; retry_ms > 0: the same bytes may fare better then."""

    outcome: str  # accepted, refused, rejected
    code: str = ""
    reason: str = ""
    score: int | None = None
    retry_ms: int = 0


@dataclass(frozen=True, slots=True)
class Holding:
    """An account after the last final block. nonce: the next one above all used."""

    balance: int
    nonce: int


@dataclass(frozen=True, slots=True)
class Reason:
    """One line of a verdict: what a module saw, and how much it moved the margin."""

    words: str
    contribution: int


@dataclass(frozen=True, slots=True)
class Explained:
    """A verdict on one transaction in words, strongest reason first."""

    score: int
    outcome: str
    reasons: tuple[Reason, ...]


class NetworkClient(Protocol):
    """`node` is an index into `names`. Every method may raise NodeAway."""

    @property
    def names(self) -> tuple[str, ...]:
        """One per node: its API's base URL."""
        ...

    async def get_status(self, node: int) -> NodeStatus: ...

    async def submit(self, node: int, raws: Sequence[bytes]) -> list[Answer]:
        """One answer each, in order."""
        ...

    async def wait_final(self, node: int, above: int, timeout_ms: int) -> int:
        """The node's final height, as soon as it is above `above` or the time is over."""
        ...

    async def watch_refusals(self, node: int, on_refusal: Callable[[bytes, int], None]) -> None:
        """Call back with (id, score) whenever the node refuses a transaction, until it goes away."""
        ...

    async def get_block(self, node: int, height: int) -> bytes:
        """A final block as `consensus.block.encode_block` writes it."""
        ...

    async def get_block_hashes(self, node: int, first: int, end: int) -> list[bytes]:
        """Hashes of final blocks first..end-1; maybe fewer, at least one."""
        ...

    async def get_account(self, node: int, address: bytes) -> Holding: ...

    async def explain(self, node: int, transaction_id: bytes) -> Explained | None:
        """The verdict of record; None when this node knows none."""
        ...


@dataclass(frozen=True, slots=True)
class FinalBlock:
    """A final block as a client needs it: ids by hashing, no transaction decoded."""

    header: Header
    raws: tuple[bytes, ...]
    ids: tuple[bytes, ...]
    scores: tuple[int, ...]
    outcomes: bytes


def read_final_block(data: bytes) -> FinalBlock:
    """The block that `encode_block` wrote as `data`. Raises Rejected; a node is believed its body."""
    bytes_max = BLOCK_BYTES_MAX + 2 * CERTIFICATE_BYTES_MAX
    value = codec.decode(data, what="block", bytes_max=bytes_max, items_max=ITEMS_MAX)
    header_raw, raws, scores, outcomes, _ = codec.check_fields(value, 5, "block")
    header = decode_header(codec.check_bytes(header_raw, "header", length_max=HEADER_BYTES_MAX))
    return FinalBlock(header, raws, tuple(map(crypto.hash_bytes, raws)), scores, outcomes)
