"""Header and Block: what a view decides on.

A header commits to everything: the transactions *with their scores and outcomes*, the state after
them, every earlier block (an RFC 6962 root over their hashes), the modules that judged, the validator
set of its epoch and of the next one, and the parent's certificate as the proposer holds it.

Views count within an epoch. The first block of an epoch has the last of the one before as its parent, at
parent_view 0, and carries no certificate, as block 1 does: its parent is its epoch's genesis.

Invariant: `hash` is the tagged SHA-256 of the header's canonical bytes; it binds epoch, view, height,
parent view and hash, proposer and every root. Nothing local to a node stands in a block.
Leaves out: whether a block is valid; `consensus/ledger/` decides that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import starmap
from struct import Struct
from typing import Any, Final

from consensus import codec, crypto, merkle, vote
from consensus.errors import Rejected
from consensus.ledger import scoring
from consensus.transaction import Transaction, decode_transaction

HEADER_TAG: Final = b"assay/header/1"
HASH_BYTES: Final = 32
HEADER_BYTES_MAX: Final = 512  # eighteen fields: ten hashes, a key and seven numbers take 441
BLOCK_TRANSACTIONS_MAX: Final = 10_000  # keeps judging a block under the largest Delta
BLOCK_BYTES_MAX: Final = 4_000_000  # a full block crosses a 100 Mbit/s link in a third of a second
GENESIS_VIEW: Final = 0
_pack_leaf = Struct(">32sHB").pack


@dataclass(frozen=True, slots=True)
class Header:
    """Integers: epoch, view, height, times in ms. Hashes are 32 bytes, the proposer's key 33."""

    epoch: int
    view: int
    height: int
    parent_view: int
    parent_hash: bytes
    proposer: bytes
    timestamp_ms: int
    transaction_count: int
    transactions_root: bytes  # RFC 6962 over compute_leaf(...) of each transaction
    state_root: bytes  # after this block
    history_root: bytes  # RFC 6962 over the hashes of blocks 0..height-1
    modules_digest: bytes  # of the modules that judged this block (named in the parent's state)
    validators_digest: bytes  # of the set of `epoch`
    next_validators_digest: bytes  # of the set of the epoch after it
    certificate_digest: bytes  # SHA-256 of the parent's certificate in the body (of b"" for none)
    reveal: bytes = b""  # 32 bytes for the beacon, or nothing (ledger/beacon.py)
    refusal_count: int = 0  # how many refusals its proposer's log holds, and its root (refusal.py)
    refusal_root: bytes = merkle.EMPTY_ROOT
    raw: bytes = field(init=False, repr=False, compare=False)
    hash: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        raw = codec.encode(_pack_header(self))
        object.__setattr__(self, "raw", raw)
        # The chain id is bound through the genesis block, whose parent_hash is the genesis digest.
        object.__setattr__(self, "hash", crypto.hash_bytes(HEADER_TAG + raw))

    def __hash__(self) -> int:
        return hash(self.hash)


@dataclass(frozen=True, slots=True)
class Block:
    """A header and the body it commits to.

    scores: one integer 0..10000 per transaction (0 where none applies); outcomes: one byte per
    transaction (scoring.ACCEPT or FLAG). parent_certificate is None in the first block of an epoch alone.
    """

    header: Header
    transactions: tuple[Transaction, ...]
    scores: tuple[int, ...]
    outcomes: bytes
    parent_certificate: vote.Certificate | None
    _root: bytes | None = field(init=False, repr=False, compare=False, default=None)

    @property
    def hash(self) -> bytes:
        return self.header.hash

    def compute_transactions_root(self) -> bytes:
        """Of the body as it is here, whatever the header says; the second call remembers the first."""
        # 2 us a transaction, and asked for both when a body is matched with its header and when it is judged.
        root = self._root
        if root is None:
            root = compute_transactions_root(self.transactions, self.scores, self.outcomes)
            object.__setattr__(self, "_root", root)
        return root


def compute_leaf(transaction_id: bytes, score: int, outcome: int) -> bytes:
    """A leaf of `transactions_root`: id (32 bytes), score (2, big-endian), outcome (1)."""
    if len(transaction_id) != HASH_BYTES:
        raise ValueError(f"an id of {len(transaction_id)} bytes")  # packing would cut or fill it up
    return _pack_leaf(transaction_id, score, outcome)


def compute_transactions_root(
    transactions: Sequence[Transaction], scores: Sequence[int], outcomes: bytes
) -> bytes:
    ids = [tx.id for tx in transactions]  # 32 bytes each, whoever made the transaction
    return merkle.compute_root(list(starmap(_pack_leaf, zip(ids, scores, outcomes, strict=True))))


def is_link(header: Header, below: Header) -> bool:
    """Whether what makes this block final makes the one `below` final: it is its child, or a tail of it.

    A tail names its boundary block in `reveal`, however many tails lie between. That of another block is a layer of an onion,
    which its proposer could have made from the hash of anything; so the state must be the same: it holds that layer itself.
    """
    if header.epoch != below.epoch:
        return False
    named = (header.height, header.state_root, header.history_root, header.transaction_count, header.reveal)
    is_tail = named == (below.height, below.state_root, below.history_root, 0, below.hash)
    return header.parent_hash == below.hash or is_tail


