"""Selection: the next set of validators, from the last one fixed and the stakes as they are now.

Who sits keeps its seat while it stands for election; free seats go to the candidates with most stake,
equal ones by seniority; a richer candidate takes the poorest's seat. How much may change is capped, in
and out each: what comes shares the room in proportion; who was jailed or fell below the minimum leaves as
far as there is room, after what was unbonded (staking kinds charge that when it happens).

Invariant: nobody votes with more than its pool holds; a set is never empty; no order of hashes decides
anything; the work is bounded by the seats. Sum of decreases <= cap, apart from slashing; sum of increases
<= cap, both of the stake of `previous`.
Source: Ethereum's churn limit for the idea of the cap; decision 41 for why a fifth an unbonding period.
"""

from __future__ import annotations

from itertools import islice

from consensus.codec import MONEY_MAX
from consensus.ledger import staking
from consensus.ledger.epochs import EpochSet
from consensus.ledger.records import Records
from consensus.ledger.staking import Stake
from consensus.parameters import WHOLE_BP, Parameters
from consensus.vote import Validator, ValidatorSet


def compute_churn_units(previous: EpochSet, parameters: Parameters) -> int:
    """How much stake may leave a set, and how much may join it, until the next."""
    if parameters.churn_bp_max == WHOLE_BP:
        return MONEY_MAX  # no cap
    return previous.validators.total * parameters.churn_bp_max // WHOLE_BP


def compute_charge(weight: int, tokens: int, amount: int) -> int:
    """By how much a validator that votes with `weight` loses weight when `amount` of its tokens leave."""
    return min(weight, tokens) - min(weight, tokens - amount)


def select_next_set(
    records: Records, parameters: Parameters, previous: EpochSet, left_units: int
) -> EpochSet:
    """The set after `previous`; `left_units` of its stake were unbonded since it was fixed."""
    stake_min = parameters.stake_units_min
    churn = compute_churn_units(previous, parameters)
    room = max(0, churn - left_units)
    stakes: dict[bytes, Stake] = {}
    weights: dict[bytes, int] = {}
    for validator, operator in zip(previous.validators.validators, previous.operators, strict=True):
        stake = staking.get_stake(records, operator)
        if stake.status == staking.TOMBSTONED:
            continue
        weight = min(validator.stake, stake.tokens)
        if not stake.is_candidate(stake_min):
            leaving = min(room, weight)
            room, weight = room - leaving, weight - leaving
        if weight:
            stakes[operator], weights[operator] = stake, weight
    _fill_seats(records, parameters, stakes, weights, room)
    _raise_weights(stakes, weights, stake_min, churn)
    seated = sorted((operator for operator in weights if weights[operator]), key=lambda o: stakes[o].serial)
    if not seated:
        return previous  # a chain without validators could never have any again
    validators = tuple(Validator(stakes[operator].voting_key, weights[operator]) for operator in seated)
    return EpochSet(ValidatorSet(validators), tuple(seated))


def _fill_seats(
    records: Records, parameters: Parameters, stakes: dict[bytes, Stake], weights: dict[bytes, int], room: int
) -> None:
    """Gives seats, with no weight yet, to candidates that have none."""
    seats = parameters.validators_max
    reach = islice(staking.walk_candidates(records), seats + len(stakes))
    waiting = [operator for operator in reach if operator not in stakes][:seats]
    sitting = [operator for operator in stakes if stakes[operator].is_candidate(parameters.stake_units_min)]
    sitting.sort(key=lambda operator: (-stakes[operator].tokens, stakes[operator].serial))
    for operator in waiting:
        stake = staking.get_stake(records, operator)
        if len(stakes) >= seats:
            poorest = sitting.pop() if sitting else None
            if poorest is None or stakes[poorest].tokens >= stake.tokens or weights[poorest] > room:
                return
            room -= weights.pop(poorest)
            del stakes[poorest]
        stakes[operator], weights[operator] = stake, 0


def _raise_weights(
    stakes: dict[bytes, Stake], weights: dict[bytes, int], stake_units_min: int, churn: int
) -> None:
    """Lets candidates vote with what came, in proportion when not all of it has room."""
    gains = {
        operator: stake.tokens - weights[operator]
        for operator, stake in stakes.items()
        if stake.is_candidate(stake_units_min)
    }
    total = sum(gains.values())
    for operator, gain in gains.items():
        weights[operator] += gain if total <= churn else gain * churn // total
