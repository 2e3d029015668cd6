"""Rows of the ledger alone: stored blocks executed again, and what a score costs.

*reexecute* reads a chain of full blocks from a node's store on one core and checks all of each: signatures,
certificate, scores, roots; *reexecute_all_cores* is `assay audit` of the same, from start to end.
*score_us_per_tx* is features and forest as `assay model evaluate` times them, on a labelled synthetic
town with its reports. Invariant: a block that does not hold fails the row.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from consensus import crypto
from consensus.errors import Fault
from consensus.ledger.rules import Rules
from consensus.ledger.state import State
from consensus.vote import check_certificate
from ml.fraud import load, read_default_artifact
from ml.playback import ON_TIME, play_scores, schedule_reports
from ml.synthetic import generate_workload
from node.bench import chains, network, workload
from node.bench.context import NODES, Bench
from node.bench.stopwatch import compute_median, measure_s
from node.store.store import Store

TOWN_ACCOUNTS: Final = 1_000
TOWN_DAYS: Final = 30  # reports come a week late


def measure_reexecution(bench: Bench) -> dict[str, float]:
    """Transactions a second, on one core and on all."""
    sizes = bench.sizes
    count = sizes.chain_blocks * sizes.block_transactions
    path = workload.provide_transactions(bench.folder, bench.seed, count)
    raws = workload.read_transactions(path, 0, count)
    with bench.make_folder() as folder:
        homes = network.lay_out(folder / "net", NODES, bench.seed, 1_000).homes
        bench.say(f"building {sizes.chain_blocks} blocks of {sizes.block_transactions}")
        chains.store_chain(homes, raws, sizes.block_transactions, into=homes[:1])
        bench.say("executing them again")
        alone = [_execute(homes[0], count) for _ in range(sizes.repeats)]
        bench.say("auditing them")
        audited = [
            measure_s(lambda: _check_count(bench.check_chain(homes[0]), count)) for _ in range(sizes.repeats)
        ]
    return {
        "reexecute": count / compute_median(alone),
        "reexecute_all_cores": count / compute_median(audited),
    }


def _execute(home: Path, count: int) -> float:
    """Seconds to check every stored block again, from genesis. Raises Rejected or Fault."""
    rules = chains.load_rules(home)
    store = Store.open(home, rules)
    try:
        state = rules.create_genesis_state()
        return measure_s(lambda: _check_count(_check_blocks(store, rules, state), count))
    finally:
        store.close()


def _check_blocks(store: Store, rules: Rules, state: State) -> int:
    """Every final block on its parent's state, in order; how many transactions they hold."""
    done = 0
    for height in range(1, store.finalized_height + 1):
        block = store.get_block_at(height)
        assert block is not None, "final blocks are stored"
        if not all(rules.check_signatures(block.transactions)):
            raise Fault("holds a wrong signature", field=f"block {height}")
        if block.parent_certificate is not None:
            check_certificate(block.parent_certificate, rules.validators, rules.chain_id, crypto.verify)
        state.commit(rules.check_block(state.view(), block, None))
        done += len(block.transactions)
    return done


def _check_count(found: int, count: int) -> None:
    if found != count:
        raise Fault(f"holds {found} of {count} transactions", field="chain")


def measure_scoring(bench: Bench) -> dict[str, float]:
    """Microseconds for features and score of a transaction."""
    sizes = bench.sizes
    per_day = max(10, sizes.chain_blocks * sizes.block_transactions // TOWN_DAYS)
    trace = generate_workload(bench.seed, TOWN_ACCOUNTS, TOWN_DAYS, per_day).trace
    schedule = schedule_reports(trace, ON_TIME, bench.seed)
    module = load(read_default_artifact())
    bench.say(f"scoring {len(trace):,} payments")
    seconds = [play_scores(trace, schedule, module).seconds for _ in range(sizes.repeats)]
    return {"score_us_per_tx": 1e6 * compute_median(seconds) / len(trace)}
