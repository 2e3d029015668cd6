"""A workload's rows as the chain will see them: accounts, times, fees, nonces.

Every name is one account, its key derived from (seed, name), receivers' too. On a chain with the workload's
clock, times are the file's, moved by whole days: forward when the file starts behind the chain's clock,
back when it starts (or pauses) longer than the chain lets its clock jump. On a wall clock a row's
time is the moment it is signed. Invariant: a pure function of workload, seed, genesis and the chain's
clock and nonces at the start; so the same replay on the same genesis gives the same transaction ids.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consensus import codec, crypto
from consensus.errors import Rejected
from consensus.ledger.scoring import MODULE_ROW_BYTES_MAX
from consensus.ledger.state import ROW_FIXED_BYTES
from consensus.parameters import CLOCK_WORKLOAD, DAY_MS, MODULES_MAX, Parameters
from ml.dataset import Trace

KEY_TAG: Final = b"assay/workload-account/1"

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ChainFacts:
    """What a client must know of a chain to write transactions for it."""

    chain_id: str
    is_workload_clock: bool
    jump_ms_max: int
    lifetime_ms: int
    report_window_ms: int
    fee: int  # enough for any transfer, one that creates its receiver's account included
    report_fee: int


def build_facts(chain_id: str, parameters: Parameters) -> ChainFacts:
    # Whether a receiver exists when its row is applied depends on what was refused before it, so every
    # row offers the surcharge (of the largest row there can be); it is 0 unless a chain sets it.
    row_bytes = ROW_FIXED_BYTES + MODULE_ROW_BYTES_MAX * MODULES_MAX
    return ChainFacts(
        chain_id=chain_id,
        is_workload_clock=parameters.clock == CLOCK_WORKLOAD,
        jump_ms_max=parameters.clock_jump_ms_max,
        lifetime_ms=parameters.lifetime_ms_max,
        report_window_ms=parameters.report_window_ms,
        fee=parameters.fee_units_min + row_bytes * parameters.account_byte_fee_units,
        report_fee=parameters.fee_units_min,
    )


def derive_key(seed: int, name: str) -> crypto.PrivateKey:
    """The key of a workload's account. Anybody can derive it: it guards nothing of value."""
    return crypto.PrivateKey.from_seed(codec.encode((KEY_TAG, str(seed), name)))


@dataclass(frozen=True, slots=True)
class Schedule:
    """n rows. time_ms: int64[n], the rows' own clock (the chain's, where that follows the workload).

    keys: by index into trace.names, senders only; addresses: bytes of every name; needs: int, by sender's
    index, all that its rows move and cost.
    """

    trace: Trace
    facts: ChainFacts
    time_ms: Int64s
    keys: dict[int, crypto.PrivateKey]
    addresses: list[bytes]
    needs: dict[int, int]

    def __len__(self) -> int:
        return len(self.trace)


def build_schedule(trace: Trace, facts: ChainFacts, seed: int) -> Schedule:
    """Times are those of the file until `set_times`. Raises Rejected when the rows move more than there can be."""
    keys: dict[int, crypto.PrivateKey] = {}
    addresses = []
    for index, name in enumerate(trace.names):
        keys[index] = derive_key(seed, name)
        addresses.append(keys[index].address)
    needs: dict[int, int] = {}
    for sender, amount in zip(trace.sender.tolist(), trace.amount.tolist(), strict=True):
        if amount + facts.fee > codec.MONEY_MAX:
            raise Rejected(
                f"{amount} leaves no room for the fee of {facts.fee}", field="amount", mend="scale it down"
            )
        needs[sender] = needs.get(sender, 0) + amount + facts.fee
    if sum(needs.values()) > codec.MONEY_MAX:
        raise Rejected(
            f"the rows move {sum(needs.values())} units with fees, more than there can be ({codec.MONEY_MAX})",
            field="amount",
            mend="scale the amounts down, or replay fewer rows with --limit",
        )
    senders = {index: keys[index] for index in needs}
    return Schedule(trace, facts, trace.time_ms, senders, addresses, needs)


def set_times(schedule: Schedule, clock_ms: int) -> Schedule:
    """The schedule with times that a chain at `clock_ms` can follow. Raises Rejected."""
    if not schedule.facts.is_workload_clock:
        return schedule
    return replace(schedule, time_ms=shift_times(schedule.trace.time_ms, schedule.facts, clock_ms))


def shift_times(time_ms: Int64s, facts: ChainFacts, clock_ms: int) -> Int64s:
    """Times that a chain at `clock_ms` can follow, moved by whole days only. Raises Rejected."""
    late = -(-max(0, clock_ms - int(time_ms[0])) // DAY_MS)
    # From the chain's day, not its moment: what ids depend on should not hang on minutes of funding.
    pauses = np.diff(time_ms, prepend=clock_ms // DAY_MS * DAY_MS)
    # A pause that is too long keeps its time of day: it loses the fewest whole days that make it fit.
    excess = np.maximum(0, pauses - facts.jump_ms_max)
    days = -(-excess // DAY_MS)
    days[0] -= late
    shifted: Int64s = time_ms - np.cumsum(days) * DAY_MS
    if facts.jump_ms_max < DAY_MS and bool((np.diff(shifted, prepend=clock_ms) < 0).any()):
        raise Rejected(
            f"pauses longer than {facts.jump_ms_max} ms, the chain's longest, cannot be shortened by whole days",
            field="t",
            mend="use a chain whose clock_jump_ms_max is at least a day",
        )
    if int(shifted[-1]) + facts.lifetime_ms > codec.TIME_MS_MAX:
        raise Rejected("the chain's clock cannot reach these times", field="t", mend="use a fresh network")
    return shifted
