"""The deterministic world of engines alone: toy blocks, toy signatures, and nothing between two engines
but links. A run takes a few hundredths of a second, so a hundred thousand of them are an afternoon.

Invariant: a message reaches an engine only if `check_message` takes it, as in a real node; an honest node
never sends one that it would not.
Leaves out: transactions, state, gossip, sync (`full_nodes/` has them).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from consensus.bft.contract import Engine, Message, Proposal
from consensus.bft.messages import check_message, encode_message
from consensus.bft.simplex import EngineConfig, SimplexEngine
from consensus.errors import Rejected
from consensus.vote import NOTARIZE, Vote
from node.simulation import toys
from node.simulation.checkers import Violation
from node.simulation.config import Outcome, SimulationConfig
from node.simulation.host import NAMES, Host, MakeEngine
from node.simulation.timeline import Timeline
from node.simulation.toy_ledger import JUDGE_MS
from node.simulation.traffic import Traffic
from node.simulation.villains import Means, Villain, make_villain
from node.simulation.world import World

MakeSimulated = Callable[[EngineConfig, Callable[[bytes], bytes]], Engine]


class EngineWorld(World):
    """One run. `make_engine` is how a test or a student puts another engine in."""

    hosts: list[Host]

    def __init__(
        self,
        config: SimulationConfig,
        seed: int,
        make_engine: MakeSimulated = SimplexEngine,
        timeline: Timeline | None = None,
    ) -> None:
        self._make_simulated = make_engine
        # By identity: the message, a number that its content alone decides, and whether it is sound.
        self._checked: dict[int, tuple[Message, int, bool]] = {}
        self._sound: dict[bytes, tuple[int, bool]] = {}  # by content
        self.traffic: Traffic | None = None  # counts what is sent, if somebody wants to know
        # Where sender, receiver and message stand in a number of the trace.
        self._shifts = (26, 20) if config.nodes <= 64 else (24, 16)
        super().__init__(
            config,
            seed,
            validators=toys.make_validators(config.all_stakes),
            genesis=toys.GENESIS,
            chain_id=toys.CHAIN_ID,
            verify=toys.verify,
            timeline=timeline,
        )

    def _make_hosts(self) -> list[Host]:
        return [Host(index, self, self._make(index), self.rng) for index in range(self.config.nodes)]

    def _make(self, index: int) -> MakeEngine:
        config, key = self.config, self.validators.validators[index].public_key

        def sign(digest: bytes) -> bytes:
            return toys.sign(key, digest)

        def make(observe_until_view: int | None) -> Engine:
            engine_config = EngineConfig(
                chain_id=toys.CHAIN_ID,
                epoch=toys.EPOCH,
                validators=self.validators,
                own_index=index,
                genesis=toys.GENESIS,
                delta_ms=config.delta_ms,
                delta_ms_max=config.delta_ms_max,
                block_interval_ms=config.block_interval_ms,
                standstill_ms=config.standstill_ms,
                standstill_ms_max=config.standstill_ms_max,
                observe_until_view=observe_until_view,
            )
            if index in self.safety.honest:
                return self._make_simulated(engine_config, sign)
            return self.make_villain(
                Means(
                    index=index,
                    validators=self.validators,
                    chain_id=toys.CHAIN_ID,
                    genesis=toys.GENESIS,
                    make_engine=lambda: self.make_disguised(engine_config, sign),
                    sign=sign,
                    make_block=self.hosts[index].forge_block,
                    read_block=toys.read_block,
                    get_payload=self.hosts[index].bodies.get,
                    name_peer=NAMES.__getitem__,
                    rng=self.rng,
                )
            )

        return make

    # What a scenario decides otherwise (scenarios/stage.py).

    def make_villain(self, means: Means) -> Villain:
        return make_villain(self.villains[means.index], means)

    def make_disguised(self, config: EngineConfig, sign: Callable[[bytes], bytes]) -> SimplexEngine:
        """The honest engine inside a villain."""
        return SimplexEngine(config, sign)

    def draw_judge_ms(self, node: int) -> int:  # noqa: ARG002 - a scenario makes one node slow
        return 1 + int(self.rng.random() * JUDGE_MS)

    # --- messages -----------------------------------------------------------------------------------

    def hear(self, host: Host, message: Message) -> None:
        """What a host says, before it is sent: the checkers listen."""
        if host.index not in self.safety.honest:
            return
        vote = message.vote if isinstance(message, Proposal) else message
        is_durable, block = True, None
        if isinstance(vote, Vote) and vote.subject.kind == NOTARIZE:
            is_durable = host.has_branch(vote.subject.block_hash)
            payload = host.bodies.get(vote.subject.block_hash)
            block = None if payload is None else toys.read_block(payload)
        self.safety.hear(host.index, message, is_body_durable=is_durable, block=block)

    def broadcast(self, sender: int, message: Message, peers_max: int | None = None) -> None:
        receivers: Iterable[int] = range(len(self.hosts))
        if peers_max is not None and peers_max < len(self.hosts) - 1:
            others = [index for index in receivers if index != sender]
            receivers = self.rng.sample(others, peers_max)
        for receiver in receivers:
            if receiver != sender:
                self.send(sender, receiver, message)

    def send(self, sender: int, receiver: int, message: Message) -> None:
        delays_ms = self.links.draw_delays_ms(sender, receiver)
        for delay_ms in delays_ms:
            self._tokens = token = self._tokens + 1
            arrival = (self.now_ms + delay_ms, token, self._deliver, (sender, receiver, message))
            heapq.heappush(self._queue, arrival)
        if self.traffic is not None:
            self.traffic.add(sender, message)
        if self.timeline is not None:
            self.timeline.add_message(self.now_ms, sender, receiver, message, delays_ms)

    def _deliver(self, sender: int, receiver: int, message: Message) -> None:
        _, number, is_sound = self._checked.get(id(message)) or self._check(sender, message)
        high, low = self._shifts
        self.trace.add_number(self.now_ms << 32 | sender << high | receiver << low | number)
        if is_sound:
            self.hosts[receiver].receive(message, sender)
        elif self.hosts[receiver].is_needed(message):
            self.refused[sender] += 1  # what a node has no need of, it does not check

    def _check(self, sender: int, message: Message) -> tuple[Message, int, bool]:
        """Once for all receivers, and for all copies: messages are frozen."""
        content = encode_message(message)
        known = self._sound.get(content)
        if known is None:
            is_sound = True
            try:
                check_message(message, self.validators, toys.CHAIN_ID, toys.verify)
            except Rejected as error:
                is_sound = False
                if sender in self.safety.honest:
                    raise Violation(
                        f"form: honest node {sender} sends what no node takes ({error})"
                    ) from error
            known = self._sound[content] = (len(self._sound) % (1 << self._shifts[1]), is_sound)
            self.trace.add(content)
        checked = self._checked[id(message)] = (message, *known)
        return checked

    # --- bodies -------------------------------------------------------------------------------------

    def request_body(self, asker: int, peer: int, block_hash: bytes) -> None:
        for delay_ms in self.links.draw_delays_ms(asker, peer):
            self.push(delay_ms, self._answer_body, (asker, peer, block_hash))

    def _answer_body(self, asker: int, peer: int, block_hash: bytes) -> None:
        host = self.hosts[peer]
        if isinstance(host.engine, Villain):
            payload = host.engine.answer_body(block_hash)
        else:
            payload = host.bodies.get(block_hash) if host.is_up else None
        if payload is None:
            return
        for delay_ms in self.links.draw_delays_ms(peer, asker):
            self.push(delay_ms, self._deliver_body, (asker, peer, block_hash, payload))

    def _deliver_body(self, asker: int, peer: int, block_hash: bytes, payload: bytes) -> None:
        if toys.hash_block(payload) != block_hash:
            self.refused[peer] += 1  # not what was asked for
        elif self.hosts[asker].is_up:
            self.hosts[asker].take_body(payload)


def simulate(
    config: SimulationConfig,
    seed: int,
    make_engine: MakeSimulated = SimplexEngine,
    timeline: Timeline | None = None,
) -> Outcome:
    """One run, wholly determined by its arguments. A violation is told in the outcome, not raised."""
    world = EngineWorld(config, seed, make_engine, timeline)
    return world.summarize(world.run())
