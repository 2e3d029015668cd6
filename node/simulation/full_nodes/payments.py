"""What a simulated network's clients write: sound payments, rivals for one nonce, bad bytes, fraud reports.

The funded keys are shared out. Issuers, whom no module judges, pay often: the first half soundly, the
second half cheats. All others are people: whoever of them pays several times at once is soon refused.

Invariant: a maker draws chance from its own generator alone, so that a run replays; a sound payment
stays sound whatever else is sent. Leaves out: where and when they are sent (`workload.py`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from consensus.codec import MONEY_MAX
from consensus.crypto import PrivateKey, compute_address
from consensus.errors import Rejected
from consensus.ledger.cases import encode_about
from consensus.ledger.report import build_report_payload, decode_payload, encode_payload
from consensus.ledger.rules import Rules
from consensus.ledger.unbond import ALL, encode_units
from consensus.merkle import HashTree, hash_leaf
from consensus.parameters import CLOCK_WORKLOAD
from consensus.transaction import (
    KIND_BOND,
    KIND_DISPUTE_REPORT,
    KIND_REPORT,
    KIND_TRANSFER,
    KIND_UNBOND,
    KIND_WITHDRAW_REPORT,
    Transaction,
    sign_transaction,
)
from node.simulation.full_nodes.plain_ledger import PlainLedger

SHORT_MS: Final = 400  # two view timeouts: some of these expire
STEP_MS: Final = (
    50  # on the workload clock, from one payment to the next, at most: a block's time rises in it
)
DELEGATION_PARTS: Final = 100  # of a validator's stake: all that a run delegates lifts nobody to a third
NONCE_FAR: Final = 100_000  # above all that a mempool takes ahead

SOUND: Final = "sound"  # must become final
RIVAL: Final = "rival"  # may become final, or lose to another
JUDGED: Final = "judged"  # the modules decide
SPOILED: Final = "spoiled"  # nobody may take it


@dataclass(slots=True)
class Offer:
    """Bytes for a node. promise: SOUND, RIVAL, JUDGED or SPOILED; transaction: None for what is none.

    The rest is the client's memory of it. answer: how it ended ("final", or a code), "" while open.
    """

    raw: bytes
    transaction: Transaction | None
    promise: str
    is_acknowledged: bool = False
    answer: str = ""
    due_ms: int = 0  # when to ask again
    told: list[int] = field(default_factory=list)  # nodes that took it


class Payments:
    """Makes offers. `ledger` is what the world has seen become final; at least four keys are issuers'."""

    def __init__(
        self, rules: Rules, keys: Sequence[PrivateKey], rng: random.Random, ledger: PlainLedger
    ) -> None:
        self._rules = rules
        self._rng = rng
        self._ledger = ledger
        issuers = [key for key in keys if key.address in rules.issuers]
        self._people = [key for key in keys if key.address not in rules.issuers]
        self._payers = issuers[: len(issuers) // 2]
        self._cheats = issuers[len(issuers) // 2 :]
        self._keys = {key.address: key for key in keys}
        self._reporters = [key for key in keys if key.address in rules.genesis.reporters]
        if not (self._payers and self._cheats and self._people):
            raise Rejected("need two issuers and a person", field="keys", mend="fund more accounts")
        self._nonces: dict[bytes, int] = {}
        self._strangers = 0
        self._chain_ms = rules.genesis.timestamp_ms  # of the workload's clock
        self._ways: tuple[tuple[int, Callable[[int], list[Offer]]], ...] = (
            (10, self.pay),
            (3, self.open_account),
            (3, self.collide),
            (2, self.spend_twice),
            (2, self.hurry),
            (3, self.spoil),
            (3, self.press),
            (3, self.report),
            (2, self.contest),
            *(((3, self.delegate),) if rules.parameters.epoch_blocks else ()),
        )

    def make(self, wall_ms: int) -> list[Offer]:
        """A few offers that belong together, each to be sent somewhere. wall_ms: the clients' clock."""
        shares, ways = zip(*self._ways, strict=True)
        way: Callable[[int], list[Offer]] = self._rng.choices(ways, shares)[0]
        return way(wall_ms)

    # --- sound ----------------------------------------------------------------------------------------

    def pay(self, wall_ms: int) -> list[Offer]:
        payer = self._rng.choice(self._payers)
        return [self._offer(SOUND, self._sign(payer, self._choose_receiver(), wall_ms))]

    def open_account(self, wall_ms: int) -> list[Offer]:
        """To an address that nobody has used."""
        self._strangers += 1
        stranger = PrivateKey.from_seed(f"stranger/{self._strangers}".encode())
        fee = self._rules.parameters.fee_units_min + (
            self._rules.row_bytes * self._rules.parameters.account_byte_fee_units
        )
        transfer = self._sign(self._rng.choice(self._payers), stranger.address, wall_ms, fee=fee)
        return [self._offer(SOUND, transfer)]

    # --- either of them -------------------------------------------------------------------------------

    def collide(self, wall_ms: int) -> list[Offer]:
        """Two with one nonce: one becomes final at most."""
        cheat = self._rng.choice(self._cheats)
        nonce = self._take_nonce(cheat)
        fees = [self._rules.parameters.fee_units_min + self._rng.randrange(3) for _ in range(2)]
        rivals = [self._sign(cheat, self._choose_receiver(), wall_ms, nonce=nonce, fee=fee) for fee in fees]
        return [self._offer(RIVAL, rival) for rival in rivals]

    def spend_twice(self, wall_ms: int) -> list[Offer]:
        """Two that each cost more than half of what there is."""
        cheat = self._rng.choice(self._cheats)
        amount = self._ledger.accounts[cheat.address].balance * 2 // 3
        receiver = self._rng.choice(self._cheats).address  # the money stays where it can be spent again
        pair = [self._sign(cheat, receiver, wall_ms, amount=amount) for _ in range(2)]
        return [self._offer(RIVAL, transfer) for transfer in pair]

    def hurry(self, wall_ms: int) -> list[Offer]:
        """One that expires soon, or is dated ahead of the clocks."""
        cheat, receiver = self._rng.choice(self._cheats), self._choose_receiver()
        if self._rng.random() < 0.5:
            lifetime_ms = 1 + self._rng.randrange(SHORT_MS)
            return [self._offer(RIVAL, self._sign(cheat, receiver, wall_ms, lifetime_ms=lifetime_ms))]
        ahead_ms = self._rng.randrange(self._rules.parameters.clock_drift_ms_max + SHORT_MS)
        return [self._offer(RIVAL, self._sign(cheat, receiver, wall_ms + ahead_ms))]

    def delegate(self, wall_ms: int) -> list[Offer]:
        """A little to some validator, or all of it back, be there anything or not."""
        cheat = self._rng.choice(self._cheats)
        validator = self._rng.choice(self._rules.validators.validators)
        operator = compute_address(validator.public_key)
        if self._rng.random() < 0.6:
            amount = self._rules.parameters.stake_units_min // DELEGATION_PARTS
            bond = self._sign(cheat, operator, wall_ms, kind=KIND_BOND, amount=amount)
            return [self._offer(RIVAL, bond)]
        payload = encode_units(ALL)
        return [
            self._offer(
                RIVAL, self._sign(cheat, operator, wall_ms, kind=KIND_UNBOND, amount=0, payload=payload)
            )
        ]

    # --- judged ---------------------------------------------------------------------------------------

    def press(self, wall_ms: int) -> list[Offer]:
        """One person pays several times in a minute, more each time: some of it is refused."""
        person, amount = self._rng.choice(self._people), 10
        offers = []
        for _ in range(self._rng.randrange(1, 6)):
            amount *= 1 + self._rng.randrange(20)
            transfer = self._sign(person, self._choose_receiver(), wall_ms, amount=amount)
            offers.append(self._offer(JUDGED, transfer))
        return offers

    def report(self, wall_ms: int) -> list[Offer]:
        """A report on a final transfer; at times by two at once, or misquoted."""
        blocks = [block for block in self._ledger.blocks[:-1] if block.transactions]
        if not blocks or not self._reporters:
            return self.pay(wall_ms)
        block = self._rng.choice(blocks)
        index = self._rng.randrange(len(block.transactions))
        reported = block.transactions[index]
        if reported.kind != KIND_TRANSFER:
            return self.pay(wall_ms)
        anchor_height = self._ledger.height
        leaves = [hash_leaf(header.hash) for header in self._ledger.headers[:anchor_height]]
        proof = HashTree(leaves).prove_inclusion(block.header.height, anchor_height)
        payload = build_report_payload(block, index, anchor_height, proof)
        promise = RIVAL  # somebody may have reported it before
        if self._rng.random() < 0.2:
            told = decode_payload(payload)
            payload, promise = encode_payload(replace(told, index=told.index + 1)), SPOILED
        return [
            self._offer(
                promise,
                self._sign(reporter, reported.receiver, wall_ms, kind=KIND_REPORT, amount=0, payload=payload),
            )
            for reporter in self._rng.sample(self._reporters, min(2, len(self._reporters)))
        ]

    def contest(self, wall_ms: int) -> list[Offer]:
        """A report is taken back, or disputed by who sent or received the money; at times by a stranger."""
        rng, cases = self._rng, [case for case in self._ledger.reported.values() if case.standing]
        if not cases:
            return self.report(wall_ms)
        case = rng.choice(cases)
        reported, payload = case.reported, encode_about(case.reported)
        if rng.random() < 0.6:
            key, kind, amount = self._keys[rng.choice(sorted(case.standing))], KIND_WITHDRAW_REPORT, 0
        else:
            key, kind = self._keys.get(reported.receiver, self._cheats[0]), KIND_DISPUTE_REPORT
            amount = self._rules.parameters.dispute_deposit_units
        return [
            self._offer(
                RIVAL, self._sign(key, reported.receiver, wall_ms, kind=kind, amount=amount, payload=payload)
            )
        ]

    # --- spoiled --------------------------------------------------------------------------------------

    def spoil(self, wall_ms: int) -> list[Offer]:
        """What no node may take, in one way or another."""
        rng, cheat, receiver = self._rng, self._rng.choice(self._cheats), self._choose_receiver()
        way = rng.randrange(9)
        if way == 0:
            return [Offer(rng.randbytes(1 + rng.randrange(200)), None, SPOILED)]
        parameters = self._rules.parameters
        if way == 5:
            cheat = PrivateKey.from_seed(b"nobody's")
        tx = self._sign(
            cheat,
            receiver,
            wall_ms,
            chain_id="another-chain" if way == 6 else "",
            payload=b"\x00" if way == 7 else b"",
            # What is spoiled uses up no nonce.
            nonce=NONCE_FAR if way == 4 else self._nonces.get(cheat.address, 0),
            amount=MONEY_MAX // 2 if way == 2 else -1,
            fee=parameters.fee_units_min - 1 if way == 1 else -1,
            lifetime_ms=parameters.lifetime_ms_max + 1 if way == 3 else 0,
        )
        if way == 8:
            tx = replace(tx, signature=rng.randbytes(64))
        return [self._offer(SPOILED, tx)]

    # --- tools ----------------------------------------------------------------------------------------

    def _offer(self, promise: str, tx: Transaction) -> Offer:
        return Offer(tx.raw, tx, promise)

    def _choose_receiver(self) -> bytes:
        return self._rng.choice(self._people + self._payers).address

    def _take_nonce(self, key: PrivateKey) -> int:
        nonce = self._nonces.get(key.address, 0)
        self._nonces[key.address] = nonce + 1
        return nonce

    def _sign(
        self,
        key: PrivateKey,
        receiver: bytes,
        wall_ms: int,
        *,
        kind: int = KIND_TRANSFER,
        chain_id: str = "",
        payload: bytes = b"",
        nonce: int = -1,
        amount: int = -1,
        fee: int = -1,
        lifetime_ms: int = 0,
    ) -> Transaction:
        """-1, and a lifetime of 0: as usual. wall_ms: the time it is dated; a workload's times rise from there."""
        now_ms = wall_ms
        if self._rules.parameters.clock == CLOCK_WORKLOAD:
            self._chain_ms = max(self._chain_ms, wall_ms) + self._rng.randrange(STEP_MS)
            now_ms = self._chain_ms
        return sign_transaction(
            key,
            chain_id or self._rules.chain_id,
            kind=kind,
            nonce=self._take_nonce(key) if nonce < 0 else nonce,
            receiver=receiver,
            amount=1 + self._rng.randrange(1_000) if amount < 0 else amount,
            fee=self._rules.parameters.fee_units_min if fee < 0 else fee,
            timestamp_ms=now_ms,
            expires_ms=now_ms + (lifetime_ms or self._rules.parameters.lifetime_ms_max),
            payload=payload,
        )