def compute_certificate_digest(certificate: vote.Certificate | None) -> bytes:
    return crypto.hash_bytes(b"" if certificate is None else vote.encode_certificate(certificate))


def _pack_header(header: Header) -> tuple[Any, ...]:
    return (
        header.epoch,
        header.view,
        header.height,
        header.parent_view,
        header.parent_hash,
        header.proposer,
        header.timestamp_ms,
        header.transaction_count,
        header.transactions_root,
        header.state_root,
        header.history_root,
        header.modules_digest,
        header.validators_digest,
        header.next_validators_digest,
        header.certificate_digest,
        header.reveal,
        header.refusal_count,
        header.refusal_root,
    )


def decode_header(data: bytes) -> Header:
    """The header that `data` encodes. Raises Rejected."""
    value = codec.decode(data, what="header", bytes_max=HEADER_BYTES_MAX, items_max=19)
    fields = codec.check_fields(value, 18, "header")
    numbers = {0: "epoch", 1: "view", 2: "height", 3: "parent_view", 6: "timestamp_ms"}
    for place, name in numbers.items():
        codec.check_int(fields[place], f"header.{name}", high=codec.TIME_MS_MAX)
    codec.check_int(fields[7], "header.transaction_count", high=BLOCK_TRANSACTIONS_MAX)
    codec.check_bytes(fields[5], "header.proposer", length=crypto.KEY_BYTES)
    hashes = {
        4: "parent_hash",
        8: "transactions_root",
        9: "state_root",
        10: "history_root",
        11: "modules_digest",
        12: "validators_digest",
        13: "next_validators_digest",
        14: "certificate_digest",
        17: "refusal_root",
    }
    for place, name in hashes.items():
        codec.check_bytes(fields[place], f"header.{name}", length=HASH_BYTES)
    codec.check_bytes(fields[15], "header.reveal", length=HASH_BYTES if fields[15] else 0)
    codec.check_int(fields[16], "header.refusal_count", high=codec.MONEY_MAX)
    return Header(*fields)


def encode_block(block: Block) -> bytes:
    """header | transactions | scores | outcomes | certificate, as one canonical array."""
    certificate = block.parent_certificate
    return codec.encode(
        (
            block.header.raw,
            tuple(tx.raw for tx in block.transactions),
            block.scores,
            block.outcomes,
            b"" if certificate is None else vote.encode_certificate(certificate),
        )
    )


def decode_block(data: bytes) -> Block:
    """The block that `data` encodes; body and header are matched by `check_body`, called here."""
    items_max = 2 * BLOCK_TRANSACTIONS_MAX + 16
    value = codec.decode(
        data, what="block", bytes_max=BLOCK_BYTES_MAX + 2 * vote.CERTIFICATE_BYTES_MAX, items_max=items_max
    )
    header_raw, raws, scores, outcomes, certificate_raw = codec.check_fields(value, 5, "block")
    if type(raws) is not tuple or type(scores) is not tuple:
        raise Rejected("transactions and scores must be arrays", field="block", code="encoding")
    header = decode_header(codec.check_bytes(header_raw, "header", length_max=HEADER_BYTES_MAX))
    block = Block(
        header,
        tuple(
            decode_transaction(codec.check_bytes(raw, "transaction", length_max=BLOCK_BYTES_MAX))
            for raw in raws
        ),
        scores,
        codec.check_bytes(outcomes, "outcomes", length_max=BLOCK_TRANSACTIONS_MAX),
        decode_parent_certificate(certificate_raw),
    )
    check_body(block)
    return block


def decode_parent_certificate(data: Any) -> vote.Certificate | None:
    """The certificate a body carries: b"" stands for none."""
    raw = codec.check_bytes(data, "certificate", length_max=vote.CERTIFICATE_BYTES_MAX)
    return vote.decode_certificate(raw) if raw else None


def check_body(block: Block) -> None:
    """Raises Rejected unless the body is the one that the header commits to."""
    header = block.header
    counts = {len(block.transactions), len(block.scores), len(block.outcomes), header.transaction_count}
    if len(counts) != 1:
        raise Rejected(
            "transactions, scores, outcomes and count differ in number", field="block", code="body"
        )
    if block.scores and not (
        set(map(type, block.scores)) == {int}
        and 0 <= min(block.scores) <= max(block.scores) <= scoring.SCORE_MAX
    ):
        for score in block.scores:
            codec.check_int(score, "score", high=scoring.SCORE_MAX)  # names the first that is wrong
    if max(block.outcomes, default=scoring.ACCEPT) > scoring.FLAG:
        raise Rejected("must be accept (0) or flag (1)", field="block.outcomes", code="body")
    if block.compute_transactions_root() != header.transactions_root:
        raise Rejected("does not match the body", field="header.transactions_root", code="body")
    if compute_certificate_digest(block.parent_certificate) != header.certificate_digest:
        raise Rejected("does not match the body", field="header.certificate_digest", code="body")
