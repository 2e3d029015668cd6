"""Clients of a simulated network: they send, ask again, go to another node, and remember what they were told.

Offers come in bursts, rivals to different nodes at once. What has no answer yet is looked up and sent
again, at whichever node is up, until it is final, expired, or refused with an answer.

Invariant: each answer is held against what became of it: what was promised final is final, what nobody
may take was taken by nobody, and "used before" is said of nonces that were. Leaves out: HTTP.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol

from consensus.crypto import PrivateKey
from consensus.ledger.rules import Rules
from consensus.parameters import CLOCK_WORKLOAD
from node.full_node import FullNode
from node.mempool.receipts import Outcome, Receipt
from node.simulation.full_nodes.checkers import NodeCheckers
from node.simulation.full_nodes.model_life import ModelLife
from node.simulation.full_nodes.payments import RIVAL, SOUND, SPOILED, Offer, Payments
from node.simulation.full_nodes.stakers import Stakers

BURST_MS_MAX: Final = 160  # from one burst to the next: some ten bursts in the phase with faults
BURST_OFFERS_MAX: Final = 5
PATIENCE_MS: Final = 250  # above a block's way to finality when nothing is wrong
LOOK_MS: Final = 50
STAKE_MS: Final = 90  # a few blocks
LIFE_MS: Final = 90  # two blocks: between looks at what came of models
OPEN_MAX: Final = 40  # without an answer: below a nonce window, so that no sound payment falls out of it
SETTLE_MS_MAX: Final = 60_000  # after healing, as long as finality itself may take

FINAL: Final = "final"
REPLACEMENT: Final = "replacement_fee"  # the rival may yet expire, or become final and settle it
BACKING_OFF: Final = "backing_off"  # for half a minute: no client of ours waits so long
# What a sound payment may be answered: once it is final, its own nonce is used.
SOUND_CODES: Final = frozenset({FINAL, "nonce_used", "nonce_too_old"})


class Stage(Protocol):
    """What clients need of the world.

    get_wall_ms: what a good client's clock shows, on the scale of genesis timestamps. list_up: honest nodes
    whose FullNode runs. submit: `node.entrance.submit(raws)` in that node's loop; `answer` gets the
    receipts, or None when the process died first. get_node: None while it is down.
    """

    @property
    def now_ms(self) -> int: ...

    def push(self, delay_ms: int, act: Callable[..., None], arguments: tuple[Any, ...]) -> None: ...

    def get_wall_ms(self) -> int: ...

    def list_up(self) -> Sequence[int]: ...

    def submit(
        self, index: int, raws: Sequence[bytes], answer: Callable[[Sequence[Receipt] | None], None]
    ) -> None: ...

    def get_node(self, index: int) -> FullNode | None: ...


class Workload:
    """All clients of one run. `keys` are those of funded accounts (see `payments.py`)."""

    def __init__(
        self,
        rules: Rules,
        keys: Sequence[PrivateKey],
        rng: random.Random,
        stage: Stage,
        checkers: NodeCheckers,
        stakers: Stakers | None = None,
        life: ModelLife | None = None,
    ) -> None:
        self.offers: list[Offer] = []
        self.codes: Counter[str] = Counter()  # receipts, by outcome and code
        self._rng = rng
        self._stage = stage
        self._checkers = checkers
        self._payments = Payments(rules, keys, rng, checkers.ledger.plain)
        self._stakers = stakers
        self._is_paying = False
        self._tick: Offer | None = None
        self._rules = rules
        self._is_workload = rules.parameters.clock == CLOCK_WORKLOAD
        self.life = life

    def start(self) -> None:
        """Begin; goes on by itself until `stop`."""
        self._is_paying = True
        self._stage.push(self._rng.randrange(BURST_MS_MAX), self._burst, ())
        self._stage.push(LOOK_MS, self._look, ())
        if self._stakers is not None:
            self._stage.push(STAKE_MS, self._stake, ())
        if self.life is not None:
            self._stage.push(LIFE_MS, self._live, (self.life,))

    def stop(self) -> None:
        """Nothing new from now on; what is open is asked for until it has an answer."""
        self._is_paying = False

    def _get_now_ms(self) -> int:
        """What clients date by: their clocks, and on a workload's clock what the chain itself shows, if that is later."""
        wall_ms = self._stage.get_wall_ms()
        if not self._is_workload:
            return wall_ms
        return max(wall_ms, self._checkers.ledger.plain.headers[-1].timestamp_ms)

    # --- sending --------------------------------------------------------------------------------------

    def _burst(self) -> None:
        if not self._is_paying:
            return
        self._stage.push(1 + self._rng.randrange(BURST_MS_MAX), self._burst, ())
        up = self._stage.list_up()
        if not up or len(self._list_open()) >= OPEN_MAX:
            return
        by_node: dict[int, list[Offer]] = {}
        for _ in range(1 + self._rng.randrange(BURST_OFFERS_MAX)):
            offers = self._payments.make(self._get_now_ms())
            self.offers += offers
            for offer in offers:
                by_node.setdefault(self._rng.choice(up), []).append(offer)
                if offer.promise == SOUND and self._rng.random() < 0.1:
                    by_node.setdefault(self._rng.choice(up), []).append(offer)  # an impatient client
        for index in sorted(by_node):
            self._send(index, by_node[index])

    def _stake(self) -> None:
        """Operators look at what is final; some are still jailed when all the others have stopped."""
        assert self._stakers is not None
        self._stage.push(STAKE_MS, self._stake, ())
        up = self._stage.list_up()
        if not up:
            return
        for tx in self._stakers.make(self._get_now_ms(), only_back=not self._is_paying):
            offer = Offer(tx.raw, tx, RIVAL)
            self.offers.append(offer)
            self._send(self._rng.choice(up), [offer])

    def _live(self, life: ModelLife) -> None:
        """Models are published and decided on, beside all else."""
        self._stage.push(LIFE_MS, self._live, (life,))
        up = self._stage.list_up()
        if not up:
            return
        by_node: dict[int, list[Offer]] = {}
        for offer in life.make(self._get_now_ms(), is_ending=not self._is_paying):
            self.offers.append(offer)
            by_node.setdefault(life.choose(up), []).append(offer)
        for index in sorted(by_node):
            self._send(index, by_node[index])

    def _send(self, index: int, offers: list[Offer]) -> None:
        for offer in offers:
            offer.due_ms = self._stage.now_ms + PATIENCE_MS + self._rng.randrange(PATIENCE_MS)
        self._stage.submit(index, [offer.raw for offer in offers], partial(self._hear, index, offers))

    def _look(self) -> None:
        """Ask again about what has had no answer for long."""
        self._stage.push(LOOK_MS, self._look, ())
        up = self._stage.list_up()
        late: dict[int, list[Offer]] = {}
        open_ = self._list_open()
        if up and open_ and self._is_workload and not self._is_paying and self._tick not in open_:
            # Without payments that clock stands still, and what is not yet due, or late, stays so.
            (self._tick,) = self._payments.pay(self._get_now_ms())
            self.offers.append(self._tick)
            self._send(self._rng.choice(up), [self._tick])
        for offer in open_:
            if up and offer.due_ms <= self._stage.now_ms:
                index = self._rng.choice(up)
                if not self._is_final_at(index, offer):
                    late.setdefault(index, []).append(offer)
        for index in sorted(late):
            self._send(index, late[index])

    def _is_final_at(self, index: int, offer: Offer) -> bool:
        node = self._stage.get_node(index)
        if node is None or offer.transaction is None:
            return False
        is_final = node.store.find_transaction(offer.transaction.id) is not None
        if is_final:
            self._note_final(index, offer)
        return is_final

    def _list_open(self) -> list[Offer]:
        return [offer for offer in self.offers if not offer.answer and offer.promise != SPOILED]

    # --- what the nodes say ---------------------------------------------------------------------------

    def _hear(self, index: int, offers: Sequence[Offer], receipts: Sequence[Receipt] | None) -> None:
        if receipts is None:
            return  # the node died; the next look goes to another
        if len(receipts) != len(offers):
            self._checkers.fail(f"answers: node {index} gave {len(receipts)} to {len(offers)} transactions")
            return
        for offer, receipt in zip(offers, receipts, strict=True):
            self.codes[f"{receipt.outcome.value} {receipt.code}".rstrip()] += 1
            self._take(index, offer, receipt)

    def _take(self, index: int, offer: Offer, receipt: Receipt) -> None:
        is_in = receipt.outcome in (Outcome.ACCEPTED, Outcome.KNOWN)
        if offer.promise == SPOILED:
            if is_in:
                self._checkers.fail(f"door: node {index} took what nobody may take ({receipt})")
            return
        if is_in:
            offer.is_acknowledged = True
            offer.told.append(index)
            if receipt.code == FINAL:
                self._note_final(index, offer)
        elif receipt.code == BACKING_OFF or not (receipt.retry_ms or receipt.code == REPLACEMENT):
            if offer.promise == SOUND and receipt.code not in SOUND_CODES:
                self._checkers.fail(f"door: node {index} turned a sound payment away ({receipt})")
            offer.answer = offer.answer or receipt.code or receipt.outcome.value

    def _note_final(self, index: int, offer: Offer) -> None:
        offer.answer = FINAL
        if offer.transaction is not None:
            self._checkers.on_told_final(index, offer.transaction.id)

    # --- at the end -----------------------------------------------------------------------------------

    def is_settled(self) -> bool:
        """Whether everything that could be taken has had its answer."""
        return not self._list_open() and (self.life is None or self.life.is_done)

    def check_settled(self, healed_ms: int) -> bool:
        """As `is_settled`; fails the run when it takes too long."""
        open_ = self._list_open()
        if open_ and self._stage.now_ms > healed_ms + SETTLE_MS_MAX:
            offer = next((offer for offer in open_ if offer.is_acknowledged), open_[0])
            told = f"taken by {offer.told}" if offer.told else "taken by nobody"
            self._checkers.fail(
                f"acknowledged: {SETTLE_MS_MAX} ms after healing {len(open_)} transactions have no answer, "
                f"one {offer.promise} and {told}"
            )
        if self.life is not None and not self.life.is_done:
            if self._stage.now_ms > healed_ms + SETTLE_MS_MAX:
                self._checkers.fail(
                    f"models: {SETTLE_MS_MAX} ms after healing only {self.life.changes} changes came about"
                )
            return False
        return not open_

    def check_end(self) -> None:
        """What was answered, against what became final."""
        ledger, wall_ms = self._checkers.ledger.plain, self._stage.get_wall_ms()
        for offer in self.offers:
            tx = offer.transaction
            if tx is None or tx.id in ledger.places:
                continue
            account = ledger.accounts.get(tx.sender)
            is_used = account is not None and tx.nonce in account.used
            if offer.promise == SOUND and offer.is_acknowledged:
                self._checkers.fail(
                    f"acknowledged: a sound payment taken by {offer.told} is not final ({offer.answer})"
                )
            elif offer.answer == "nonce_used" and not is_used:
                self._checkers.fail(
                    f"answers: nonce {tx.nonce} of 0x{tx.sender.hex()} was called used, and was not"
                )
            elif offer.answer == "expired" and self._is_timely(tx.expires_ms, wall_ms):
                self._checkers.fail(f"answers: 0x{tx.id.hex()} was called expired and is not")

    def _is_timely(self, expires_ms: int, wall_ms: int) -> bool:
        """Whether something that expires then is not expired yet, on any honest clock."""
        latest_ms = self._checkers.ledger.plain.headers[-1].timestamp_ms
        return expires_ms > max(wall_ms + self._rules.parameters.clock_drift_ms_max, latest_ms)
