"""Rewards and absence: what a block earns its proposer and the signers, and what an epoch's end settles.

A block's reward is its fees and at most `reward_units` of new money. A part is the proposer's, the rest
the signers' of the parent's certificate, by stake. Both are paid in the measure in which the whole stake
signed: what the absent would have earned is not issued, and as far as fees paid it, burned. So a
proposer gains by every signature that it carries, and nobody by another's absence.

Invariant: every unit of fees and of new money is somebody's or counted as burned. An epoch's end touches
the validators of its set and nothing that grows without bound; delegators gain through the worth of
their shares. Leaves out: who is in the next set (selection.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from consensus import vote
from consensus.ledger import epochs, participation, selection, staking, supply
from consensus.ledger.epochs import EpochSet
from consensus.ledger.participation import Participation
from consensus.ledger.records import Records
from consensus.ledger.staking import Counters
from consensus.parameters import WHOLE_BP, Parameters

if TYPE_CHECKING:
    from consensus.ledger.work import Work


def close_block(work: Work, proposer: int, certificate: vote.Certificate | None) -> None:
    """Counts who was there, pays fees and issue, and at the boundary closes the epoch.

    proposer: index in the epoch's set. certificate: the parent's; None in the first block of an epoch.
    """
    parameters, epoch_set = work.parameters, epochs.get_set(work.records, work.epoch)
    found = participation.get_participation(work.records)
    if not found.signed:
        found = participation.create_participation(len(epoch_set.operators))
    if certificate is None:
        # Nobody is counted, nothing is issued: an epoch's first block pays its proposer the fees.
        found = found.add((), ((proposer, work.fees),), is_counted=False)
    else:
        money = supply.get_supply(work.records)
        reward = work.fees + min(parameters.reward_units, money.issuable)
        paid = split_reward(epoch_set, parameters, reward, proposer, certificate.signers)
        found = found.add(sorted({proposer, *certificate.signers}), paid, is_counted=True)
        _book_payment(work, sum(units for _, units in paid))
    work.fees = 0
    work.records = participation.put_participation(work.records, found)
    if epochs.is_boundary(work.height, parameters.epoch_blocks):
        work.records = close_epoch(work.records, parameters, work.epoch)


def split_reward(
    epoch_set: EpochSet, parameters: Parameters, reward: int, proposer: int, signers: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """(index, units) of all who earn something of `reward`; together at most `reward`."""
    validators = epoch_set.validators
    stakes = [validators.validators[signer].stake for signer in signers]
    rest = reward - reward * parameters.proposer_bp // WHOLE_BP
    shares = [
        (signer, rest * stake // validators.total) for signer, stake in zip(signers, stakes, strict=True)
    ]
    paid = reward * sum(stakes) // validators.total
    return ((proposer, paid - sum(units for _, units in shares)), *shares)  # rounding is the proposer's


def _book_payment(work: Work, paid: int) -> None:
    """What fees do not cover is issued; what of them nobody earned is burned."""
    if paid == work.fees:
        return
    money = supply.get_supply(work.records)
    work.records = supply.put_supply(
        work.records,
        replace(
            money,
            issued=money.issued + max(0, paid - work.fees),
            burned=money.burned + max(0, work.fees - paid),
        ),
    )


def close_epoch(records: Records, parameters: Parameters, epoch: int) -> Records:
    """The boundary block's last act: rewards, jail, the set of epoch + 2, and old sets forgotten."""
    epoch_set = epochs.get_set(records, epoch)
    found = participation.get_participation(records)
    for index, operator in enumerate(epoch_set.operators):
        records = _settle(records, parameters, epoch, operator, index, found)
    counters = staking.get_counters(records)
    left_units = counters.left_units if counters.epoch == epoch else 0
    previous = epochs.get_set(records, epoch + 1)
    chosen = selection.select_next_set(records, parameters, previous, left_units)
    records = epochs.put_set(records, epoch + 2, chosen)
    records = epochs.forget_set(records, epoch - parameters.evidence_epochs)
    records = staking.put_counters(records, Counters(counters.serial_next, epoch + 1, 0))
    return participation.forget_participation(records)


def _settle(
    records: Records, parameters: Parameters, epoch: int, operator: bytes, index: int, found: Participation
) -> Records:
    """One validator's end of an epoch: commission, its pool's part, jail if it was absent."""
    stake = staking.get_stake(records, operator)
    reward = found.rewards[index] if found.rewards else 0
    if stake.status == staking.TOMBSTONED:
        return supply.burn(records, reward)
    commission = reward * stake.commission_bp // WHOLE_BP if stake.shares else reward
    settled = replace(
        stake, tokens=stake.tokens + reward - commission, owed_units=stake.owed_units + commission
    )
    share_bp = found.compute_share_bp(index)
    is_absent = share_bp is not None and share_bp < parameters.participation_bp_min
    if is_absent and stake.status == staking.BONDED:
        jailed_until = epoch + 1 + parameters.jail_epochs
        settled = replace(settled, status=staking.JAILED, jailed_until=jailed_until)
    if settled == stake:
        return records
    return staking.put_stake(records, operator, settled, parameters.stake_units_min)
