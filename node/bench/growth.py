"""Rows of a large state: what a block of 1,000 costs with a million accounts, and what the state weighs.

A process of its own fills two states with accounts that have lived (module rows of a played town, laid over
all of them), then checks and commits blocks among random accounts on both in turn: one judging of
a block as every validator does it, without signatures, which cost the same at any size. Invariant: blocks
are built by the ledger, with real scores and roots; only the accounts' first rows are made up.
"""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from consensus import crypto
from consensus.block import BLOCK_BYTES_MAX, BLOCK_TRANSACTIONS_MAX, Block
from consensus.errors import Fault
from consensus.genesis import Genesis
from consensus.ledger.rules import Rules
from consensus.ledger.state import ROW_FIXED_BYTES, Account, State, encode_account
from consensus.parameters import CLOCK_WORKLOAD, DAY_MS, Parameters
from consensus.transaction import KIND_TRANSFER, Transaction
from consensus.vote import NOTARIZE, Certificate, Subject, Validator, ValidatorSet
from ml.discovery import load_module
from ml.playback import BLOCK_ROWS
from node import modules
from node.bench import stopwatch, workload
from node.bench.context import Bench, Sizes
from node.bench.offspring import run_apart
from node.bench.stopwatch import compute_median, measure_s

TOWN: Final = 500  # accounts whose lived rows are laid over all others
TOWN_BLOCKS: Final = 12
BALANCE: Final = 10**9
NO_SIGNATURE: Final = bytes(crypto.SIGNATURE_BYTES)  # the ledger checks none


def measure_growth(bench: Bench) -> dict[str, float]:
    stopwatch.check_proc()
    bench.say(f"a state of {bench.sizes.accounts_large:,} accounts")
    found = run_apart(_measure, bench.sizes, bench.seed)
    small, large = compute_median(found["small"]), compute_median(found["large"])
    return {
        "block_cost_growth": large / small,
        "million_accounts_rss_mb": found["resident"] / 1e6,
        "million_accounts_peak_mb": found["peak"] / 1e6,
        "block_us_per_tx": 1e6 * small / bench.sizes.block_transactions,
        "block_us_per_tx_million": 1e6 * large / bench.sizes.block_transactions,
    }


def _measure(sizes: Sizes, seed: int) -> dict[str, Any]:
    """In the fresh process: seconds of each block on both states, resident bytes with the large one."""
    import node.process  # noqa: F401 - what a node has loaded anyway counts as well

    lab = Lab(seed)
    large = lab.make_state(sizes.accounts_large)
    gc.collect()
    for _ in range(2):
        lab.time_block(large, sizes.block_transactions)
    resident = stopwatch.read_resident_bytes(os.getpid())
    copy = large.rows.copy()  # as for a checkpoint
    peak = stopwatch.read_resident_bytes(os.getpid())
    del copy
    small = lab.make_state(sizes.accounts_small)
    lab.time_block(small, sizes.block_transactions)
    times: dict[str, list[float]] = {"small": [], "large": []}
    for _ in range(sizes.growth_blocks):
        times["small"].append(lab.time_block(small, sizes.block_transactions))
        times["large"].append(lab.time_block(large, sizes.block_transactions))
    return {**times, "resident": resident, "peak": peak}


