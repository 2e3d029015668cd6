"""What every liar is: a whole honest node whose frames are rewritten on the way out, and answered on the way in.

A new liar is a class of some twenty lines: override `rewrite` (a frame and its receiver in, any frames out)
or `answer` (a frame and its sender in: what goes back, or None to let the node take it), and list it in
`node.simulation.full_nodes.liars`. It signs what it alters with its own keys, or nobody looks at it.

Invariant: a liar draws chance from its own generator alone, so that a run replays.
Leaves out: lies of engines about votes and views (`node.simulation.villains`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from consensus.bft.contract import Message, Proposal
from consensus.bft.messages import decode_message, encode_message
from consensus.block import Block, Header
from consensus.crypto import PrivateKey
from consensus.ledger.rules import Rules
from consensus.transaction import Transaction, sign_transaction
from consensus.vote import NOTARIZE, Subject, Vote, encode_certificate
from node.full_node import FullNode
from node.network.frames import CompactProposal, EngineMessage, Frame

Frames = tuple[Frame | bytes, ...]  # bytes are put on the wire as they are

NONCE_MAX: Final = 1 << 40  # the liar's own payments are numbered at random up to here: nobody takes them


@dataclass(frozen=True, slots=True)
class LiarMeans:
    """What a liar has. index: of host and validator. account_key: a funded account of its own.

    get_node: its FullNode of this life, None while there is none.
    """

    index: int
    rules: Rules
    validator_key: PrivateKey
    account_key: PrivateKey
    get_node: Callable[[], FullNode | None]
    rng: random.Random


class Liar:
    """Rewrites nothing."""

    def __init__(self, means: LiarMeans) -> None:
        self.means = means
        self.rng = means.rng
        self.rules = means.rules

    # --- what a liar overrides ------------------------------------------------------------------------

    def rewrite(self, frame: Frame, receiver: int) -> Frames:  # noqa: ARG002 - for those who override it
        """What goes to `receiver` instead of this frame; asked once for each receiver of a broadcast."""
        return (frame,)

    def answer(self, frame: Frame, sender: int) -> Frames | None:  # noqa: ARG002 - as above
        """What goes back to `sender`, the node never seeing this frame; None: the node takes it."""
        return None

    # --- its tools ------------------------------------------------------------------------------------

    @property
    def node(self) -> FullNode:
        """The honest node behind it, which runs whenever something is sent or answered."""
        node = self.means.get_node()
        assert node is not None
        return node

    def read_message(self, frame: Frame) -> Message | None:
        """The engine's message in a frame of its own node."""
        match frame:
            case EngineMessage(raw) | CompactProposal(raw):
                return decode_message(raw, self.node.chain.read_block)
            case _:
                return None

    def is_own(self, message: Message) -> bool:
        """Whether it is a proposal or vote of this validator."""
        match message:
            case Proposal():
                return message.block.proposer == self.node.own_index
            case Vote():
                return message.signer == self.node.own_index
            case _:
                return False

    def find_block(self, block_hash: bytes) -> Block | None:
        """A block that its own node has."""
        node = self.node
        return node.chain.get_block(block_hash) or node.store.get_block(block_hash)

    def sign_proposal(self, header: Header, honest: Proposal) -> Proposal:
        """The proposal of a block with this header, justified as the honest one is."""
        subject = Subject(header.epoch, NOTARIZE, header.view, header.hash)
        digest = subject.compute_digest(self.rules.chain_id)
        block = self.node.chain.read_block(header.raw)
        vote = Vote(subject, block.proposer, self.means.validator_key.sign(digest))
        return Proposal(block, header.raw, vote, honest.parent_certificate, honest.nullifications)

    def sign_transfer(self, now_ms: int, *, amount: int = 1, nonce: int | None = None) -> Transaction:
        """From its own account to itself."""
        parameters, key = self.rules.parameters, self.means.account_key
        return sign_transaction(
            key,
            self.rules.chain_id,
            nonce=self.rng.randrange(NONCE_MAX) if nonce is None else nonce,
            receiver=key.address,
            amount=amount,
            fee=parameters.fee_units_min,
            timestamp_ms=now_ms,
            expires_ms=now_ms + parameters.lifetime_ms_max,
        )


def pack_proposal(proposal: Proposal, block: Block, ids: Sequence[bytes] | None = None) -> CompactProposal:
    """The frame in which a proposal travels. `ids`: in place of those of the block's transactions."""
    certificate = block.parent_certificate
    return CompactProposal(
        encode_message(proposal),
        tuple(tx.id for tx in block.transactions) if ids is None else tuple(ids),
        block.scores,
        block.outcomes,
        b"" if certificate is None else encode_certificate(certificate),
    )
