"""One point of a sweep each, in a process of its own: (seed, point, repeats) -> what was measured, by name.

States and blocks come from `growth.Lab`; the mempool, the store and the peer network are the node's own.
Leaves out: the validators' sweep, which runs whole networks (sweeps.py).
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from consensus import crypto
from consensus.ledger.state import State
from consensus.transaction import Transaction, decode_transaction
from node import config
from node.bench import chains, network, stopwatch, workload
from node.bench.growth import Lab
from node.bench.stopwatch import compute_median, measure_s
from node.clock import SystemClock
from node.mempool.admission import MempoolPolicy
from node.mempool.mempool import Mempool
from node.network.connection_table import NetworkLimits
from node.network.dialer import KnownPeer
from node.network.frames import BlockBody, Frame, GetBlock
from node.network.handshake import Identity
from node.network.peers import PeerNetwork
from node.network.transport import Peer
from node.store.store import BLOCKS_NAME, Store

BLOCK: Final = 1_000
ACCOUNTS: Final = 100_000
FILL: Final = 1_000  # admitted at once while a mempool is being filled
LOOKUPS: Final = 1_000
LAST_BLOCKS: Final = 200  # of a history: those that are timed
BLOCKS_IN_MEMORY: Final = 500
PEER_SECONDS_MAX: Final = 10.0

Values = Mapping[str, float]


def measure_accounts(seed: int, accounts: int, repeats: int) -> Values:
    lab = Lab(seed)
    state = lab.make_state(accounts)
    gc.collect()
    resident = stopwatch.read_resident_bytes(os.getpid())
    lab.time_block(state, BLOCK)
    seconds = [lab.time_block(state, BLOCK) for _ in range(repeats)]
    return {"check and commit, us": 1e6 * compute_median(seconds) / BLOCK, "resident, MB": resident / 1e6}


def measure_block_size(seed: int, transactions: int, repeats: int) -> Values:
    lab = Lab(seed)
    state = lab.make_state(ACCOUNTS)
    lab.time_block(state, transactions)
    rounds = max(repeats, min(200, 10_000 // transactions))
    seconds = [lab.time_block(state, transactions) for _ in range(rounds)]
    return {"check and commit, us": 1e6 * compute_median(seconds) / transactions}


def measure_mempool(seed: int, waiting: int, repeats: int) -> Values:
    """Admitting, choosing for a block, and leaving after finality, beside so many that wait."""
    lab = Lab(seed)
    state = lab.make_state(ACCOUNTS)
    policy = MempoolPolicy(count_max=2 * waiting + 10 * BLOCK, bytes_max=10**9)
    mempool = Mempool(lab.rules, SystemClock(), policy)
    for _ in range(0, waiting, FILL):
        _admit(mempool, state, lab.make_transfers(state, FILL))
    admit, select, leave = [], [], []
    for _ in range(max(3, repeats // 4)):
        transfers = lab.make_transfers(state, BLOCK)
        admit.append(measure_s(lambda t=transfers: _admit(mempool, state, t)))  # type: ignore[misc]
        chosen: list[Transaction] = []
        select.append(
            measure_s(lambda c=chosen: c.extend(mempool.select(state.view(), 2_000_000, BLOCK)))  # type: ignore[misc]
        )
        block = lab.build_block(state, chosen)
        state.commit(lab.rules.check_block(state.view(), block, None))
        leave.append(measure_s(lambda b=block: mempool.on_final(b, state.view())))  # type: ignore[misc]
    scale = 1e6 / BLOCK
    return {
        "admit, us": scale * compute_median(admit),
        "choose, us": scale * compute_median(select),
        "leave, us": scale * compute_median(leave),
    }


def _admit(mempool: Mempool, state: State, transfers: list[Transaction]) -> None:
    """As the entrance does, every signature taken for good."""
    view = state.view()
    batch = mempool.prepare([tx.raw for tx in transfers], view, 0)
    mempool.admit(batch, [True] * len(batch.candidates), view, 0)


def measure_history(seed: int, blocks: int, repeats: int) -> Values:
    """A chain of blocks of one transaction: its last blocks, its index, its start."""
    with TemporaryDirectory(prefix="assay-bench-") as name:
        folder = Path(name)
        homes = network.lay_out(folder / "net", 1, seed, 1_000).homes
        rules = chains.load_rules(homes[0])
        maker = chains.ChainMaker(rules, [config.read_key(homes[0] / "validator.key")])
        store = Store.open(homes[0], rules)
        store.recover()
        keys, chain_id = workload.make_keys(seed), workload.make_chain_id(seed)
        chunks = range(-(-blocks // workload.CHUNK))
        raws = [raw for chunk in chunks for raw in workload.sign_chunk(seed, keys, chain_id, chunk)]
        transactions = list(map(decode_transaction, raws[:blocks]))
        last: list[float] = []
        for number, tx in enumerate(transactions):
            seconds = measure_s(lambda t=tx: _grow(maker, store, t))  # type: ignore[misc]
            if number >= blocks - LAST_BLOCKS:
                last.append(seconds)
            if number % BLOCKS_IN_MEMORY == 0:
                store.sync()
        store.write_checkpoint(maker.state)
        rng = random.Random(seed)
        wanted = [rng.choice(transactions).id for _ in range(LOOKUPS)]
        lookups = measure_s(lambda: [store.find_transaction(wanted_id) for wanted_id in wanted])
        store.close()
        starts = [measure_s(lambda: _start(homes[0])) for _ in range(min(3, repeats))]
        size = (homes[0] / BLOCKS_NAME).stat().st_size
    return {
        "make and store a block, us": 1e6 * compute_median(last),
        "find a transaction, us": 1e6 * lookups / LOOKUPS,
        "start from a checkpoint, ms": 1e3 * compute_median(starts),
        "stored, B a block": size / blocks,
    }


def _grow(maker: chains.ChainMaker, store: Store, tx: Transaction) -> None:
    block, finalization = maker.grow((tx,))
    store.put_final(finalization, (block,))


def _start(home: Path) -> None:
    store = Store.open(home, chains.load_rules(home))
    try:
        store.recover()
    finally:
        store.close()


def measure_messages(seed: int, size: int, repeats: int) -> Values:
    """Milliseconds for a frame of so many bytes to a peer on this machine and a short one back."""
    return {"there and back, ms": 1e3 * asyncio.run(_exchange(seed, size, 10 * repeats))}


class _Echo:
    """Answers a body with a question, and tells when a question comes."""

    def __init__(self) -> None:
        self.network: PeerNetwork
        self.is_connected = asyncio.Event()
        self.is_answered = asyncio.Event()
        self.fault: BaseException | None = None

    async def on_frame(self, peer: Peer, frame: Frame) -> None:
        if isinstance(frame, BlockBody):
            self.network.send(peer.node_key, GetBlock(frame.block_hash))
        elif isinstance(frame, GetBlock):
            self.is_answered.set()

    def on_connected(self, _peer: Peer) -> None:
        self.is_connected.set()

    def on_disconnected(self, _peer: Peer) -> None:
        self.is_connected.clear()

    def on_fault(self, error: BaseException) -> None:
        self.fault = error


async def _exchange(seed: int, size: int, rounds: int) -> float:
    """The median of `rounds`, in seconds."""
    rng = random.Random(seed)
    ends = [_Echo(), _Echo()]
    keys = [crypto.PrivateKey.from_seed(b"bench/peer/%d" % number) for number in range(2)]
    known: list[KnownPeer] = []
    for end, key in zip(ends, keys, strict=True):
        end.network = PeerNetwork(
            Identity(key, "bench-peers", bytes(32)),
            end,
            random_bytes=os.urandom,
            rng=rng,
            known_peers=tuple(known),
            limits=NetworkLimits(),
        )
        await end.network.start()
        known = [KnownPeer("first", f"ws://127.0.0.1:{end.network.port}", key.public_key)]
    try:
        async with asyncio.timeout(PEER_SECONDS_MAX):
            await asyncio.gather(*(end.is_connected.wait() for end in ends))
        body = BlockBody(bytes(32), rng.randbytes(size))
        seconds = []
        for _ in range(rounds):
            ends[0].is_answered.clear()
            start_s = stopwatch.monotonic_s()
            ends[0].network.send(keys[1].public_key, body)
            async with asyncio.timeout(PEER_SECONDS_MAX):
                await ends[0].is_answered.wait()
            seconds.append(stopwatch.monotonic_s() - start_s)
    finally:
        for end in ends:
            await end.network.close()
    return compute_median(seconds[1:])
