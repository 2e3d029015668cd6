"""Liars that lead: in their views they show a block that nobody may notarize, each wrong in its own way.

The honest node behind the liar builds a sound block; the liar alters it, commits to what it altered as
well as it can, signs it anew and serves its body. Honest nodes must find it invalid, name what is wrong,
nullify the view and go on; none of this is a fault of the peer that sent it, for judging takes state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from consensus import block as blocks
from consensus import crypto
from consensus.bft.contract import Proposal
from consensus.block import BLOCK_TRANSACTIONS_MAX, Block, Header
from consensus.ledger.scoring import ACCEPT, FLAG, REFUSE, SCORE_MAX
from consensus.ledger.state import View
from consensus.parameters import CLOCK_WORKLOAD
from consensus.transaction import Transaction
from consensus.vote import NOTARIZE, Certificate, Vote
from node.network.frames import (
    BlockBody,
    BodyTransactions,
    Frame,
    GetBlock,
    GetBodyTransactions,
)
from node.simulation.full_nodes.liars.liar import Frames, Liar, LiarMeans, pack_proposal

LIES_KEPT: Final = 64  # one for each view that it led lately
AMOUNTS: Final = tuple(10**power for power in range(1, 12))  # one of them is refused
PRESSURE: Final = 4  # payments in one breath, after which the next is refused


@dataclass(frozen=True, slots=True)
class Lie:
    """A block that it shows in place of an honest one."""

    proposal: Proposal
    block: Block
    in_place_of: bytes


class InvalidProposer(Liar):
    """One lie a view, the same for all: it is wrong, and not two-faced."""

    def __init__(self, means: LiarMeans) -> None:
        super().__init__(means)
        self.lies: dict[int, Lie] = {}  # by view

    # --- what each kind overrides ---------------------------------------------------------------------

    def spoil(self, block: Block, parent: View) -> Block | None:
        """The wrong block in place of this one; None: not this time."""
        raise NotImplementedError

    # --- how it is told -------------------------------------------------------------------------------

    def rewrite(self, frame: Frame, receiver: int) -> Frames:  # noqa: ARG002 - all hear the same
        message = self.read_message(frame)
        if message is None or not self.is_own(message):
            return (frame,)
        if isinstance(message, Vote) and self._is_replaced(message.subject.block_hash):
            return ()  # it never saw the block that it should have shown
        if not isinstance(message, Proposal):
            return (frame,)
        lie = self.lies.get(message.block.view) or self._lie(message)
        return (frame,) if lie is None else (pack_proposal(lie.proposal, lie.block),)

    def _lie(self, honest: Proposal) -> Lie | None:
        block = self.find_block(honest.block.hash)
        parent = self.node.chain.get_view(honest.block.parent_hash)
        spoiled = None if block is None or parent is None else self.spoil(block, parent)
        if spoiled is None:
            return None
        lie = Lie(self.sign_proposal(spoiled.header, honest), spoiled, honest.block.hash)
        self.lies[honest.block.view] = lie
        while len(self.lies) > LIES_KEPT:
            del self.lies[next(iter(self.lies))]
        return lie

    def _is_replaced(self, block_hash: bytes) -> bool:
        return any(lie.in_place_of == block_hash for lie in self.lies.values())

    def answer(self, frame: Frame, sender: int) -> Frames | None:  # noqa: ARG002 - all hear the same
        match frame:
            case GetBlock(block_hash) if (lie := self._find(block_hash)) is not None:
                return (BlockBody(block_hash, blocks.encode_block(lie)),)
            case GetBodyTransactions(block_hash, places) if (lie := self._find(block_hash)) is not None:
                raws = tuple(lie.transactions[place].raw for place in places)
                return (BodyTransactions(block_hash, places, raws),)
            case _:
                return None

    def _find(self, block_hash: bytes) -> Block | None:
        return next((lie.block for lie in self.lies.values() if lie.block.hash == block_hash), None)

    # --- tools ----------------------------------------------------------------------------------------

    def fill(self, block: Block, parent: View) -> Block:
        """The block, or one with a payment of the liar's in it where it is empty: sound both ways."""
        if block.transactions:
            return block
        account = parent.get_account(self.means.account_key.address)
        nonce = 0 if account is None else account.nonce_next
        transfer = self.sign_transfer(max(block.header.timestamp_ms, parent.header.timestamp_ms), nonce=nonce)
        return self.rebuild(block, parent, (transfer,))

    def rebuild(self, block: Block, parent: View, transactions: Sequence[Transaction]) -> Block:
        """What the honest rules make of these, in this block's place."""
        header = block.header
        return self.rules.build_block(
            parent,
            transactions,
            epoch=header.epoch,
            view_number=header.view,
            proposer_key=header.proposer,
            now_ms=header.timestamp_ms,
            certificate=block.parent_certificate,
        ).block


