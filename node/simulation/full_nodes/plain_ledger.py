"""A ledger in plain Python, by which final chains are reckoned anew: who has what, and what may never happen.

Written from the protocol's pages and not from `consensus/ledger/`: dictionaries and sets, one transaction
after another, trees by the definition of RFC 6962. Nothing here scores; an observer that executes the
chain with the chain's own rules does (`ledger_checkers.py`).

With epochs, fees and what is bonded leave the accounts for pools (`plain_stakes.py`).
Invariant: `apply` raises Violation at the first broken promise, whose name its complaint begins with; after
every block all money is counted. Source: ledger.md.
Leaves out: state roots, and the proofs that reports carry (what they prove is looked up instead).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from consensus import codec, crypto, vote
from consensus.block import Block, Header, decode_header
from consensus.genesis import Genesis
from consensus.parameters import CLOCK_WORKLOAD
from consensus.transaction import (
    KIND_APPROVE_MOTION,
    KIND_DISPUTE_REPORT,
    KIND_PUBLISH_MODEL,
    KIND_TRANSFER,
    KIND_WITHDRAW_REPORT,
    PAYLOAD_BYTES_MAX,
    Transaction,
    compute_signing_digest,
)
from consensus.vote import Certificate, Validator, Verifier
from node.simulation.checkers import Violation
from node.simulation.full_nodes.plain_models import PlainModels
from node.simulation.full_nodes.plain_stakes import STAKING_KINDS, PlainStakes

NONCE_REACH: Final = 64  # ledger.md: an account keeps its highest nonce and a window of 64 bits
REFUSED: Final = 2  # the third outcome, which no block holds
MODEL_KINDS: Final = (KIND_PUBLISH_MODEL, KIND_APPROVE_MOTION)
PAYLOAD_ITEMS_MAX: Final = 256  # of a report: two proofs of 64 hashes at most


@dataclass(slots=True)
class PlainCase:
    """A reported transfer: who reported it and when, who took that back, when it was told of, a deposit on it."""

    reported: Transaction
    standing: dict[bytes, int] = field(default_factory=dict)
    withdrawn: set[bytes] = field(default_factory=set)
    newest_ms: int = 0
    told_height: int = 0
    deposit: int | None = None


@dataclass(slots=True)
class PlainAccount:
    """What one address has. used: every nonce it ever used."""

    balance: int = 0
    stake: int = 0
    used: set[int] = field(default_factory=set)

    @property
    def nonce_next(self) -> int:
        return max(self.used, default=-1) + 1

    @property
    def nonce_window(self) -> int:
        """Bit i: nonce_next - 1 - i was used."""
        top = self.nonce_next - 1
        return sum(1 << back for back in range(NONCE_REACH) if top - back in self.used)


class PlainLedger:
    """One chain from genesis on, block by block. row_bytes: what creating an account is charged for."""

    def __init__(
        self,
        genesis: Genesis,
        first: Header,
        row_bytes: int,
        verify: Verifier = crypto.verify,
        sound_models: Mapping[bytes, bytes] | None = None,
    ) -> None:
        """`first`: the header of block 0, which names no account. sound_models: as `PlainModels` wants them."""
        self.genesis = genesis
        self.headers = [first]
        self.blocks: list[Block] = []  # number h - 1 is that of height h
        self.accounts: dict[bytes, PlainAccount] = {}
        self.places: dict[bytes, tuple[int, int]] = {}  # transaction id -> (height, index)
        self.reported: dict[bytes, PlainCase] = {}  # by the transfer's id
        self._row_bytes = row_bytes
        self._verify = verify
        self._epoch_blocks = genesis.parameters.epoch_blocks
        self.stakes = PlainStakes(genesis, verify) if self._epoch_blocks else None
        self.models = PlainModels(genesis, sound_models or {})
        for address, balance in genesis.accounts:
            self._open(address).balance = balance
        for member in genesis.validators.validators:
            account = self._open(crypto.compute_address(member.public_key))
            account.stake = 0 if self._epoch_blocks else member.stake
        self._genesis_units = self.count_money()

    @property
    def height(self) -> int:
        return self.headers[-1].height

    def _open(self, address: bytes) -> PlainAccount:
        return self.accounts.setdefault(address, PlainAccount())

    @property
    def supply(self) -> int:
        """Genesis, and with epochs what was issued since, less what was burned."""
        return self._genesis_units if self.stakes is None else self.stakes.supply

    def count_money(self) -> int:
        """Wherever it lies."""
        deposits = sum(case.deposit or 0 for case in self.reported.values())
        held = deposits + sum(account.balance + account.stake for account in self.accounts.values())
        return held if self.stakes is None else held + self.stakes.count_money()

    def count_bonded(self, address: bytes) -> int:
        """What this account has at stake."""
        return self.accounts[address].stake if self.stakes is None else self.stakes.count_bonded(address)

    def _find_members(self, epoch: int) -> Sequence[Validator]:
        return self.genesis.validators.validators if self.stakes is None else self.stakes.list_members(epoch)

    def apply(self, block: Block) -> None:
        """The next block. Raises Violation; the ledger is of no use after that."""
        header, parent = block.header, self.headers[-1]
        self._check_place(header, parent)
        self._check_body(block)
        self._check_certificate(block.parent_certificate, header, parent)
        self._check_time(block, parent)
        fees = 0
        for index, tx in enumerate(block.transactions):
            self._check_once(tx, header.height)
            self._check_times(tx, header)
            self._pay(tx, header.height)
            self._check_kind(tx, header)
            self.places[tx.id] = (header.height, index)
            fees += tx.fee
        if self.stakes is None:
            self._open(crypto.compute_address(header.proposer)).balance += fees
        else:
            self.stakes.close_block(header, block.parent_certificate, fees)
        if (money := self.count_money()) != self.supply:
            raise Violation(
                f"money: after block {header.height} there are {money} of a supply of {self.supply}"
            )
        self.models.close(header.height)
        self.headers.append(header)
        self.blocks.append(block)

    # --- the block --------------------------------------------------------------------------------------

    def _check_place(self, header: Header, parent: Header) -> None:
        told = (header.height, header.parent_hash, header.epoch, header.parent_view)
        height, blocks = parent.height + 1, self._epoch_blocks
        is_first = blocks > 0 and height % blocks == 1  # of an epoch, in which views begin anew
        parent_view = 0 if is_first else parent.view
        epoch = (height - 1) // blocks if blocks else 0
        if told != (height, parent.hash, epoch, parent_view) or header.view <= parent_view:
            raise Violation(
                f"one chain: block {header.height} of view {header.view} does not follow block "
                f"{parent.height} of view {parent.view}"
            )
        if header.proposer not in {member.public_key for member in self._find_members(epoch)}:
            raise Violation(f"proposers: block {header.height} is nobody's")
        if header.history_root != compute_root([entry.hash for entry in self.headers]):
            raise Violation(f"history: block {header.height} commits to another past")
        if (header.refusal_count == 0) != (header.refusal_root == compute_root([])):
            raise Violation(f"refusal logs: block {header.height} carries a head that no log has")

    def _check_body(self, block: Block) -> None:
        header, parameters = block.header, self.genesis.parameters
        count, size = len(block.transactions), sum(len(tx.raw) for tx in block.transactions)
        if not count == header.transaction_count == len(block.scores) == len(block.outcomes):
            raise Violation(f"bodies: block {header.height} has {count} transactions and tells otherwise")
        if count > parameters.block_transactions_max or size > parameters.block_bytes_max:
            raise Violation(f"sizes: block {header.height} has {count} transactions of {size} bytes")
        leaves = []
        for tx, score, outcome in zip(block.transactions, block.scores, block.outcomes, strict=True):
            leaves.append(tx.id + score.to_bytes(2, "big") + bytes((outcome,)))
            refuse_min = self.models.refuse_score_min
            if outcome >= REFUSED or (refuse_min is not None and score >= refuse_min):
                raise Violation(
                    f"refusals: block {header.height} holds a refused transaction 0x{tx.id.hex()}"
                )
        if header.transactions_root != compute_root(leaves):
            raise Violation(f"bodies: block {header.height} commits to other transactions")

    def _check_certificate(self, certificate: Certificate | None, header: Header, parent: Header) -> None:
        if certificate is None:
            if parent.height > 0 and parent.epoch == header.epoch:
                raise Violation(f"certificates: block {parent.height + 1} carries none of its parent")
            return
        subject = certificate.subject
        about = (subject.epoch, subject.view, subject.block_hash)
        if subject.kind == vote.NULLIFY or about != (header.epoch, parent.view, parent.hash):
            raise Violation(f"certificates: block {parent.height + 1} carries another block's")
        self.check_quorum(certificate)

    def check_quorum(self, certificate: Certificate) -> None:
        """Raises Violation unless distinct validators with more than two thirds of the stake signed it."""
        digest = certificate.subject.compute_digest(self.genesis.chain_id)
        members = self._find_members(certificate.subject.epoch)
        signed = {
            signer
            for signer, signature in certificate.signatures
            if 0 <= signer < len(members) and self._verify(members[signer].public_key, digest, signature)
        }
        stake, total = sum(members[i].stake for i in signed), sum(m.stake for m in members)
        if len(signed) != len(certificate.signatures) or not 3 * stake > 2 * total:
            raise Violation(
                f"certificates: one of view {certificate.subject.view} shows {stake} of {total} stake"
            )

    def _check_time(self, block: Block, parent: Header) -> None:
        header, parameters = block.header, self.genesis.parameters
        is_right = header.timestamp_ms >= parent.timestamp_ms
        if parameters.clock == CLOCK_WORKLOAD:
            latest_ms = max([parent.timestamp_ms, *(tx.timestamp_ms for tx in block.transactions)])
            jump_ms = header.timestamp_ms - parent.timestamp_ms
            is_right = header.timestamp_ms == latest_ms and jump_ms <= parameters.clock_jump_ms_max
        if not is_right:
            raise Violation(
                f"times: block {header.height} is of {header.timestamp_ms}, after {parent.timestamp_ms}"
            )

    # --- a transaction --------------------------------------------------------------------------------

    def _check_once(self, tx: Transaction, height: int) -> None:
        if tx.id in self.places:
            raise Violation(f"once: transaction 0x{tx.id.hex()} is final twice, again in block {height}")
        if not self._verify(tx.public_key, compute_signing_digest(tx, self.genesis.chain_id), tx.signature):
            raise Violation(f"signatures: that of 0x{tx.id.hex()} in block {height} does not hold")
        account = self.accounts.get(tx.sender)
        if account is None:
            raise Violation(f"money: block {height} lets an account spend that does not exist")
        if tx.nonce in account.used:
            raise Violation(
                f"nonces: number {tx.nonce} of 0x{tx.sender.hex()} is used twice, again in block {height}"
            )
        if tx.nonce < account.nonce_next - NONCE_REACH:
            raise Violation(f"nonces: {tx.nonce} in block {height} is far below {account.nonce_next}")

    def _check_times(self, tx: Transaction, header: Header) -> None:
        parameters, now_ms = self.genesis.parameters, header.timestamp_ms
        ahead_ms = 0 if parameters.clock == CLOCK_WORKLOAD else parameters.clock_drift_ms_max
        oldest_ms = now_ms - parameters.timestamp_age_ms_max
        if tx.expires_ms < now_ms or not oldest_ms <= tx.timestamp_ms <= now_ms + ahead_ms:
            raise Violation(
                f"times: 0x{tx.id.hex()} of {tx.timestamp_ms} to {tx.expires_ms} stands in block "
                f"{header.height} of {now_ms}"
            )

    def _pay(self, tx: Transaction, height: int) -> None:
        parameters, sender = self.genesis.parameters, self.accounts[tx.sender]
        is_new = tx.receiver not in self.accounts and tx.kind not in STAKING_KINDS
        fee_min = parameters.fee_units_min + is_new * self._row_bytes * parameters.account_byte_fee_units
        if tx.fee < fee_min:
            raise Violation(f"fees: 0x{tx.id.hex()} in block {height} pays {tx.fee} of {fee_min}")
        sender.used.add(tx.nonce)
        sender.balance -= tx.amount + tx.fee
        if sender.balance < 0:
            raise Violation(
                f"money: block {height} leaves 0x{tx.sender.hex()} with a balance of {sender.balance}"
            )
        if tx.kind == KIND_DISPUTE_REPORT:  # the amount is a deposit
            self._open(tx.receiver)
        elif tx.kind not in STAKING_KINDS:  # what they name is a validator, and its pool takes the amount
            self._open(tx.receiver).balance += tx.amount

    def _check_kind(self, tx: Transaction, header: Header) -> None:
        if tx.kind in STAKING_KINDS:
            if self.stakes is None:
                raise Violation(f"stakes: 0x{tx.id.hex()} moves stake, of which this chain has none to move")
            self.accounts[tx.sender].balance += self.stakes.apply(tx, header)
            return
        if tx.kind in MODEL_KINDS:
            self.models.apply(tx, header.height, self._weigh_operators(header.epoch))
            return
        if tx.kind == KIND_TRANSFER:
            if tx.payload:
                raise Violation(f"transfers: 0x{tx.id.hex()} in block {header.height} carries a payload")
            return
        if tx.kind in (KIND_WITHDRAW_REPORT, KIND_DISPUTE_REPORT):
            self._check_about(tx, header)
            return
        value = codec.decode(
            tx.payload, what="payload", bytes_max=PAYLOAD_BYTES_MAX, items_max=PAYLOAD_ITEMS_MAX
        )
        raw, score, outcome, index, header_raw, *_ = codec.check_fields(value, 8, "payload")
        reported_id = sha256(raw).digest()
        height = decode_header(header_raw).height
        in_block = self.blocks[height - 1] if 0 < height <= len(self.blocks) else None
        if (
            in_block is None
            or in_block.header.raw != header_raw
            or self.places.get(reported_id)
            != (
                height,
                index,
            )
        ):
            raise Violation(f"reports: 0x{tx.id.hex()} in block {header.height} is about no final transfer")
        reported = in_block.transactions[index]
        told = (reported.kind, in_block.scores[index], in_block.outcomes[index], reported.receiver, 0)
        if told != (KIND_TRANSFER, score, outcome, tx.receiver, tx.amount):
            raise Violation(f"reports: 0x{tx.id.hex()} in block {header.height} misquotes its transfer")
        if tx.sender not in self.genesis.reporters:
            raise Violation(f"reports: 0x{tx.sender.hex()} may not report, and block {header.height} lets it")
        if header.timestamp_ms > reported.timestamp_ms + self.genesis.parameters.report_window_ms:
            raise Violation(f"reports: 0x{tx.id.hex()} in block {header.height} comes too late")
        case = self.reported.setdefault(reported_id, PlainCase(reported))
        if tx.sender in case.standing or tx.sender in case.withdrawn or case.deposit is not None:
            raise Violation(
                f"reports: 0x{reported_id.hex()} is reported twice, or disputed, in block {header.height}"
            )
        case.standing[tx.sender] = max(self.headers[-1].timestamp_ms, tx.timestamp_ms)
        case.newest_ms = max(case.newest_ms, case.standing[tx.sender])
        if not case.told_height and len(case.standing) >= self.genesis.parameters.reports_min:
            case.told_height = header.height

    def _weigh_operators(self, epoch: int) -> dict[bytes, int]:
        """The stake with which each votes in this epoch; of a chain without epochs the key's own account operates."""
        if self.stakes is not None:
            return {seat.operator: seat.validator.stake for seat in self.stakes.sets[epoch]}
        members = self.genesis.validators.validators
        return {crypto.compute_address(member.public_key): member.stake for member in members}

    def _check_about(self, tx: Transaction, header: Header) -> None:
        """A report is taken back by its reporter, or disputed by either side of the transfer. No vote is here."""
        parameters = self.genesis.parameters
        value = codec.decode(tx.payload, what="payload", bytes_max=PAYLOAD_BYTES_MAX, items_max=2)
        reported_id = sha256(codec.check_fields(value, 1, "payload")[0]).digest()
        case = self.reported.get(reported_id)
        if case is None or not case.standing or tx.receiver != case.reported.receiver:
            raise Violation(f"reports: 0x{tx.id.hex()} in block {header.height} is about no report")
        if case.deposit is not None:
            raise Violation(f"reports: 0x{reported_id.hex()} is disputed, and block {header.height} goes on")
        if tx.kind == KIND_DISPUTE_REPORT:
            sides = (case.reported.sender, case.reported.receiver)
            is_late = header.timestamp_ms > case.newest_ms + parameters.report_contest_ms
            if tx.sender not in sides or tx.amount != parameters.dispute_deposit_units or is_late:
                raise Violation(f"reports: 0x{tx.id.hex()} in block {header.height} may not dispute")
            case.deposit = tx.amount
            return
        filed_ms = case.standing.pop(tx.sender, None)
        if filed_ms is None or header.timestamp_ms > filed_ms + parameters.report_contest_ms or tx.amount:
            raise Violation(
                f"reports: 0x{tx.id.hex()} in block {header.height} takes nothing of its own back"
            )
        case.withdrawn.add(tx.sender)
        if len(case.standing) < parameters.reports_min and case.told_height:
            if case.told_height == header.height:
                raise Violation(f"reports: block {header.height} tells of a report and takes it back")
            case.told_height = 0


def compute_root(leaves: Sequence[bytes]) -> bytes:
    """The tree hash of RFC 6962 section 2.1, as it is defined there."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01" + compute_root(leaves[:split]) + compute_root(leaves[split:])).digest()
