"""The frames: what two nodes say to each other, as frozen nouns, and how large each may be.

Invariant: a closed union; adding, removing or changing a frame raises PROTOCOL_VERSION.
The compact proposal follows BIP 152, with whole ids: a short id saves little and can be ground.
A connection that is not yet proven carries Hello, Proof, Welcome and Goodbye only (`handshake.py`).
Leaves out: their byte form (`wire.py`), and what is inside a packed engine message, block or transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from consensus import vote
from consensus.block import BLOCK_BYTES_MAX

PROTOCOL_VERSION: Final = 1  # in the hello; any change of a frame's form raises it
HASH_BYTES: Final = 32
NONCE_BYTES: Final = 32

BLOCK_RAW_BYTES_MAX: Final = BLOCK_BYTES_MAX + 2 * vote.CERTIFICATE_BYTES_MAX  # what decode_block takes
LINKS_MAX: Final = 256  # headers between a final block and the descendant certified for it, and one tail more
# The largest frame is one full block with the proof that it is final: 4.15 MB, 0.07 and 0.13 MB. A limit of
# aiohttp's 4 MiB would cut full blocks off; every byte more is memory that a stranger can make us hold.
FRAME_BYTES_MAX: Final = 4_500_000
ENGINE_MESSAGE_BYTES_MAX: Final = 1_500_000  # a proposal with a score of nullifications of 1,024 validators
FINAL_BLOCKS_MAX: Final = 512  # a frame fills with small blocks before it is worth more
ANNOUNCE_IDS_MAX: Final = 4096  # 128 kB: a second and more of the traffic of four validators
REASON_LENGTH_MAX: Final = 256  # one line for a log
URL_LENGTH_MAX: Final = 256  # a DNS name takes 253; nobody needs more for a peer

INITIATOR: Final = 0  # who dialled
RESPONDER: Final = 1


@dataclass(frozen=True, slots=True)
class Hello:
    """First frame each way. role: INITIATOR or RESPONDER; listen_url: where we can be dialled, or ""."""

    version: int
    chain_id: str
    genesis_hash: bytes
    role: int
    node_key: bytes
    nonce: bytes
    listen_url: str


@dataclass(frozen=True, slots=True)
class Proof:
    """The signature (64 bytes) by which a node proves its key; see `handshake.compute_digest`."""

    signature: bytes


@dataclass(frozen=True, slots=True)
class Welcome:
    """The responder takes this connection: nothing but the handshake is sent before it."""


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The last frame. code: a short stable word; reason: a line for a person."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Status:
    """Where the sender stands; sent on connecting and after finalizations, the newest replaces older ones."""

    epoch: int
    head_height: int
    final_height: int
    final_view: int
    final_hash: bytes


@dataclass(frozen=True, slots=True)
class EngineMessage:
    """A packed vote, certificate or certificate request of the consensus engine."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class CompactProposal:
    """A packed proposal, and the block's body with ids in place of transactions (one score and outcome each).

    parent_certificate: the body's encoded copy of the parent's certificate, b"" above genesis.
    """

    proposal: bytes
    ids: tuple[bytes, ...]
    scores: tuple[int, ...]
    outcomes: bytes
    parent_certificate: bytes


@dataclass(frozen=True, slots=True)
class GetBodyTransactions:
    """Asks for the transactions at these places (rising) of a proposed block's body."""

    block_hash: bytes
    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BodyTransactions:
    """Answers GetBodyTransactions: one raw transaction per index, of what the sender has (maybe none)."""

    block_hash: bytes
    indices: tuple[int, ...]
    raws: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class GetBlock:
    block_hash: bytes


@dataclass(frozen=True, slots=True)
class BlockBody:
    """Answers GetBlock: the encoded block, or b"" when the sender does not have it (no fault)."""

    block_hash: bytes
    raw: bytes


@dataclass(frozen=True, slots=True)
class Announce:
    """The sender can serve these transactions."""

    ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class GetTransactions:
    ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Transactions:
    """Raw transactions, asked for or pushed by the node that first received them."""

    raws: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class GetFinalBlocks:
    from_height: int
    count: int


@dataclass(frozen=True, slots=True)
class FinalBlocks:
    """Encoded final blocks from `from_height` up, and why the last of them is final (all empty: have none).

    certificate: the last block's own finalization, or its nearest final descendant's; then `links` are the
    encoded headers from the last block's child up to that descendant.
    """

    from_height: int
    raws: tuple[bytes, ...]
    certificate: bytes
    links: tuple[bytes, ...]


Frame = (
    Hello
    | Proof
    | Welcome
    | Goodbye
    | Status
    | EngineMessage
    | CompactProposal
    | GetBodyTransactions
    | BodyTransactions
    | GetBlock
    | BlockBody
    | Announce
    | GetTransactions
    | Transactions
    | GetFinalBlocks
    | FinalBlocks
)
