"""The mempool: what this node would put into a block, and its word on everything else it was offered.

A plain object without a loop. Whoever drives it decodes and checks what is cheap (`prepare`), has
the signatures checked, then lets it judge and take in (`admit`); the proposer asks (`select`) and tells
what building threw out (`on_built`); every final block and the passing of time are told it too.

Invariant: nothing is lost silently. What was accepted is pending until it is final or dropped with a
reason (`get_drop`); a bad transaction never spoils its neighbours in a batch. All views are those of the
last *final* block: what is pending is then never counted twice against a balance.
Leaves out: gossip, signature checks (`node.verification`), the answers of HTTP.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from consensus import crypto
from consensus.block import Block
from consensus.errors import NotYet, Rejected
from consensus.ledger import scoring
from consensus.ledger.kinds import KIND_BY_NUMBER
from consensus.ledger.state import View
from consensus.transaction import TRANSACTION_BYTES_MAX, Transaction, decode_transaction
from ml.policy import Decision, Opinion
from node.clock import Clock
from node.mempool.admission import (
    MempoolPolicy,
    Standing,
    check_place,
    plan_room,
    read_accounts,
    read_standings,
)
from node.mempool.holdings import Holdings
from node.mempool.judging import judge_batch
from node.mempool.lines import Entry
from node.mempool.receipts import Outcome, Receipt, make_signature_error, reject
from node.mempool.refusals import Judged

if TYPE_CHECKING:
    from consensus.ledger.building import Built
    from consensus.ledger.rules import Rules

MISFITS_MAX: Final = 64  # a walk for a block ends after so many that do not fit: the rest hardly will
REST_BLOCKS_MAX: Final = 256  # of one that came too early: some minutes
TRANSACTION_BYTES_TYPICAL: Final = 128  # no room for even a small one: the block is full
FINALS_KEPT: Final = 1 << 16  # ids of final transactions that a client may still send again; 10 MB
NO_OPINIONS: Final[Mapping[bytes, Opinion]] = {}


@dataclass(slots=True)
class Batch:
    """What `prepare` made of some raw transactions: `candidates`, whose signatures are to be checked next,
    and receipts for those that go no further. Hand it to `admit` once, also without candidates."""

    head: bytes  # hash of the block on whose state it was prepared
    candidates: list[Transaction] = field(default_factory=list)
    slots: list[Receipt | bytes] = field(default_factory=list)  # per raw its receipt, or its id in `answers`
    answers: dict[bytes, Receipt] = field(default_factory=dict)
    standings: dict[bytes, Standing] = field(default_factory=dict)  # by sender, on that state


class Mempool(Holdings):
    """Pending transactions of one node. `clock` is asked for durations only."""

    def __init__(self, rules: Rules, clock: Clock, policy: MempoolPolicy | None = None) -> None:
        super().__init__(rules.genesis.parameters, clock, policy)
        self._rules = rules
        self.on_refusal: Callable[[Judged], None] = lambda _: None  # told of each one refused at the door

    # --- the door -----------------------------------------------------------------------------------

    def prepare(self, raws: Sequence[bytes], view: View, now_ms: int) -> Batch:
        """Everything that is cheaper than a signature: size, form, nonce, funds, room. `now_ms` is wall time."""
        self._note(view)
        batch = Batch(view.header.hash)
        slots = batch.slots
        decoded: dict[bytes, Transaction] = {}
        for raw in raws:
            try:
                if len(raw) > TRANSACTION_BYTES_MAX:
                    raise Rejected(
                        f"{len(raw)} bytes, at most {TRANSACTION_BYTES_MAX} allowed",
                        field="transaction",
                        code="size",
                    )
                transaction_id = crypto.hash_bytes(raw)
                known = self._get_known(transaction_id)
                if known is None and transaction_id not in decoded:
                    decoded[transaction_id] = decode_transaction(raw, transaction_id)
                slots.append(known or transaction_id)
            except Rejected as error:
                slots.append(reject(None, error))
        transactions = list(decoded.values())
        batch.standings = read_standings(transactions, view)
        screened = self._screen(transactions, batch.standings, view, now_ms)
        for tx, receipt in zip(transactions, screened, strict=True):
            if receipt is None:
                batch.candidates.append(tx)
            else:
                batch.answers[tx.id] = receipt
        return batch

    def admit(
        self,
        batch: Batch,
        signed: Sequence[bool],
        view: View,
        now_ms: int,
        opinions: Mapping[bytes, Opinion] = NO_OPINIONS,
    ) -> list[Receipt]:
        """Judge the candidates and take them in; one receipt per raw of the batch, in order.

        signed: for each candidate, whether its signature holds. The state may have moved on since `prepare`.
        opinions: by id, what this node's own policy says against it.
        """
        self._note(view)
        if batch.head == view.header.hash:
            screened: list[Receipt | None] = [None] * len(batch.candidates)
        else:
            batch.standings = read_standings(batch.candidates, view)
            screened = self._screen(batch.candidates, batch.standings, view, now_ms, is_form_known=True)
        answers = batch.answers
        ready: list[Transaction] = []
        for tx, is_signed, answer in zip(batch.candidates, signed, screened, strict=True):
            receipt = self._get_known(tx.id)
            if receipt is None and not is_signed:
                receipt = reject(tx.id, make_signature_error(self._rules.chain_id))
            receipt = receipt or answer or (self._check_policy(tx, opinions) if opinions else None)
            if receipt is None:
                ready.append(tx)
            else:
                answers[tx.id] = receipt
        for tx, (score, outcome) in zip(
            ready, judge_batch(self._rules, view, ready, self.on_refusal), strict=True
        ):
            if outcome == scoring.REFUSE:
                answers[tx.id] = self._refuse(tx, score)
            else:
                answers[tx.id] = self._take(tx, score, outcome, batch.standings[tx.sender])
        receipts = []
        seen: set[bytes | None] = set()
        for slot in batch.slots:
            receipt = slot if isinstance(slot, Receipt) else answers[slot]
            if receipt.outcome is Outcome.ACCEPTED:
                if receipt.id in seen:  # the same bytes twice in one batch
                    receipt = Receipt(receipt.id, Outcome.KNOWN, score=receipt.score)
                seen.add(receipt.id)
            receipts.append(receipt)
        # Counted by code and outcome first: an outcome's word is looked up once, not for each.
        for (code, kind), count in Counter([(receipt.code, receipt.outcome) for receipt in receipts]).items():
            self.received[code or kind.value] += count
        return receipts

    def _get_known(self, transaction_id: bytes) -> Receipt | None:
        entry = self._pending.get(transaction_id)
        if entry is not None:
            return Receipt(transaction_id, Outcome.KNOWN, score=entry.score)
        if transaction_id in self._finals:
            return Receipt(transaction_id, Outcome.KNOWN, "final", "it is final already")
        return None

    def _screen(
        self,
        transactions: Sequence[Transaction],
        standings: dict[bytes, Standing],
        view: View,
        now_ms: int,
        *,
        is_form_known: bool = False,
    ) -> list[Receipt | None]:
        """Why each may not come in now, as far as that is known without signature and score."""
        errors = self._rules.find_inadmissible(transactions, view, now_ms, is_form_known=is_form_known)
        monotonic_ms = self._clock.monotonic_ms()
        receipts: list[Receipt | None] = []
        for tx, error in zip(transactions, errors, strict=True):
            wait_ms = self._back_off.get_wait_ms(tx.sender, self._chain_ms, monotonic_ms)
            if wait_ms:
                reason = f"too many of the sender's transactions were refused; try again in {wait_ms} ms"
                receipts.append(Receipt(tx.id, Outcome.REFUSED, "backing_off", reason, retry_ms=wait_ms))
                continue
            standing = standings[tx.sender]
            try:
                if error is not None:
                    raise error
                line = self._pending.get_line(tx.sender)
                plan_room(self.policy, self._pending, tx, line, check_place(self.policy, tx, standing, line))
            except (Rejected, NotYet) as reason:
                receipts.append(reject(tx.id, reason))
            else:
                # Those behind it may count on it here; `admit` looks again at what really came in.
                standing.nonce_offered = max(standing.nonce_offered, tx.nonce)
                receipts.append(None)
        return receipts

    def _check_policy(self, tx: Transaction, opinions: Mapping[bytes, Opinion]) -> Receipt | None:
        opinion = opinions.get(tx.id)
        if opinion is None or opinion.decision is not Decision.REFUSE:
            return None
        self._note_drop(tx, "policy", opinion.reason, None)
        return Receipt(tx.id, Outcome.REFUSED, "policy", opinion.reason)

    def _refuse(self, tx: Transaction, score: int) -> Receipt:
        reason = f"scored {score} of {scoring.SCORE_MAX}; ask for its explanation"
        self._back_off.count_refusal(tx.sender, self._chain_ms, self._clock.monotonic_ms())
        self._note_drop(tx, "refused", reason, score)
        return Receipt(tx.id, Outcome.REFUSED, "refused", reason, score)

    def _take(self, tx: Transaction, score: int, outcome: int, standing: Standing) -> Receipt:
        line = self._pending.get_line(tx.sender)
        standing.nonce_offered = -1  # what was offered before it is in the line by now, or did not get in
        try:
            replaced = check_place(self.policy, tx, standing, line)
            victims = plan_room(self.policy, self._pending, tx, line, replaced)
        except (Rejected, NotYet) as error:
            return reject(tx.id, error)
        # Nothing fails from here on.
        if replaced is not None:
            self._pending.remove(replaced)
            self._drop(replaced, "replaced", f"by 0x{tx.id.hex()}, which pays more")
        for victim in victims:
            self._pending.remove(victim)
            self._drop(victim, "evicted", "the mempool is full of transactions that pay more")
        self._pending.insert(Entry(tx, self._get_deadline_ms(tx), score, outcome))
        self._drops.discard(tx.id)
        return Receipt(tx.id, Outcome.ACCEPTED, "flagged" if outcome == scoring.FLAG else "", score=score)

    # --- the proposer -------------------------------------------------------------------------------

    def select(
        self, view: View, bytes_max: int, count_max: int, included: AbstractSet[bytes] = frozenset()
    ) -> list[Transaction]:
        """What to build the next block from, at most so many bytes and transactions.

        view: of the block's parent; included: ids in unfinal blocks up to it. Across senders by fee per
        byte, then arrival; on the workload clock by timestamp first, because there transactions move
        the time, and one that pays well would expire all others. Within a sender by nonce.
        """
        chosen: list[Transaction] = []
        skipped: set[bytes] = set()
        time_ms = view.header.timestamp_ms
        deadline_ms = time_ms + self._parameters.clock_jump_ms_max
        misfits = 0
        for entry in self._pending.walk(skipped):
            tx = entry.tx
            if tx.id in included or entry.rests_until > view.header.height:
                continue
            is_fit = entry.size_bytes <= bytes_max and entry.deadline_ms >= time_ms
            if self._is_workload:
                # All of a block share its time, the latest timestamp among them: none may be too old for it.
                is_fit = is_fit and tx.timestamp_ms <= deadline_ms
                if is_fit:
                    time_ms = max(time_ms, tx.timestamp_ms)
                    deadline_ms = min(deadline_ms, entry.deadline_ms)
            if is_fit:
                chosen.append(tx)
                bytes_max -= entry.size_bytes
                if len(chosen) >= count_max or bytes_max < TRANSACTION_BYTES_TYPICAL:
                    break
            else:
                skipped.add(tx.sender)
                misfits += 1
                if misfits >= MISFITS_MAX:
                    break
        return chosen

    def on_built(self, built: Built) -> None:
        """Drop what building a block found refused or invalid; deferred ones stay.

        What came too early rests for 1, 2, 4, … blocks: each is admissible by itself, all together would fill
        every block's candidates and never pay.
        """
        for tx, score in built.refused:
            entry = self._pending.get(tx.id)
            if entry is not None:
                self._pending.remove(entry)
                entry.score = score
                self._back_off.count_refusal(tx.sender, self._chain_ms, self._clock.monotonic_ms())
                self._drop(
                    entry, "refused", f"scored {score} of {scoring.SCORE_MAX}; ask for its explanation"
                )
        for tx, error in built.rejected:
            entry = self._pending.get(tx.id)
            if entry is None:
                continue
            if isinstance(error, Rejected):
                self._pending.remove(entry)
                self._drop(entry, error.code, str(error))
            else:
                entry.rest_blocks = min(max(1, 2 * entry.rest_blocks), REST_BLOCKS_MAX)
                entry.rests_until = built.block.header.height + entry.rest_blocks

    def withdraw(self, transaction_id: bytes, code: str, reason: str) -> None:
        """Drop a pending one that this node's own policy no longer wants."""
        entry = self._pending.get(transaction_id)
        if entry is not None:
            self._pending.remove(entry)
            self._drop(entry, code, reason)

    # --- the chain goes on --------------------------------------------------------------------------

    def on_final(self, block: Block, view: View) -> None:
        """A block became final; `view` is the state after it. Only senders in it are looked at again."""
        self._note(view)
        finals = self._finals
        for tx in block.transactions:
            finals[tx.id] = None
            self._drops.discard(tx.id)
            entry = self._pending.get(tx.id)
            if entry is not None:
                self._pending.remove(entry)
                self.finalized += 1
        self._pressure.note_final(len(block.transactions), self._clock.monotonic_ms())
        while len(finals) > FINALS_KEPT:
            finals.popitem(last=False)
        self.recheck({tx.sender: None for tx in block.transactions}, view)
        if self._is_workload:
            self.on_clock(self._chain_ms)

    def recheck(self, senders: Iterable[bytes], view: View) -> None:
        """Drop what these senders can no longer do: used nonces, and from the end what they cannot pay."""
        lines = {sender: line for sender in senders if (line := self._pending.get_line(sender)) is not None}
        for account in read_accounts(list(lines), view):
            line, balance = lines[account.address], account.balance
            used = []
            for entry in line.entries:
                if entry.nonce >= account.nonce_next:
                    break
                if not account.is_nonce_free(entry.nonce):
                    used.append(entry)
            for entry in used:
                self._pending.remove(entry)
                self._drop(entry, "nonce_used", f"nonce {entry.tx.nonce} is used or too old by now")
            while line.entries and line.cost > balance:
                entry = line.tail
                cost = line.cost
                self._pending.remove(entry)
                self._drop(
                    entry, "unfunded", f"the sender has {balance}, its pending transactions cost {cost}"
                )

    def on_clock(self, now_ms: int) -> None:
        """Drop what has expired: by wall time, or by the chain's own where transactions move it."""
        clock_ms = self._chain_ms if self._is_workload else now_ms
        for entry in self._pending.pop_expired(clock_ms):
            self._drop(entry, "expired", f"its last moment was {entry.deadline_ms}, it is {clock_ms}")

    def _get_deadline_ms(self, tx: Transaction) -> int:
        return min(
            tx.expires_ms,
            tx.timestamp_ms + self._parameters.timestamp_age_ms_max,
            KIND_BY_NUMBER[tx.kind].get_deadline_ms(tx, self._parameters),
        )
