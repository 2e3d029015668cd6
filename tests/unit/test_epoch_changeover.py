"""Engines and the real ledger together across epochs: what a host does at a boundary, in a hundred lines.

Messages take random time and bodies are shared, so that some boundaries become final only through a tail;
timers run in virtual time. A fifth validator bonds on the way and votes from the epoch on that names it.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable
from itertools import count

import pytest

from consensus.bft import contract as c
from consensus.bft.leader import compute_offset
from consensus.bft.messages import make_block_reader, make_genesis_ref
from consensus.bft.simplex import EngineConfig, SimplexEngine
from consensus.block import Block
from consensus.crypto import PrivateKey
from consensus.ledger import beacon, epochs
from consensus.ledger.rules import Rules
from consensus.ledger.state import Delta, View
from consensus.ledger.supply import compute_money
from consensus.parameters import LEADER_ONION, LEADER_ROUND_ROBIN
from consensus.transaction import Transaction
from consensus.vote import Certificate, Vote
from node.simulation import toys
from tests.staking_chain import OPERATORS, StakingChain, make_staking_genesis, make_voting_key

KEYS = (*OPERATORS[:4], make_voting_key(4))
EPOCHS = 6


def get_epoch(message: c.Message) -> int:
    match message:
        case Vote(subject) | Certificate(subject):
            return subject.epoch
        case c.Proposal(block):
            return block.epoch
        case _:
            return message.epoch


class Network:
    """Virtual time, and all bodies ever built."""

    def __init__(self, seed: int, rules: Rules, waiting: Iterable[Transaction]) -> None:
        self.rng, self.rules, self.waiting = random.Random(seed), rules, list(waiting)
        self.bodies: dict[bytes, Block] = {}
        self.queue: list[tuple[int, int, Node, int, c.Event]] = []
        self.order, self.now_ms, self.tails_final = count(), 0, 0
        self.nodes = [Node(self, number, key) for number, key in enumerate(KEYS)]

    def post(self, delay_ms: int, node: Node, epoch: int, event: c.Event) -> None:
        heapq.heappush(self.queue, (self.now_ms + delay_ms, next(self.order), node, epoch, event))

    def run(self, height: int) -> None:
        for node in self.nodes:
            node.open_epoch(0)
        while min(node.state.header.height for node in self.nodes) < height:
            self.now_ms, _, node, epoch, event = heapq.heappop(self.queue)
            assert self.now_ms < 10**6, "no progress"
            node.take(epoch, event)


class Node:
    def __init__(self, network: Network, number: int, key: PrivateKey) -> None:
        self.network, self.number, self.key = network, number, key
        self.state = network.rules.create_genesis_state()
        self.views: dict[bytes, View] = {self.state.header.hash: self.state.view()}
        self.deltas: dict[bytes, Delta] = {}
        self.engines: dict[int, SimplexEngine] = {}  # the old ones still serve those who lag
        self.early: list[tuple[int, c.Event]] = []
        self.final: list[bytes] = []
        self.timers: dict[tuple[int, c.Timer], c.TimerFired] = {}
        self.signed_in: set[int] = set()

    def open_epoch(self, epoch: int) -> None:
        """The state stands at the boundary block before `epoch`: its engine begins there."""
        rules, found = self.network.rules, self.state.view().find_set(epoch)
        assert found is not None
        blocks, is_drawn = rules.parameters.epoch_blocks, rules.parameters.leader_election == LEADER_ONION
        index = found.validators.get_index(self.key.public_key)
        config = EngineConfig(
            chain_id=rules.chain_id,
            epoch=epoch,
            validators=found.validators,
            own_index=index,
            genesis=make_genesis_ref(self.state.header, epoch),
            height_max=epochs.compute_boundary(epoch, blocks),
            leader_offset=compute_offset(epoch, blocks),
            leader_seed=beacon.compute_seed(self.state.records, epoch) if is_drawn else b"",
            delta_ms=100,
            block_interval_ms=20,
            standstill_ms=2_000,
        )
        sign = None if index is None else (lambda digest: toys.sign(self.key.public_key, digest))
        self.engines[epoch] = SimplexEngine(config, sign)
        self.perform(epoch, self.engines[epoch].start(()))
        waiting, self.early = self.early, []
        for early_epoch, event in waiting:
            self.take(early_epoch, event)

    def take(self, epoch: int, event: c.Event) -> None:
        if epoch not in self.engines:
            self.early.append((epoch, event))
            return
        if isinstance(event, c.TimerFired) and self.timers.get((epoch, event.timer)) is not event:
            return
        self.perform(epoch, self.engines[epoch].step(event))

    def perform(self, epoch: int, effects: tuple[c.Effect, ...]) -> None:
        network = self.network
        for effect in effects:
            match effect:
                case c.Broadcast(message):
                    if isinstance(message, Vote):
                        self.signed_in.add(epoch)
                    for other in network.nodes:
                        if other is not self:
                            self.send(other, message)
                case c.Send(peer, message):
                    self.send(network.nodes[peer[0]], message)
                case c.FetchCertificate(request):
                    self.send(network.rng.choice(network.nodes), request)
                case c.FetchBlock(block_hash):
                    header = network.bodies[block_hash].header
                    network.post(1, self, epoch, c.BlockFetched(self.read(header.raw, epoch), header.raw))
                case c.Build():
                    self.build(epoch, effect)
                case c.Judge(ref):
                    self.judge(epoch, ref.hash)
                case c.SetTimer(timer, view, delay_ms):
                    fired = self.timers[epoch, timer] = c.TimerFired(timer, view)
                    network.post(delay_ms, self, epoch, fired)
                case c.CancelTimer(timer):
                    self.timers.pop((epoch, timer), None)
                case c.Finalize(certificate):
                    self.finalize(epoch, certificate)
                case c.Halt(reason):
                    pytest.fail(reason)

    def send(self, other: Node, message: c.Message) -> None:
        delay_ms = self.network.rng.choice((5, 10, 20, 90))
        event = c.Received(message, bytes((self.number,)))
        self.network.post(delay_ms, other, get_epoch(message), event)

    def read(self, raw: bytes, epoch: int) -> c.BlockRef:
        found = self.state.view().find_set(epoch)
        assert found is not None
        return make_block_reader(found.validators)(raw)

    def build(self, epoch: int, build: c.Build) -> None:
        built = self.network.rules.build_block(
            self.views[build.parent.hash],
            self.network.waiting,
            epoch=epoch,
            view_number=build.view,
            proposer_key=self.key.public_key,
            now_ms=0,
            certificate=build.certificate,
        )
        header = built.block.header
        self.network.bodies[header.hash] = built.block
        self.add(header.hash, built.delta)
        event = c.BlockBuilt(build.view, self.read(header.raw, epoch), header.raw)
        self.network.post(1, self, epoch, event)

    def judge(self, epoch: int, block_hash: bytes) -> None:
        if epoch < max(self.engines):
            return  # a late tail of an epoch that is over here: its state is gone, and nobody needs a vote
        self.execute(block_hash)
        self.network.post(3, self, epoch, c.BlockJudged(block_hash, c.Judgement.VALID))

    def execute(self, block_hash: bytes) -> None:
        """A real judge says "not yet" while the parent is missing; here bodies are at hand."""
        if block_hash not in self.views:
            block = self.network.bodies[block_hash]
            self.execute(block.header.parent_hash)
            view = self.views[block.header.parent_hash]
            self.add(block_hash, self.network.rules.check_block(view, block, None))

    def add(self, block_hash: bytes, delta: Delta) -> None:
        self.views[block_hash] = self.views[delta.header.parent_hash].extend(delta)
        self.deltas[block_hash] = delta

    def finalize(self, epoch: int, certificate: Certificate) -> None:
        """Commits the branch up to the boundary block; what stands above it are tails, and dropped."""
        if epoch < max(self.engines):
            return
        self.execute(certificate.subject.block_hash)
        branch, block_hash = [], certificate.subject.block_hash
        while block_hash != self.state.header.hash:
            branch.append(self.deltas[block_hash])
            block_hash = branch[-1].header.parent_hash
        for delta in reversed(branch):
            if delta.is_tail:
                self.network.tails_final += 1
                break
            self.state.commit(delta)
            self.final.append(delta.header.hash)
            self.views[delta.header.hash] = self.state.view()
        header, blocks = self.state.header, self.network.rules.parameters.epoch_blocks
        if epochs.is_boundary(header.height, blocks) and header.epoch + 1 not in self.engines:
            self.open_epoch(header.epoch + 1)


@pytest.mark.parametrize(
    ("run", "leaders"), [*((run, LEADER_ROUND_ROBIN) for run in range(6)), (6, LEADER_ONION)]
)
def test_engines_change_over_without_a_pause_and_with_one_chain(seed: int, run: int, leaders: str) -> None:
    chain = StakingChain(make_staking_genesis(churn_bp_max=10_000, leader_election=leaders))
    network = Network(seed + run, chain.rules, [chain.found(4, 900)])
    blocks = chain.rules.parameters.epoch_blocks
    network.run(EPOCHS * blocks)
    chains = [node.final[: EPOCHS * blocks] for node in network.nodes]
    assert all(found == chains[0] for found in chains)
    headers = [network.bodies[block_hash].header for block_hash in chains[0]]
    assert [header.height for header in headers] == list(range(1, EPOCHS * blocks + 1))
    assert [header.epoch for header in headers] == [epoch for epoch in range(EPOCHS) for _ in range(blocks)]
    newcomer = network.nodes[4]
    assert min(newcomer.signed_in) == 2
    if leaders == LEADER_ROUND_ROBIN:
        assert any(header.proposer == KEYS[4].public_key for header in headers)
    for node in network.nodes:
        assert compute_money(node.state).total == node.state.view().supply


def test_some_boundaries_become_final_through_a_tail(seed: int) -> None:
    chain = StakingChain(make_staking_genesis())
    found = 0
    for run in range(4):
        network = Network(seed + run, chain.rules, [])
        network.run(4 * chain.rules.parameters.epoch_blocks)
        found += network.tails_final
    assert found > 0
