"""A small chain in memory behind the API's door: three blocks, one of them not final, a few accounts."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Literal

from consensus import block, crypto, merkle, vote
from consensus.errors import Rejected
from consensus.ledger.motion import Motion, RetireModel, SeatModel, Tally
from consensus.ledger.scoring import Contribution, Explanation, Thresholds
from consensus.ledger.seating import Outcome
from consensus.parameters import Parameters
from consensus.refusal import LogHead
from consensus.transaction import Transaction, decode_transaction, is_signed, sign_transaction
from node.api import door, refusal_records, report_records, stake_records
from node.api.event_ring import EventRing
from node.api.model_records import (
    ComparisonRecord,
    EraRecord,
    ModelRecord,
    ModelsRecord,
    MotionRecord,
    PublishedRecord,
)
from node.policies.attendant import PolicyReport

CHAIN_ID = "test-chain"
CLOCK_MS = 1_700_000_000_000
POLICY_DECISIONS = {"allow": 5, "hold": 0, "refuse": 1}
POLICY_CALLS = {"ok": 3, "failed": 0, "broken": 0, "overrun": 1}
KEYS = [crypto.PrivateKey.from_seed(b"account %d" % i) for i in range(3)]
VALIDATOR = crypto.PrivateKey.from_seed(b"validator")


def make_transfer(
    nonce: int = 0, amount: int = 5, key: crypto.PrivateKey = KEYS[0], chain_id: str = CHAIN_ID
):
    """A signed transfer from one of KEYS to the second."""
    return sign_transaction(
        key,
        chain_id,
        nonce=nonce,
        receiver=KEYS[1].address,
        amount=amount,
        fee=1,
        timestamp_ms=CLOCK_MS,
        expires_ms=CLOCK_MS + 60_000,
    )


def make_header(height: int, parent: bytes, transactions: Sequence[Transaction], certificate) -> block.Header:
    scores = list(range(len(transactions)))
    root = block.compute_transactions_root(transactions, scores, bytes(len(transactions)))
    return block.Header(
        epoch=0,
        view=height,
        height=height,
        parent_view=max(0, height - 1),
        parent_hash=parent,
        proposer=VALIDATOR.public_key,
        timestamp_ms=CLOCK_MS,
        transaction_count=len(transactions),
        transactions_root=root,
        state_root=crypto.hash_bytes(b"state %d" % height),
        history_root=bytes(32),
        modules_digest=bytes(32),
        validators_digest=bytes(32),
        next_validators_digest=bytes(32),
        certificate_digest=block.compute_certificate_digest(certificate),
    )


def make_certificate(header: block.Header) -> vote.Certificate:
    subject = vote.Subject(0, vote.FINALIZE, max(1, header.view), header.hash)
    return vote.Certificate(subject, ((0, VALIDATOR.sign(subject.compute_digest(CHAIN_ID))),))


class FakeDoor:
    """Answers from `blocks`, `records`, `accounts`; keeps what was submitted; raises `fails` if set."""

    def __init__(self, block_count: int = 4, per_block: int = 3) -> None:
        self.events = EventRing(first_id=1000, capacity=8)
        self.wait_ms = 0
        self.subscribed = asyncio.Event()
        self.submitted: list[bytes] = []
        self.ready = True
        self.nonce_pending: int | None = None
        self.fails: Exception | None = None
        self.records: dict[bytes, door.TransactionRecord] = {}
        self.refusals: dict[bytes, refusal_records.RefusalRecord] = {}
        self.logged: list[refusal_records.LoggedRecord] = []
        self.blocks: list[door.BlockRecord] = []
        self.scored: list[Transaction] = []
        self.cases: dict[bytes, report_records.CaseRecord] = {}
        self.reporters: list[report_records.ReporterRecord] = []
        parent, certificate, nonce = bytes(32), None, 0
        for height in range(block_count):
            transactions = tuple(make_transfer(nonce + i) for i in range(per_block if height else 0))
            nonce += len(transactions)
            header = make_header(height, parent, transactions, certificate)
            body = block.Block(
                header, transactions, tuple(range(len(transactions))), bytes(len(transactions)), certificate
            )
            is_final = height < block_count - 1
            certificate = make_certificate(header) if height else None
            self.blocks.append(door.BlockRecord(body, is_final, certificate if is_final else None))
            parent = header.hash
            for i, tx in enumerate(transactions):
                self.records[tx.id] = (
                    door.TransactionRecord(tx, "final", height, i, header.hash, i, 0)
                    if is_final
                    else door.TransactionRecord(tx, "pending", score=i, outcome=0)
                )

    def get_status(self) -> door.StatusRecord:
        if self.fails is not None:
            raise self.fails
        return door.StatusRecord(
            CHAIN_ID,
            crypto.hash_bytes(b"genesis"),
            "node0",
            VALIDATOR.address,
            "0.1.0",
            self.blocks[-1].block.header,
            self.blocks[-2].block.header,
            CLOCK_MS,
            7,
            0,
            3,
            False,
            2,
            300,
            Parameters(),
            self.get_models().models[0],
            (PolicyReport("taste", 100, "skip", False, POLICY_DECISIONS, POLICY_CALLS),),
        )

    def is_ready(self) -> bool:
        return self.ready

    def get_wait_ms(self) -> int:
        return self.wait_ms

    async def submit(self, raws: Sequence[bytes]) -> list[door.Receipt]:
        self.submitted.extend(raws)
        return [self._receive(raw) for raw in raws]

    def _receive(self, raw: bytes) -> door.Receipt:
        try:
            tx = decode_transaction(raw)
        except Rejected as error:
            return door.Receipt(None, "rejected", error.code, str(error))
        if not is_signed(tx, CHAIN_ID):
            return door.Receipt(tx.id, "rejected", "signature", "signature: does not verify")
        if tx.amount == 666:
            return door.Receipt(tx.id, "refused", "refused", "scored 9700, refused from 9000", 9700)
        self.records.setdefault(tx.id, door.TransactionRecord(tx, "pending", score=12, outcome=0))
        return door.Receipt(tx.id, "accepted", score=12)

    async def score(self, transaction: Transaction) -> door.VerdictRecord:
        self.scored.append(transaction)
        contributions = (
            Contribution("amount", 5, 40, "amount is 5"),
            Contribution("age", 1, -3, "the account is 1 day old"),
        )
        explanation = Explanation(12, 0, 100, 137, contributions)
        return door.VerdictRecord(transaction, 12, 0, 3, (door.ModuleVerdict("fraud", explanation),))

    def get_transaction(self, transaction_id: bytes) -> door.TransactionRecord | None:
        return self.records.get(transaction_id)

    async def explain(self, transaction_id: bytes) -> door.VerdictRecord | None:
        record = self.records.get(transaction_id)
        return None if record is None else await self.score(record.transaction)

    def get_block(self, key: int | bytes | Literal["head", "finalized"]) -> door.BlockRecord | None:
        if key == "head":
            return self.blocks[-1]
        if key == "finalized":
            return self.blocks[-2]
        found = [r for r in self.blocks if key in (r.block.hash, r.block.header.height)]
        return found[0] if found else None

    def get_blocks(self, first: int, limit: int) -> Iterator[door.BlockRecord]:
        yield from self.blocks[first : first + limit]

    def get_account(self, address: bytes) -> door.AccountRecord:
        if address != KEYS[0].address:
            return door.AccountRecord(address, 0, 0, 0, 0, 2)
        profile = door.ModuleProfile("fraud", b"\x01\x02", {"transactions": 6})
        return door.AccountRecord(address, 1_000, 6, 2**64 - 1, 0, 2, (profile,), self.nonce_pending)

    def get_account_history(
        self, address: bytes, before: tuple[int, int] | None, limit: int
    ) -> door.HistoryPage:
        own = [
            r
            for r in self.records.values()
            if r.status == "final" and address in (r.transaction.sender, r.transaction.receiver)
        ]
        own.sort(key=lambda r: (r.height, r.index), reverse=True)
        own = [r for r in own if before is None or (r.height, r.index) < before]
        page = tuple(own[:limit])
        last = page[-1] if len(own) > limit else None
        return door.HistoryPage(page, None if last is None else (last.height, last.index))

    def prove_transaction(self, transaction_id: bytes) -> door.TransactionProof | None:
        record = self.records.get(transaction_id)
        if record is None or record.status != "final":
            return None
        found = self.blocks[record.height]
        body = found.block
        leaves = [
            block.compute_leaf(t.id, s, o)
            for t, s, o in zip(body.transactions, body.scores, body.outcomes, strict=True)
        ]
        siblings = merkle.prove_inclusion(leaves, record.index)
        return door.TransactionProof(
            body.header, record.index, len(leaves), siblings, found.certificate, (), 2, ()
        )

    def prove_account(self, address: bytes) -> door.AccountProof | None:
        if address != KEYS[0].address:
            return None
        final, head = self.blocks[-2], self.blocks[-1]
        return door.AccountProof(
            final.block.header, b"\x93\x01\x02\x03", make_certificate(head.block.header), (head.block.header,)
        )

    def get_case(self, tx: Transaction) -> report_records.CaseRecord | None:
        return self.cases.get(tx.id)

    def get_cases(self, after: bytes, limit: int, *, is_disputed: bool) -> report_records.CasesPage:
        found = [case for case in self.cases.values() if case.dispute or not is_disputed]
        kept = [case for case in found if bytes(4) + case.id > after][:limit]
        last = kept[-1].id if kept else b""
        return report_records.CasesPage(tuple(kept), bytes(4) + last if kept != found else None)

    def get_reporters(self) -> report_records.ReportersRecord:
        return report_records.ReportersRecord("listed+registered", tuple(self.reporters), is_cut=False)

    def get_reporter(self, address: bytes) -> report_records.ReporterRecord | None:
        return next((entry for entry in self.reporters if entry.address == address), None)

    def get_validators(self) -> stake_records.ValidatorsRecord:
        return stake_records.ValidatorsRecord(0, 2, None, 100, 67, 100, (self._make_validator(),))

    def get_validator(self, operator: bytes) -> stake_records.ValidatorRecord | None:
        return self._make_validator() if operator == VALIDATOR.address else None

    def _make_validator(self) -> stake_records.ValidatorRecord:
        key = VALIDATOR.public_key
        return stake_records.ValidatorRecord(
            0, key, VALIDATOR.address, 100, True, 100, key, 100, 100, 0, 1_000, "bonded", None, None
        )

    def get_peers(self) -> tuple[door.PeerRecord, ...]:
        return (door.PeerRecord("node1", VALIDATOR.public_key, "ws://127.0.0.1:26610", "outbound", True, 2),)

    def get_mempool(self, limit: int) -> door.MempoolPage:
        waiting = [r for r in self.records.values() if r.status == "pending"]
        entries = tuple(door.MempoolEntry(r.transaction, r.score) for r in waiting[:limit])
        return door.MempoolPage(len(waiting), sum(len(r.transaction.raw) for r in waiting), entries)

    async def compare_model(self, digest: bytes) -> ComparisonRecord | None:
        if digest != self.get_models().models[0].digest:
            return None
        outcomes = ((5, 1, 0), (0, 2, 1), (0, 0, 0))
        return ComparisonRecord(digest, True, 3, 9, 9, 7, outcomes, -1.5, 2, (0.5, 0.6), (0.7, 0.8))

    def get_models(self) -> ModelsRecord:
        model = ModelRecord("fraud", crypto.hash_bytes(b"model"), 5_000, 9_000)
        change = SeatModel(model.digest, Thresholds(5_000, 9_000), 1)
        decided = MotionRecord(Motion(9, change), Tally((b"o" * 20,), 3, 4, 5), Outcome.DONE)
        open_ = MotionRecord(Motion(99, RetireModel(model.digest)), Tally((b"o" * 20,), 1, 4))
        published = PublishedRecord("fraud", model.digest, b"h" * 32, 9, b"p" * 20, 1, 1, "sound", 3, 9, None)
        era = EraRecord(9, b"m" * 32, (model,), (decided,))
        return ModelsRecord(10, 500, 227, (model,), (published,), (open_,), (era,))

    def get_refusals(self, first: int, limit: int) -> refusal_records.RefusalPage:
        leaves = [logged.leaf for logged in self.logged]
        head = LogHead(len(leaves), merkle.compute_root(leaves))
        return refusal_records.RefusalPage(head, tuple(self.logged[first : first + limit]))

    def prove_refusals(self, first: int, second: int | None) -> refusal_records.ConsistencyProof:
        leaves = [logged.leaf for logged in self.logged]
        second = len(leaves) if second is None else second
        if not 0 < first <= second <= len(leaves):
            raise Rejected("is no size of this log", field="first", code="limit")
        heads = [LogHead(size, merkle.compute_root(leaves[:size])) for size in (first, second)]
        proof = merkle.prove_consistency(leaves[:second], first)
        return refusal_records.ConsistencyProof(heads[0], heads[1], proof)

    def get_refusal(self, transaction_id: bytes) -> refusal_records.RefusalRecord | None:
        return self.refusals.get(transaction_id)

    def subscribe(self, last_event_id: int | None) -> AsyncIterator[door.Event]:
        self.subscribed.set()
        return self.events.subscribe(last_event_id)