class Lab:
    """States of any size under one genesis, and blocks on them."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(f"bench/growth/{seed}")
        self._validator = crypto.PrivateKey.from_seed(b"bench/growth/validator")
        entries, artifacts = modules.plan_modules((modules.FRAUD,), refuses=False)
        genesis = Genesis(
            chain_id="bench-growth",
            timestamp_ms=workload.START_MS,
            parameters=Parameters(
                clock=CLOCK_WORKLOAD,
                timestamp_age_ms_max=62 * DAY_MS,
                lifetime_ms_max=62 * DAY_MS,
                block_bytes_max=BLOCK_BYTES_MAX,
                block_transactions_max=BLOCK_TRANSACTIONS_MAX,
            ),
            validators=ValidatorSet((Validator(self._validator.public_key, 1_000),)),
            accounts=(),
            reporters=(),
            modules=entries,
        )
        loaded = tuple(load_module(entry.name, artifacts[entry.digest]) for entry in entries)
        self.rules = Rules(genesis, loaded)
        self._nonces: dict[tuple[int, int], int] = {}
        blank = np.zeros((1, self.rules.row_bytes - ROW_FIXED_BYTES), dtype=np.uint8)
        town = self._fill(TOWN, blank)
        for _ in range(TOWN_BLOCKS):
            self.time_block(town, BLOCK_ROWS)
        self._lived = town.rows[1:, ROW_FIXED_BYTES:].copy()

    def make_state(self, accounts: int) -> State:
        """A state of so many accounts that have lived."""
        return self._fill(accounts, self._lived)

    def _fill(self, accounts: int, module_rows: NDArray[np.uint8]) -> State:
        genesis = self.rules.create_genesis_state()
        rows = np.zeros((accounts + 1, self.rules.row_bytes), dtype=np.uint8)
        rows[0] = genesis.rows[0]  # the validator's
        heads = bytearray()
        for number in range(accounts):
            heads += encode_account(Account(_make_address(number), BALANCE, 0, 0))
        rows[1:, :ROW_FIXED_BYTES] = np.frombuffer(heads, dtype=np.uint8).reshape(-1, ROW_FIXED_BYTES)
        repeated = np.arange(accounts) % len(module_rows)
        rows[1:, ROW_FIXED_BYTES:] = module_rows[repeated]
        state = State(self.rules.row_bytes)
        root = state.fill(rows, genesis.records, genesis.history)
        state.header = replace(genesis.header, state_root=root)
        return state

    def time_block(self, state: State, transactions: int) -> float:
        """Seconds to check a new block on this state and to commit it. Raises Fault."""
        block = self.build_block(state, self.make_transfers(state, transactions))
        if len(block.transactions) != transactions:
            raise Fault(f"takes {len(block.transactions)} of {transactions}", field="block")
        return measure_s(lambda: state.commit(self.rules.check_block(state.view(), block, None)))

    def build_block(self, state: State, transactions: Sequence[Transaction]) -> Block:
        """The next block, of what fits among these."""
        header = state.header
        certificate = None
        if header.height:
            subject = Subject(header.epoch, NOTARIZE, header.view, header.hash)
            certificate = Certificate(subject, ((0, NO_SIGNATURE),))
        return self.rules.build_block(
            state.view(),
            transactions,
            epoch=0,
            view_number=header.view + 1,
            proposer_key=self._validator.public_key,
            now_ms=header.timestamp_ms,
            certificate=certificate,
        ).block

    def make_transfers(self, state: State, count: int) -> list[Transaction]:
        """Transfers between random accounts of this state, unsigned, each with its sender's next nonce."""
        return [self._make_transfer(state, place) for place in range(count)]

    def _make_transfer(self, state: State, place: int) -> Transaction:
        accounts = state.account_count - 1
        number = self._rng.randrange(accounts)
        nonce = self._nonces.get((id(state), number), 0)
        self._nonces[id(state), number] = nonce + 1
        time_ms = state.header.timestamp_ms + place * workload.STEP_MS
        return Transaction(
            KIND_TRANSFER,
            _make_public_key(number),
            nonce,
            _make_address(self._rng.randrange(accounts)),
            self._rng.randrange(1, 20_000),
            1,
            time_ms,
            time_ms + workload.LIFETIME_MS,
            b"",
            NO_SIGNATURE,
        )


def _make_public_key(number: int) -> bytes:
    return b"\x02" + crypto.hash_bytes(b"bench/account/%d" % number)


def _make_address(number: int) -> bytes:
    return crypto.compute_address(_make_public_key(number))
