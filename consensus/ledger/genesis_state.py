"""The state of block 0: what genesis says, as accounts and records.

Invariant: it depends on genesis and on the sizes of its modules' rows, on nothing else; money in balances and
stakes adds up to the supply. Leaves out: what makes a genesis sound (`consensus/genesis.py`), and whether the
modules are those that it names (`rules.py`).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from consensus import block as blk
from consensus import crypto, merkle
from consensus.block import Header
from consensus.genesis import Genesis
from consensus.ledger import epochs, motion, staking
from consensus.ledger import records as rec
from consensus.ledger.epochs import EpochSet
from consensus.ledger.records import Records
from consensus.ledger.reporters import LISTED, Reporter, put_reporter
from consensus.ledger.seating import Seating, compute_modules_digest, encode_seating
from consensus.ledger.staking import Counters, Stake
from consensus.ledger.state import ROW_FIXED_BYTES, Account, State, encode_account
from consensus.ledger.supply import Supply, put_supply
from consensus.merkle import CompactRange

NO_PROPOSER: Final = bytes(crypto.KEY_BYTES)  # of block 0


def create_genesis_state(genesis: Genesis, seating: Seating, row_bytes: int) -> State:
    """The state of block 0: genesis accounts in their order, then those that validators' keys need.

    seating: of the modules that genesis names. row_bytes: of an account, with room for theirs.
    """
    first_set = epochs.create_genesis_set(genesis.validators)
    balances = dict(genesis.accounts)
    addresses = [*balances, *(address for address in first_set.operators if address not in balances)]
    heads = b"".join(
        encode_account(Account(address, balances.get(address, 0), 0, 0)) for address in addresses
    )
    rows = np.zeros((len(addresses), row_bytes), dtype=np.uint8)
    rows[:, :ROW_FIXED_BYTES] = np.frombuffer(heads, dtype=np.uint8).reshape(-1, ROW_FIXED_BYTES)
    supply = sum(balances.values()) + genesis.validators.total
    records = _create_stakes(genesis, put_supply(Records(), Supply(supply)), first_set)
    records = motion.put_genesis_modules(records, seating)
    records = records.put(rec.NAMESPACE_PARAMETER + rec.PARAMETER_GENESIS, genesis.digest)
    for reporter in genesis.reporters:
        records = put_reporter(records, reporter, Reporter(LISTED))
    history = CompactRange()
    records = records.put(rec.NAMESPACE_ANCHOR + bytes(8), history.root)
    state = State(row_bytes)
    root = state.fill(rows, records, history)
    state.header = Header(
        epoch=0,
        view=blk.GENESIS_VIEW,
        height=0,
        parent_view=blk.GENESIS_VIEW,
        parent_hash=genesis.digest,
        proposer=NO_PROPOSER,
        timestamp_ms=genesis.timestamp_ms,
        transaction_count=0,
        transactions_root=merkle.EMPTY_ROOT,
        state_root=root,
        history_root=history.root,
        modules_digest=compute_modules_digest(encode_seating(seating)),
        validators_digest=genesis.validators.digest,
        next_validators_digest=genesis.validators.digest,
        certificate_digest=blk.compute_certificate_digest(None),
    )
    return state


def _create_stakes(genesis: Genesis, records: Records, first_set: EpochSet) -> Records:
    """Every validator of genesis, bonded by its own account, in the sets of the first two epochs."""
    stake_min = genesis.parameters.stake_units_min
    for serial, validator in enumerate(first_set.validators.validators):
        operator, units = first_set.operators[serial], validator.stake
        commission_bp = staking.GENESIS_COMMISSION_BP
        stake = Stake(serial, validator.public_key, units, units, units, commission_bp)
        records = staking.put_stake(records, operator, stake, stake_min)
        records = staking.put_voting_key(records, validator.public_key, operator)
    records = staking.put_counters(records, Counters(len(first_set.operators), 0, 0))
    records = epochs.put_set(records, 0, first_set)
    return epochs.put_set(records, 1, first_set) if genesis.parameters.epoch_blocks else records
