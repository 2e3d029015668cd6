"""Before anything is measured: every sender gets what its rows need, from accounts that hold enough.

Funding is judged like any payment, so it is made to look like what it is, a regular payout: a funder pays
all of its senders alike, one every quarter of an hour of the chain's own clock (a workload's clock costs
nothing to move), and what is refused all the same is paid in two halves.
Invariant: nothing is sent unless the funders hold it all; each funder's nonces are contiguous but for
refusals. Leaves out: giving anything back; a wall clock, where a payout pace would cost real time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from consensus.errors import Fault, Rejected
from node.replay.delivery import Delivery, Fate, Parcel, Place, Refused
from node.replay.network import Holding, NetworkClient, NodeAway
from node.replay.schedule import Schedule
from node.replay.signer import Signer

ASKS_MAX: Final = 16  # account questions in flight; a node answers one in a millisecond
ASK_AGAIN_S: Final = 0.3
PACE_MS: Final = 900_000  # of one funder's payments, on the chain's clock: no burst by anybody's rule
HALVINGS_MAX: Final = 6  # of one payment; a 64th that is refused says that funding will not work here


@dataclass(slots=True)
class Funder:
    """A funded account; `left` is what it may still give (its fees included)."""

    signer: Signer
    left: int


@dataclass(frozen=True, slots=True)
class Payment:
    """`sender` indexes the trace's names. halvings: how often it was refused and cut in two."""

    sender: int
    amount: int
    halvings: int = 0


Plan = list[deque[Payment]]  # one line of payments per funder


async def read_holdings(network: NetworkClient, addresses: Sequence[bytes]) -> list[Holding]:
    """Balances and nonces after the last final block, in order; any node that answers will do."""
    gate = asyncio.Semaphore(ASKS_MAX)
    nodes = len(network.names)

    async def ask(place: int, address: bytes) -> Holding:
        async with gate:
            node = place % nodes
            while True:
                try:
                    return await network.get_account(node, address)
                except NodeAway as away:
                    node = (node + 1) % nodes
                    await asyncio.sleep(away.retry_ms / 1000 or ASK_AGAIN_S)

    return list(await asyncio.gather(*(ask(i, address) for i, address in enumerate(addresses))))


def plan_funding(schedule: Schedule, holdings: Sequence[Holding], funders: Sequence[Funder]) -> Plan:
    """Who pays whom how much. Raises Rejected when the funders hold too little.

    Senders are sorted by what they lack and cut into one band per funder, so that a funder's equal
    payments waste little; if even that is too much, everybody is paid exactly.
    """
    fee = schedule.facts.fee
    lacking = sorted(
        (need - holding.balance, sender)
        for (sender, need), holding in zip(schedule.needs.items(), holdings, strict=True)
        if holding.balance < need
    )
    size = max(1, -(-len(lacking) // max(1, len(funders))))
    bands = [lacking[start : start + size] for start in range(0, len(lacking), size)]
    by_wealth = sorted(range(len(funders)), key=lambda i: -funders[i].left)
    # The dearest band goes to the richest funder. Room for halving: twice the fees.
    seats = list(zip(by_wealth, reversed(bands), strict=False))
    alike = {funder: len(band) * (band[-1][0] + 2 * fee) for funder, band in seats}
    is_alike = all(cost <= funders[funder].left for funder, cost in alike.items())
    plan: Plan = [deque() for _ in funders]
    for funder, band in seats:
        for amount, sender in sorted(band, key=lambda item: item[1]):
            plan[funder].append(Payment(sender, band[-1][0] if is_alike else amount))
        cost = sum(payment.amount + 2 * fee for payment in plan[funder])
        if cost > funders[funder].left or len(bands) > len(funders):
            raise Rejected(
                f"the senders lack {sum(amount for amount, _ in lacking)} units, more than the funded accounts hold",
                field="funding",
                mend="give a --key with a larger balance, or replay fewer rows with --limit",
                code="unfunded",
            )
    return plan


class Funding:
    """Sends a plan and waits until all of it is final."""

    def __init__(self, schedule: Schedule, delivery: Delivery, funders: Sequence[Funder]) -> None:
        self._schedule = schedule
        self._delivery = delivery
        self._funders = funders
        self._open = 0
        self._problem = ""
        self.count = 0

    async def run(self, plan: Plan, clock_ms: int, now_ms: Callable[[], int]) -> None:
        """`clock_ms`: the chain's clock, `now_ms` the wall's. Raises Fault when a payment cannot be made."""
        is_workload = self._schedule.facts.is_workload_clock
        times = [clock_ms] * len(plan)
        while (self._open or any(plan)) and not self._problem:
            for funder, line in enumerate(plan):
                while line and self._funders[funder].signer.has_room:
                    time_ms = times[funder] if is_workload else now_ms()
                    times[funder] += PACE_MS
                    self._send(funder, line, line.popleft(), time_ms)
            await self._delivery.wait_change()
        if self._problem:
            raise Fault(
                self._problem,
                field="funding",
                mend="replay on a network that does not refuse (--no-refusals)",
            )

    async def advance_clock(self, time_ms: int) -> None:
        """Move a workload's clock to `time_ms`, at most its longest jump ahead: an account pays itself nothing."""
        signer = self._funders[0].signer
        self._post(signer, signer.key.address, 0, time_ms, self._end_tick)
        while self._open and not self._problem:
            await self._delivery.wait_change()
        if self._problem:
            raise Fault(
                self._problem, field="clock", mend="replay on a network that does not refuse (--no-refusals)"
            )

    def _send(self, funder: int, line: deque[Payment], payment: Payment, time_ms: int) -> None:
        fates: list[Fate] = []

        def end(_: Parcel, fate: Fate) -> None:
            fates.append(fate)
            if len(fates) > 1:
                return  # refused, cut in two, and final all the same: the sender has more than it needs
            self._open -= 1
            if isinstance(fate, Refused) and payment.halvings < HALVINGS_MAX and payment.amount > 1:
                half = Payment(payment.sender, -(-payment.amount // 2), payment.halvings + 1)
                line.extend((half, half))
            elif not isinstance(fate, Place):
                self._problem = f"a payment of {payment.amount} did not become final ({fate.reason})"

        address = self._schedule.addresses[payment.sender]
        self._post(self._funders[funder].signer, address, payment.amount, time_ms, end)

    def _end_tick(self, _: Parcel, fate: Fate) -> None:
        self._open -= 1
        if not isinstance(fate, Place):
            self._problem = f"a payment of nothing did not become final ({fate.reason})"

    def _post(
        self,
        signer: Signer,
        receiver: bytes,
        amount: int,
        time_ms: int,
        on_fate: Callable[[Parcel, Fate], None],
    ) -> None:
        facts = self._schedule.facts
        tx = signer.sign(
            receiver=receiver,
            amount=amount,
            fee=facts.fee,
            timestamp_ms=time_ms,
            expires_ms=time_ms + facts.lifetime_ms,
        )
        self._open += 1
        self.count += 1
        self._delivery.post(Parcel(tx, signer, on_fate))
