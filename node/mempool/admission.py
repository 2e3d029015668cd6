"""Whether a transaction gets a place in this node's mempool, beyond being valid: policy, not consensus.

A sender's transactions may run ahead of its account by a bounded gap, must all be paid for by what it
has, and replace one another only for a higher fee; a full pool takes in only what pays more than
what it evicts for it.

Invariant: nothing here changes anything. Rejected and NotYet say what would help; NotYet is for what
may find its place later with the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from consensus.codec import check_int
from consensus.errors import NotYet, Rejected
from consensus.ledger.state import HOT, Account, View
from consensus.transaction import Transaction
from node.mempool.lines import Entry, Line, compute_fee_for, compute_price
from node.mempool.pending import Pending


@dataclass(frozen=True, slots=True)
class MempoolPolicy:
    """What this node takes in. Its own choice: nothing here makes anybody's block invalid."""

    count_max: int = 100_000  # twenty full blocks
    bytes_max: int = 64_000_000
    sender_count_max: int = 4_096  # of one sender: nearly a full block
    nonce_gap_max: int = 64  # above the highest nonce used or pending: what the ledger's window still reaches
    replace_percent: int = 10  # by how much a replacement must raise the fee, so that it pays for its gossip
    refusals_max: int = 16  # of one sender within the window; then it backs off
    refusals_window_ms: int = 60_000
    back_off_ms: int = 30_000
    drops_kept: int = 1 << 15  # whole transactions: 25 MB when full

    def __post_init__(self) -> None:
        for name in self.__slots__:
            check_int(getattr(self, name), f"mempool.{name}", low=1)


class Standing:
    """A sender's account as one batch finds it; balance -1: there is none."""

    __slots__ = ("balance", "nonce_offered", "nonce_used")

    def __init__(self, balance: int, nonce_next: int) -> None:
        self.balance = balance
        self.nonce_used = nonce_next - 1  # the highest; -1 for none
        self.nonce_offered = -1  # the highest of earlier candidates of the same batch


def read_standings(transactions: Sequence[Transaction], view: View) -> dict[bytes, Standing]:
    """All senders of a batch, their accounts read in one gather."""
    senders = list({tx.sender: None for tx in transactions})
    return {
        sender: Standing(balance if slot >= 0 else -1, nonce_next)
        for sender, (slot, balance, nonce_next, _) in zip(senders, _gather(senders, view), strict=True)
    }


def read_accounts(addresses: Sequence[bytes], view: View) -> list[Account]:
    """Their accounts, read in one gather; one that does not exist has nothing and has done nothing."""
    return [
        Account(address, balance, nonce_next, nonce_window)
        for address, (_, balance, nonce_next, nonce_window) in zip(
            addresses, _gather(addresses, view), strict=True
        )
    ]


def _gather(addresses: Sequence[bytes], view: View) -> list[tuple[int, int, int, int]]:
    """(slot, balance, nonce_next, nonce_window) of each; slot -1 and zeros where there is no account."""
    slots = view.find_slots(addresses)
    hot = np.ascontiguousarray(view.read_rows(np.array(slots, dtype=np.int64))[:, HOT]).view(">u8").T.tolist()
    return list(zip(slots, *hot, strict=True))


def check_place(
    policy: MempoolPolicy, tx: Transaction, standing: Standing, line: Line | None
) -> Entry | None:
    """Whether the sender's line has a place for it; the entry that it would replace."""
    if standing.balance < 0:
        raise Rejected(
            f"account 0x{tx.sender.hex()} does not exist",
            field="sender",
            mend="fund it first",
            code="unfunded",
        )
    cost, count = tx.amount + tx.fee, 0
    nonce_highest = max(standing.nonce_used, standing.nonce_offered)
    replaced: Entry | None = None
    if line is not None:
        cost += line.cost
        count = len(line.entries)
        nonce_highest = max(nonce_highest, line.entries[-1].nonce)
        replaced = line.find(tx.nonce)
    if tx.nonce > nonce_highest + policy.nonce_gap_max:
        raise NotYet(
            f"{tx.nonce} is more than {policy.nonce_gap_max} above {nonce_highest}, the highest used or pending",
            field="nonce",
            mend="send the ones between first",
            code="nonce_gap",
        )
    if replaced is not None:
        raised = replaced.tx.fee + max(1, -(-replaced.tx.fee * policy.replace_percent // 100))
        fee_min = max(raised, compute_fee_for(replaced.price, len(tx.raw)))  # nor worth less per byte
        if tx.fee < fee_min:
            raise Rejected(
                f"{tx.fee}, replacing the pending one of the same nonce costs {fee_min}",
                field="fee",
                mend=f"use {fee_min}, or another nonce",
                code="replacement_fee",
            )
        cost -= replaced.cost
    elif count >= policy.sender_count_max:
        raise NotYet(
            f"{count} transactions of this sender are pending, no more are taken",
            field="sender",
            mend="wait until some are final",
            code="sender_full",
        )
    if cost > standing.balance:
        raise Rejected(
            f"with the sender's other pending transactions {cost}, it has {standing.balance}",
            field="amount",
            code="unfunded",
        )
    return replaced


def plan_room(
    policy: MempoolPolicy, pending: Pending, tx: Transaction, line: Line | None, replaced: Entry | None
) -> list[Entry]:
    """Whom to evict for it. Raises NotYet when the pool is full of better ones."""
    bytes_over = pending.size_bytes + len(tx.raw) - policy.bytes_max
    count_over = pending.count + 1 - policy.count_max
    if replaced is not None:
        bytes_over -= replaced.size_bytes
        count_over -= 1
    if count_over <= 0 and bytes_over <= 0:
        return []
    price = own_price = compute_price(tx.fee, len(tx.raw))
    if line is not None and line.entries[0].nonce < tx.nonce and replaced is None:
        price = min(price, line.prices[0])  # it waits behind the sender's cheapest
    victims = pending.plan_eviction(price, count_over, bytes_over, tx.sender)
    if victims is None:
        fee = compute_fee_for(pending.get_price_floor() + 1, len(tx.raw))
        mend = f"pay {fee} or more, or try later"
        if price < own_price:
            mend = "it waits behind a cheaper one of the same sender: send that one again with a larger fee, or try later"
        raise NotYet(
            f"{len(pending)} transactions ({pending.size_bytes} bytes) are pending, all paying at least as much",
            field="fee",
            mend=mend,
            code="pool_full",
        )
    return victims
