"""Overload: the rate that a network sustains, then a storm of ten times that, then calm. Asked for by name.

What counts: finality goes on, the API answers, memory stays bounded, nothing accepted is lost, and a payment
made after the storm is soon as fast as it should be. Invariant: as in network_rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Final

import aiohttp

from consensus import crypto
from consensus.transaction import sign_transaction
from node import home
from node.bench import driver, network, network_rows, stopwatch, workload
from node.bench.context import NODES, Bench
from node.bench.driver import Load, LoadRun
from node.bench.load import STORM
from node.bench.sampling import LOOK_S, PROBE_SECONDS_MAX, Samples, compute_growth, sample
from node.bench.stopwatch import monotonic_s
from node.bench.watch import Watch
from node.bench.window import compute_percentile, get_total
from node.store.block_file import BODY, FINAL, BlockFile, Record
from node.store.disk import RealDisk
from node.store.positions import decode_mark, read_header
from node.store.store import BLOCKS_NAME

MARGIN: Final = 150_000  # a full mempool, and what is on its way
RECOVERED_MS: Final = 600.0  # the budget of latency under load
RECOVERY_SECONDS_MAX: Final = 90.0


def measure_overload(bench: Bench) -> dict[str, float]:
    stopwatch.check_proc()
    with bench.make_folder() as folder:
        rows = asyncio.run(_overload(bench, folder / "net"))
        bench.say("auditing its chain")
        bench.check_chain(folder / "net" / "node0")
        return rows


async def _overload(bench: Bench, folder: Path) -> dict[str, float]:
    sizes = bench.sizes
    path = workload.provide_transactions(bench.folder, bench.seed, sizes.signed_max)
    network.lay_out(folder, NODES, bench.seed, 1_000)
    keys = home.open_network(folder).accounts
    samples = Samples()
    recovered_s: list[float] = []
    with network.run_network(folder, bench.choose_profiles(NODES)) as running:
        bench.say("what four sustain")
        calm = await network_rows.measure_closed(bench, running, path)
        peak = calm.cut_window(sizes.ramp_s, sizes.window_s).rate
        first = network_rows.find_end(calm)
        end = first + round(1.3 * peak * sizes.overload_s) + MARGIN
        bench.say(f"signing up to {end:,} transactions (kept for the next run)")
        workload.provide_transactions(bench.folder, bench.seed, end)
        rate = sizes.overload_factor * peak
        load = Load(path, first, end, sizes.batch, sizes.load_processes, STORM, rate)
        bench.say(f"{rate:,.0f} transactions a second for {sizes.overload_s:.0f} s")

        async def recover(watch: Watch, stopped_s: float) -> None:
            bench.say("calm")
            recovered_s.append(await time_recovery(running.urls, keys, watch, stopped_s))

        run = await driver.drive(
            running.urls, load, sizes.overload_s, lambda _: sample(running, samples), recover
        )
        await network_rows.check_agreement(running)
    stormy = compute_stormy_rate(run, min(sizes.ramp_s, sizes.overload_s / 4))
    return {
        "overload_peak_tps": peak,
        "overload_offered_tps": run.offered / (run.stopped_s - run.started_s),
        "overload_load_cores": compute_load_cores(run),
        "overload_finality": stormy / peak,
        "overload_lost": count_lost(folder / "node0", path, run),
        "overload_rss_mb": max(samples.resident) / 1e6,
        "overload_rss_growth": compute_growth(samples.own),
        # A question that is not answered at all counts as the worst there can be.
        "overload_api_p99_ms": compute_percentile(
            samples.answers_ms + [1e3 * PROBE_SECONDS_MAX] * samples.unanswered, 99
        ),
        "overload_recovery_seconds": recovered_s[0],
    }


def compute_stormy_rate(run: LoadRun, ramp_s: float) -> float:
    """Transactions a second that became final while the storm lasted; 0 when nothing moved."""
    start_s = run.started_s + ramp_s
    counts = [get_total(run.watch.all_times_s, run.watch.all_totals, at) for at in (start_s, run.stopped_s)]
    return (counts[1] - counts[0]) / (run.stopped_s - start_s)


def compute_load_cores(run: LoadRun) -> float:
    """Cores that submitting and watching took from the nodes while the storm lasted."""
    seconds = run.watch_cpu_s + sum(report.cpu_s for report in run.reports)
    return seconds / (run.stopped_s - run.started_s)


async def time_recovery(
    urls: Sequence[str], keys: Sequence[crypto.PrivateKey], watch: Watch, stopped_s: float
) -> float:
    """Seconds from `stopped_s` to the first payment, one each half second, that is final soon enough.

    With no such payment: the time until it was given up, RECOVERY_SECONDS_MAX or a little more.
    """
    async with aiohttp.ClientSession() as session:
        for number in count():
            started_s = monotonic_s()
            if started_s > stopped_s + RECOVERY_SECONDS_MAX:
                break
            key, url = keys[number % len(keys)], urls[number % len(urls)]
            with suppress(aiohttp.ClientError, TimeoutError):  # a node that does not answer is not quick
                if await _is_quick(session, url, key):
                    return started_s - stopped_s
            watch.check()
            await asyncio.sleep(LOOK_S)
    return monotonic_s() - stopped_s


async def _is_quick(session: aiohttp.ClientSession, url: str, key: crypto.PrivateKey) -> bool:
    """Whether a payment made now is final within RECOVERED_MS at the node it was given to."""
    status = await _ask(session, url + "/v1/status")
    account = await _ask(session, f"{url}/v1/accounts/0x{key.address.hex()}")
    raw = sign_transaction(
        key,
        status["chain_id"],
        nonce=account["nonce_pending"],
        receiver=key.address,
        amount=1,
        fee=1,
        timestamp_ms=status["clock_ms"],
        expires_ms=status["clock_ms"] + workload.LIFETIME_MS,
    ).raw
    start_s = monotonic_s()
    receipt = await network_rows.submit_one(session, url, raw)
    if receipt.get("outcome") != "accepted":
        return False
    while monotonic_s() < start_s + RECOVERED_MS / 1e3:
        async with session.get(f"{url}/v1/transactions/{receipt['id']}") as response:
            document: Any = await response.json()
            if document.get("status") == "final":
                return monotonic_s() <= start_s + RECOVERED_MS / 1e3
        await asyncio.sleep(0.02)
    return False


async def _ask(session: aiohttp.ClientSession, url: str) -> Any:
    async with session.get(url) as response:
        response.raise_for_status()
        return await response.json()


def count_lost(node_home: Path, path: Path, run: LoadRun) -> int:
    """Transactions that a node accepted and that are in no final block."""
    signed = workload.SignedFile.open(path)
    accepted = {
        crypto.hash_bytes(raw)
        for report in run.reports
        for start, end in report.accepted
        for raw in signed[start:end]
    }
    return len(accepted - read_final_ids(node_home))


def read_final_ids(node_home: Path) -> set[bytes]:
    """The ids of all transactions in the final blocks that a node has stored."""
    from node.replay.network import read_final_block

    bodies: dict[bytes, tuple[bytes, Sequence[bytes]]] = {}  # some of blocks that never became final
    block_hash = b""
    file = BlockFile.open(RealDisk(), node_home / BLOCKS_NAME, read_only=True)
    try:
        for item in file.scan():
            if isinstance(item, Record) and item.type == BODY:
                header = read_header(item.payload)
                ids = read_final_block(item.payload).ids if header.transaction_count else ()
                bodies[header.hash] = header.parent_hash, ids
            elif isinstance(item, Record) and item.type == FINAL:
                block_hash = decode_mark(item.payload).block_hash
    finally:
        file.close()
    final: set[bytes] = set()
    while block_hash in bodies:
        block_hash, found = bodies[block_hash]
        final.update(found)
    return final