class WrongScore(InvalidProposer):
    """One transaction's score is one unit off."""

    def spoil(self, block: Block, parent: View) -> Block | None:
        block = self.fill(block, parent)
        if not block.transactions:
            return None
        place = self.rng.randrange(len(block.scores))
        step = -1 if block.scores[place] == SCORE_MAX else 1
        scores = [*block.scores]
        scores[place] += step
        return commit(replace(block, scores=tuple(scores)))


class WrongStateRoot(InvalidProposer):
    """It says that the state is another one after the block."""

    def spoil(self, block: Block, parent: View) -> Block | None:  # noqa: ARG002 - as InvalidProposer has it
        return alter(block, state_root=crypto.hash_bytes(block.header.state_root))


class WrongHead(InvalidProposer):
    """It commits to a log of refusals that cannot be: some, with the root of none, or the other way round."""

    def spoil(self, block: Block, parent: View) -> Block | None:  # noqa: ARG002 - as above
        if block.header.refusal_count:
            return alter(block, refusal_count=0)
        return alter(block, refusal_count=1 + self.rng.randrange(9))


class RefusedIncluded(InvalidProposer):
    """It includes, as merely flagged, what the modules refuse. (As refused it is no block by its form.)"""

    def spoil(self, block: Block, parent: View) -> Block | None:
        account = parent.get_account(self.means.account_key.address)
        nonce = 0 if account is None else account.nonce_next
        now_ms = max(block.header.timestamp_ms, parent.header.timestamp_ms)
        for amount in AMOUNTS:
            hasty = [self.sign_transfer(now_ms, amount=amount, nonce=nonce + i) for i in range(PRESSURE)]
            verdicts = self.rules.evaluate(parent, hasty)
            if (verdicts.outcome == REFUSE).any():
                scores = tuple(verdicts.score.tolist())
                outcomes = bytes(FLAG if outcome else ACCEPT for outcome in verdicts.outcome.tolist())
                return commit(replace(block, transactions=tuple(hasty), scores=scores, outcomes=outcomes))
        return None  # this chain's modules refuse nothing


class OversizeBlock(InvalidProposer):
    """More transactions than a block may hold."""

    _transfers: tuple[Transaction, ...] = ()  # the same in every lie: thousands take long to sign

    def spoil(self, block: Block, parent: View) -> Block | None:  # noqa: ARG002 - as above
        count = self.rules.parameters.block_transactions_max + 1
        if count > BLOCK_TRANSACTIONS_MAX:
            return None  # such a block is no block by its form
        if not self._transfers:
            now_ms = block.header.timestamp_ms
            self._transfers = tuple(self.sign_transfer(now_ms) for _ in range(count))
        scores, outcomes = (0,) * count, bytes(count)
        return commit(replace(block, transactions=self._transfers, scores=scores, outcomes=outcomes))


class WrongParent(InvalidProposer):
    """On a block that nobody has; the certificate that it shows is another block's."""

    def spoil(self, block: Block, parent: View) -> Block | None:  # noqa: ARG002 - as above
        return alter(block, parent_hash=self.rng.randbytes(32))


