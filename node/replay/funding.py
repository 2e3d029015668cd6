"""Before anything is measured: every sender gets what its rows need, from accounts that hold enough.

Issuers fund where the chain has some: nobody judges what they send. Elsewhere funding is judged like any
payment, so it is made to look like what it is, a regular payout: a funder pays everybody alike, one every
quarter of an hour of the chain's own clock (a workload's clock costs nothing to move), and what is
refused all the same is paid in two halves.
Invariant: nothing is sent unless the funders hold it all; each funder's nonces are contiguous but for
refusals. Leaves out: giving anything back; a wall clock, where a payout pace would cost real time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from consensus.errors import Fault, Rejected
from node.replay.delivery import Delivery, Fate, Parcel, Place, Refused
from node.replay.network import Holding, NetworkClient, NodeAway
from node.replay.schedule import Schedule
from node.replay.signer import Signer

ASKS_MAX: Final = 16  # account questions in flight; a node answers one in a millisecond
ASK_AGAIN_S: Final = 0.3
ASK_ATTEMPTS_MAX: Final = 100  # half a minute: a node may just be starting
PACE_MS: Final = 900_000  # of one funder's payments, on the chain's clock: no burst by anybody's rule
# What a funder pays, to everybody and in every replay: a payment ten times its usual would look like theft.
PAYOUTS: Final = (10**9, 10**12, 10**14)
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
            for attempt in range(ASK_ATTEMPTS_MAX):
                try:
                    return await network.get_account((place + attempt) % nodes, address)
                except NodeAway as away:
                    problem = away
                    await asyncio.sleep(away.retry_ms / 1000 or ASK_AGAIN_S)
            raise Fault(f"no node tells of account 0x{address.hex()} ({problem})", mend="look at the nodes")

    return list(await asyncio.gather(*(ask(i, address) for i, address in enumerate(addresses))))


def plan_funding(schedule: Schedule, holdings: Sequence[Holding], funders: Sequence[Funder]) -> Plan:
    """Who pays whom how much. Raises Rejected when the funders hold too little.

    Everybody gets the same payout if the funders hold enough for that, else exactly what it lacks.
    """
    lacking = {
        sender: need - holding.balance
        for (sender, need), holding in zip(schedule.needs.items(), holdings, strict=True)
        if holding.balance < need
    }
    fee = 2 * schedule.facts.fee  # room for cutting a payment in two
    payout = next((payout for payout in PAYOUTS if payout >= max(lacking.values(), default=0)), 0)
    for is_alike in (True, False):
        amounts = {sender: payout if is_alike else amount for sender, amount in lacking.items()}
        plan = _assign(amounts, fee, funders)
        if plan is not None and (payout or not is_alike):
            return plan
    raise Rejected(
        f"the senders lack {sum(lacking.values())} units, more than the funded accounts hold",
        field="funding",
        mend="give a --key with a larger balance, or replay fewer rows with --limit",
        code="unfunded",
    )


def _assign(amounts: Mapping[int, int], fee: int, funders: Sequence[Funder]) -> Plan | None:
    """Payments in turn over the funders that can afford them; None when nobody can."""
    plan: Plan = [deque() for _ in funders]
    left = [funder.left for funder in funders]
    turn = 0
    for sender, amount in amounts.items():
        able = (
            i % len(funders)
            for i in range(turn, turn + len(funders))
            if left[i % len(funders)] >= amount + fee
        )
        funder = next(able, None)
        if funder is None:
            return None
        left[funder] -= amount + fee
        plan[funder].append(Payment(sender, amount))
        turn = funder + 1
    return plan


class Funding:
    """Sends a plan and waits until all of it is final."""

    def __init__(
        self, schedule: Schedule, delivery: Delivery, funders: Sequence[Funder], *, pace_ms: int
    ) -> None:
        self._schedule = schedule
        self._delivery = delivery
        self._funders = funders
        self._pace_ms = pace_ms  # between one funder's payments, on a workload's clock
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
                    times[funder] += self._pace_ms
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
