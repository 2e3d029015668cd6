"""Parameters: what a chain's founders choose, with the unit, the limits and the reason for each default.

Invariant: an instance is sound; whoever holds one need not check it again. They are part of the genesis
digest, in the order of the fields, and never change while the chain runs.
Leaves out: who judges and with which thresholds, which the chain itself changes (`ledger/seating.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from consensus import block, codec, vote
from consensus.errors import Rejected
from consensus.ledger import scoring

MODULES_MAX: Final = 8  # each judges every transaction
MODULE_ROOM_BYTES_MAX: Final = MODULES_MAX * (1 + scoring.MODULE_ROW_BYTES_MAX)  # all seats, the largest rows

CLOCK_WALL: Final = "wall"  # a timestamp lies within a drift of the block's time
CLOCK_WORKLOAD: Final = "workload"  # block time follows its transactions, so that months keep their rhythm

COMBINATION_WORST: Final = "worst"  # of several modules the worst outcome and the highest score count
COMBINATION_WEIGHTED: Final = "weighted"  # the weighted mean of their scores, judged by its own thresholds

LEADER_ROUND_ROBIN: Final = "round_robin"  # exactly fair, and known ahead
LEADER_ONION: Final = "onion"  # by a seed that validators reveal: not known an epoch ahead, biased a little

# Who may report fraud, alone or joined by "+" in this order.
REPORTING_LISTED: Final = "listed"  # genesis.reporters
REPORTING_VALIDATORS: Final = "validators"  # operators of the running epoch's set
REPORTING_REGISTERED: Final = "registered"  # anybody, with a bond
REPORTING_WAYS: Final = (REPORTING_LISTED, REPORTING_VALIDATORS, REPORTING_REGISTERED)

DAY_MS: Final = 86_400_000
WHOLE_BP: Final = 10_000  # basis points
EPOCH_BLOCKS_MIN: Final = 2  # the first block of an epoch carries no certificate: nobody is counted in it
# What may come and what may go in one unbonding period. With c of it changed, a quorum of the later set
# holds at least (1 - c) - (1 + c) / 3 of the earlier one's stake: above a third while c < 1/4. Compounded
# over many epochs a fifth makes 22 %.
CHURN_BP_MAX: Final = 2_000

_LIMITS: Final = {  # (low, high); others are 1 to TIME_MS_MAX
    "fee_units_min": (0, codec.TIME_MS_MAX),
    "account_byte_fee_units": (0, codec.TIME_MS_MAX),
    "block_bytes_max": (1, block.BLOCK_BYTES_MAX),
    "block_transactions_max": (1, block.BLOCK_TRANSACTIONS_MAX),
    "reports_min": (1, 64),  # cases.STANDING_MAX: no more stand
    "report_pair_ms": (0, codec.TIME_MS_MAX),
    "report_bond_units": (0, codec.MONEY_MAX),
    "dispute_deposit_units": (0, codec.MONEY_MAX),
    "epoch_blocks": (0, 2**32),
    "validators_max": (1, vote.VALIDATORS_MAX),
    "stake_units_min": (1, codec.MONEY_MAX),
    "unbonding_epochs": (3, 4096),  # see evidence_epochs: below 3 no lie could be proven in time
    "churn_bp_max": (1, WHOLE_BP),
    "jail_epochs": (1, 4096),
    "participation_bp_min": (0, WHOLE_BP),
    "slash_bp": (1, WHOLE_BP),
    "proposer_bp": (0, WHOLE_BP),
    "reward_units": (0, codec.MONEY_MAX),
    "combined_flag_score_min": (0, scoring.REFUSE_NEVER),
    "combined_refuse_score_min": (0, scoring.REFUSE_NEVER),
    "module_room_bytes": (0, MODULE_ROOM_BYTES_MAX),
    "artifact_byte_fee_units": (0, codec.TIME_MS_MAX),
    "motion_notice_blocks": (1, 2**20 - 1),  # below motion.AHEAD_BLOCKS_MAX
}
_CHOICES: Final = {  # parameters that are no numbers
    "clock": (CLOCK_WALL, CLOCK_WORKLOAD),
    "leader_election": (LEADER_ROUND_ROBIN, LEADER_ONION),
    "combination": (COMBINATION_WORST, COMBINATION_WEIGHTED),
}


@dataclass(frozen=True, slots=True)
class Parameters:
    """Chain parameters. Amounts in smallest units, times in ms, sizes in bytes."""

    clock: str = CLOCK_WALL
    clock_drift_ms_max: int = 10_000  # wall: block time against the local clock; NTP keeps 100 ms
    clock_jump_ms_max: int = 31 * DAY_MS  # workload: the longest pause of a trace that is kept
    timestamp_age_ms_max: int = 3_600_000  # how far a transaction may lie behind its block
    lifetime_ms_max: int = 3_600_000  # expires_ms - timestamp_ms; what a mempool must remember
    fee_units_min: int = 1
    account_byte_fee_units: int = 0  # on top, for a transaction that creates an account, per byte of state
    block_bytes_max: int = 2_000_000  # below block.BLOCK_BYTES_MAX: half a second to judge
    block_transactions_max: int = 5_000
    report_window_ms: int = 60 * DAY_MS  # how long after a transaction it can be reported
    # Reports (docs/reports.md has the measurements behind these).
    reporting: str = REPORTING_LISTED
    reports_min: int = (
        1  # different reporters before a report counts; each more costs the frauds only one sees
    )
    report_pair_ms: int = 28 * DAY_MS  # one sender's complaints of a receiver count once in it; 0: each does
    report_contest_ms: int = 30 * DAY_MS  # how long a report can be taken back or disputed
    report_bond_units: int = 100_000  # as much as a validator's own stake: a false report costs all of it
    dispute_deposit_units: int = 1_000  # comes back unless the report is upheld
    dispute_vote_ms: int = 7 * DAY_MS  # people must look into it, and have a week for that
    # Stake (docs/decisions/0040, 0041). Shares in basis points: 10,000 are the whole.
    epoch_blocks: int = 0  # 0: one everlasting epoch, no staking; a day of blocks suits the defaults below
    validators_max: int = 100  # a certificate of 7 kB, checked in 3 ms
    stake_units_min: int = 100_000  # of one's own, to stand for election: what a seat risks
    delegation_units_min: int = 100  # a smaller one costs more state than it is worth
    unbonding_epochs: int = 14  # stake that leaves can still be slashed so long: time to find a lie out
    unbonding_ms: int = 14 * DAY_MS  # the same on the clock, for light clients; both must pass
    churn_bp_max: int = 140  # of the stake, in and out each, an epoch: 14 of them stay below a fifth
    jail_epochs: int = 1  # how long an absent validator stays out, at least: more than a restart takes
    participation_bp_min: int = 500  # of an epoch's blocks: a slow node is luckier, a dead one is not
    slash_bp: int = 500  # of all stake behind a liar: ten years of a return of 5 per mille
    proposer_bp: int = 2_500  # of a block's reward: makes one more transaction, one more vote worth carrying
    leader_election: str = LEADER_ROUND_ROBIN
    reward_units: int = 0  # issued a block at most, on top of the fees: who wants inflation says so
    # The models' life (docs/decisions/0050).
    combination: str = COMBINATION_WORST
    combined_flag_score_min: int = scoring.SCORE_MAX // 2  # of a weighted score
    combined_refuse_score_min: int = scoring.SCORE_MAX
    module_room_bytes: int = 0  # of an account's row, for all modules; 0: what those of genesis need
    artifact_byte_fee_units: int = 1  # on top, per byte of a published model: every node keeps it
    publication_ms: int = 365 * DAY_MS  # a model nobody approved is forgotten then; a replay of months fits
    motion_notice_blocks: int = 10  # between the last vote and what it decides: nobody is taken unawares

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                words = " or ".join(f'"{choice}"' for choice in choices)
                raise Rejected(f"must be {words}", field=f"parameters.{name}")
        ways = [way for way in REPORTING_WAYS if way in str(self.reporting).split("+")]
        if not ways or self.reporting != "+".join(ways):
            raise Rejected(
                f"{self.reporting!r} names no way to report",
                field="parameters.reporting",
                mend=f"join some of {', '.join(REPORTING_WAYS)} by +, in this order",
            )
        if self.leader_election == LEADER_ONION and not self.epoch_blocks:
            raise Rejected(
                "needs epochs: one seed for ever is no secret",
                field="parameters.leader_election",
                mend="set epoch_blocks",
            )
        for entry in fields(self):
            if entry.name in _CHOICES or entry.name == "reporting":
                continue
            low, high = _LIMITS.get(entry.name, (1, codec.TIME_MS_MAX))
            codec.check_int(getattr(self, entry.name), f"parameters.{entry.name}", low=low, high=high)
        if 0 < self.epoch_blocks < EPOCH_BLOCKS_MIN:
            raise Rejected(
                f"{self.epoch_blocks}, an epoch has {EPOCH_BLOCKS_MIN} blocks at least",
                field="parameters.epoch_blocks",
                mend="use 0 for one everlasting epoch",
            )
        if self.combined_flag_score_min > self.combined_refuse_score_min:
            raise Rejected(
                f"{self.combined_flag_score_min} is above combined_refuse_score_min",
                field="parameters.combined_flag_score_min",
                mend=f"use {self.combined_refuse_score_min} or less",
            )
        churn_bp = self.churn_bp_max * self.unbonding_epochs
        if churn_bp > CHURN_BP_MAX and self.churn_bp_max != WHOLE_BP:
            raise Rejected(
                f"{self.churn_bp_max} in each of {self.unbonding_epochs} epochs make {churn_bp}, "
                f"at most {CHURN_BP_MAX} may change while stake can be slashed",
                field="parameters.churn_bp_max",
                mend=f"use {CHURN_BP_MAX // self.unbonding_epochs}, or {WHOLE_BP} for no cap (for trying things out)",
            )

    @property
    def evidence_epochs(self) -> int:
        """How many epochs back evidence may reach.

        Stake that leaves in epoch e still votes in e + 1, and is released in e + unbonding_epochs: a lie
        of e + 1 told in its last block can be proven for so long, and the stake is still there.
        """
        return self.unbonding_epochs - 2