class WrongHeight(InvalidProposer):
    """A height that does not follow the parent's."""

    def spoil(self, block: Block, parent: View) -> Block | None:  # noqa: ARG002 - as above
        height = block.header.height
        return alter(block, height=self.rng.choice([0, height - 1, height + 1, height + 1_000, 1 << 40]))


class EarlyBlock(InvalidProposer):
    """Of a time before its parent's."""

    def spoil(self, block: Block, parent: View) -> Block | None:
        return alter(block, timestamp_ms=max(0, parent.header.timestamp_ms - 1))


class LateBlock(InvalidProposer):
    """Of a time that no clock shows yet: an hour ahead."""

    def spoil(self, block: Block, parent: View) -> Block | None:
        parameters = self.rules.parameters
        ahead_ms = 3_600_000 + parameters.clock_drift_ms_max
        if parameters.clock == CLOCK_WORKLOAD:
            ahead_ms = parameters.clock_jump_ms_max + 1
        return alter(block, timestamp_ms=parent.header.timestamp_ms + ahead_ms)


class SwappedCertificate(InvalidProposer):
    """The body's certificate is not the parent's: cut short, forged, or another than the header binds."""

    def spoil(self, block: Block, parent: View) -> Block | None:  # noqa: ARG002 - as above
        certificate = block.parent_certificate
        if certificate is None:
            return None
        pairs = certificate.signatures
        forged = (*pairs[:-1], (pairs[-1][0], self.rng.randbytes(64)))
        other = replace(certificate.subject, view=certificate.subject.view + 1, kind=NOTARIZE)
        way = self.rng.randrange(4)
        if way == 0:
            return alter(block, certificate_digest=self.rng.randbytes(32))
        lies = (
            replace(certificate, signatures=pairs[:1]),
            Certificate(certificate.subject, forged),
            replace(certificate, subject=other),
        )
        return commit(replace(block, parent_certificate=lies[way - 1]))


class BadSignature(InvalidProposer):
    """It includes a payment that nobody signed."""

    def spoil(self, block: Block, parent: View) -> Block | None:  # noqa: ARG002 - as above
        transfer = replace(self.sign_transfer(block.header.timestamp_ms), signature=self.rng.randbytes(64))
        return append(block, transfer)


class DoubledTransaction(InvalidProposer):
    """It includes what is final in an earlier block. (Twice in one block is refused by the frame's form.)"""

    def spoil(self, block: Block, parent: View) -> Block | None:  # noqa: ARG002 - as above
        store = self.node.store
        earlier = [store.get_block_at(height) for height in range(1, store.finalized_height + 1)]
        spent = [tx for final in earlier if final is not None for tx in final.transactions]
        here, now_ms = {tx.id for tx in block.transactions}, block.header.timestamp_ms
        spent = [tx for tx in spent if tx.id not in here and tx.expires_ms >= now_ms]
        return append(block, self.rng.choice(spent)) if spent else None


def alter(block: Block, **fields: object) -> Block:
    """The block with other header fields."""
    return replace(block, header=replace(block.header, **fields))  # type: ignore[arg-type]


def commit(block: Block) -> Block:
    """The block with a header that commits to its body."""
    header: Header = replace(
        block.header,
        transaction_count=len(block.transactions),
        transactions_root=blocks.compute_transactions_root(block.transactions, block.scores, block.outcomes),
        certificate_digest=blocks.compute_certificate_digest(block.parent_certificate),
    )
    return replace(block, header=header)


def append(block: Block, transaction: Transaction) -> Block:
    """The block with one transaction more, and a header that commits to it."""
    return commit(
        replace(
            block,
            transactions=(*block.transactions, transaction),
            scores=(*block.scores, 0),
            outcomes=block.outcomes + bytes((ACCEPT,)),
        )
    )
