"""Before anything is measured: every sender gets what its rows need, from accounts that hold enough.

Several funders send at once, each with contiguous nonces. What a sender holds already counts. Funding
carries the chain's clock as its time, so that it does not move a workload's clock.
Invariant: nothing is sent unless the funders hold it all. Leaves out: giving anything back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from consensus.errors import Fault, Rejected
from node.replay.delivery import Delivery, Failed, Fate, Parcel, Place, Refused
from node.replay.network import Holding, NetworkClient, NodeAway
from node.replay.schedule import Schedule
from node.replay.signer import Signer

ASKS_MAX: Final = 16  # account questions in flight; a node answers one in a millisecond
ASK_AGAIN_S: Final = 0.3


@dataclass(slots=True)
class Funder:
    """A funded account; `left` is what it may still give (its fees included)."""

    signer: Signer
    left: int


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


def plan_funding(
    schedule: Schedule, holdings: Sequence[Holding], funders: Sequence[Funder]
) -> list[tuple[int, int, int]]:
    """(funder, sender's index in the trace's names, amount). Raises Rejected when the funders hold too little."""
    fee = schedule.facts.fee
    plan = []
    for (sender, need), holding in zip(schedule.needs.items(), holdings, strict=True):
        if holding.balance < need:
            # The one that holds most gives: amounts spread evenly, and so do nonces.
            funder = max(range(len(funders)), key=lambda i: funders[i].left, default=-1)
            amount = need - holding.balance
            if funder < 0 or funders[funder].left < amount + fee:
                total = sum(schedule.needs.values())
                raise Rejected(
                    f"senders need {total} units in all, the funded accounts do not hold enough",
                    field="funding",
                    mend="give a --key with a larger balance, or replay fewer rows with --limit",
                    code="unfunded",
                )
            funders[funder].left -= amount + fee
            plan.append((funder, sender, amount))
    return plan


class Funding:
    """Sends a plan and waits until all of it is final."""

    def __init__(self, schedule: Schedule, delivery: Delivery, funders: Sequence[Funder]) -> None:
        self._schedule = schedule
        self._delivery = delivery
        self._funders = funders
        self._left = 0
        self._problem = ""
        self.count = 0

    async def run(self, plan: Sequence[tuple[int, int, int]], now_ms: Callable[[], int]) -> None:
        """Raises Fault when a transfer cannot be made final."""
        queues: dict[int, list[tuple[int, int]]] = {}
        for funder, sender, amount in reversed(plan):
            queues.setdefault(funder, []).append((sender, amount))
        self._left = len(plan)
        while self._left and not self._problem:
            for funder, queue in queues.items():
                signer = self._funders[funder].signer
                while queue and signer.has_room:
                    sender, amount = queue.pop()
                    self._send(signer, self._schedule.addresses[sender], amount, now_ms())
            await self._delivery.wait_change()
        if self._problem:
            raise Fault(self._problem, field="funding", mend="replay on a network with other modules")

    async def advance_clock(self, time_ms: int) -> None:
        """Move a workload's clock to `time_ms`, at most its longest jump ahead: an account pays itself nothing."""
        self._left = 1
        signer = self._funders[0].signer
        self._send(signer, signer.key.address, 0, time_ms)
        while self._left and not self._problem:
            await self._delivery.wait_change()
        if self._problem:
            raise Fault(self._problem, field="clock")

    def _send(self, signer: Signer, receiver: bytes, amount: int, time_ms: int) -> None:
        facts = self._schedule.facts
        tx = signer.sign(
            receiver=receiver,
            amount=amount,
            fee=facts.fee,
            timestamp_ms=time_ms,
            expires_ms=time_ms + facts.lifetime_ms,
        )
        self.count += 1
        self._delivery.post(Parcel(tx, signer, self._on_fate))

    def _on_fate(self, parcel: Parcel, fate: Fate) -> None:
        match fate:
            case Place():
                self._left -= 1
            case Refused():
                self._problem = f"a transfer of {parcel.tx.amount} was refused ({fate.reason})"
            case Failed():
                self._problem = f"a transfer of {parcel.tx.amount} failed ({fate.reason})"
