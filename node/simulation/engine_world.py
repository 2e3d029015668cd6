"""The deterministic world of engines alone: toy blocks, toy signatures, and nothing between two engines
but links. A run takes a few hundredths of a second, so a hundred thousand of them are an afternoon.

Invariant: a message reaches an engine only if `check_message` takes it, as in a real node; an honest node
never sends one that it would not.
Leaves out: transactions, state, gossip, sync (`full_nodes/` has them).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from consensus.bft.contract import BlockRef, Engine, Message, Proposal
from consensus.bft.leader import compute_offset
from consensus.bft.messages import check_message, encode_message
from consensus.bft.simplex import EngineConfig, SimplexEngine
from consensus.errors import Rejected
from consensus.vote import NOTARIZE, ValidatorSet, Vote
from node.simulation import toys
from node.simulation.checkers import Violation
from node.simulation.config import Outcome, SimulationConfig
from node.simulation.host import NAMES, Host, MakeEngine
from node.simulation.seats import compute_place, get_stakes
from node.simulation.timeline import Timeline
from node.simulation.toy_epochs import STAKE_UNITS, ToySet, draw_next, make_set
from node.simulation.toy_ledger import JUDGE_MS
from node.simulation.traffic import Traffic
from node.simulation.villains import Means, Villain, make_villain
from node.simulation.villains.villain import get_epoch
from node.simulation.world import SimulatedHost, World

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
        self._views: dict[int, int] = {}  # by epoch: the highest entered
        self.tails_final = 0  # finalizations of tails that hosts met, each counting
        stakes = config.all_stakes
        self._base = [STAKE_UNITS * stake for stake in stakes] if config.epoch_blocks else list(stakes)
        first = make_set(dict(enumerate(self._base)))
        # The first two sets are genesis': later ones are drawn from boundary blocks.
        self.first_sets = (first, first)
        super().__init__(
            config,
            seed,
            validators=first.validators,
            genesis=toys.GENESIS,
            chain_id=toys.CHAIN_ID,
            verify=toys.verify,
            timeline=timeline,
        )

    def _make_hosts(self) -> list[Host]:
        self.safety.sets |= dict(enumerate(self.first_sets))
        return [Host(index, self, self._make(index), self.rng) for index in range(self.config.nodes)]

    def _make(self, index: int) -> MakeEngine:
        config, key = self.config, toys.get_public_key(index)

        def sign(digest: bytes) -> bytes:
            return toys.sign(key, digest)

        def make(observe_until_view: int | None) -> Engine:
            host = self.hosts[index]
            engine_config = EngineConfig(
                chain_id=toys.CHAIN_ID,
                epoch=host.epoch,
                validators=host.epoch_set.validators,
                own_index=host.epoch_set.get_index(index),
                genesis=host.genesis,
                height_max=host.height_max,
                leader_offset=compute_offset(host.epoch, config.epoch_blocks),
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
                    index=host.own_index,  # villains keep their seats
                    validators=host.epoch_set.validators,
                    chain_id=toys.CHAIN_ID,
                    genesis=host.genesis,
                    make_engine=lambda: self.make_disguised(engine_config, sign),
                    sign=sign,
                    make_block=host.forge_block,
                    read_block=toys.read_block,
                    get_payload=host.bodies.get,
                    name_peer=[NAMES[node] for node in host.epoch_set.members].__getitem__,
                    rng=self.rng,
                )
            )

        return make

    # What a scenario decides otherwise (scenarios/stage.py).

    def make_villain(self, means: Means) -> Villain:
        return make_villain(self.name_villain(means), means)

    def name_villain(self, means: Means) -> str:
        """Which villain has this seat."""
        return self.villains[NAMES.index(means.name_peer(means.index))]

    def make_disguised(self, config: EngineConfig, sign: Callable[[bytes], bytes]) -> SimplexEngine:
        """The honest engine inside a villain."""
        return SimplexEngine(config, sign)

    def draw_judge_ms(self, node: int) -> int:  # noqa: ARG002 - a scenario makes one node slow
        return 1 + int(self.rng.random() * JUDGE_MS)

    def look_at(self, host: SimulatedHost, engine: Engine) -> None:
        epoch, view = self.hosts[host.index].epoch, engine.view
        self._views[epoch] = max(self._views.get(epoch, 0), view)
        final_place = compute_place(epoch, engine.finalized_view)
        self.safety.look_at(host.index, compute_place(epoch, view), final_place)
        self.safety.weigh(host.index, engine)
        if self.timeline is not None:
            leader = getattr(engine, "leader", -1)
            self.timeline.add_view(self.now_ms, host.index, view, leader)

    def count_views(self) -> int:
        return sum(self._views.values())

    # --- epochs -------------------------------------------------------------------------------------

    def draw_set(self, before: ToySet, boundary: BlockRef) -> ToySet:
        """Of the epoch two after that of the boundary block."""
        seed = boundary.hash + self.seed.to_bytes(8, "big")
        drawn = draw_next(before, seed, self._base, self._is_fit)
        self.safety.sets.setdefault(boundary.epoch + 2, drawn)
        return drawn

    def _is_fit(self, stakes: dict[int, int]) -> bool:
        """Whether the faulty stay below a third among these, and the villains have their seats."""
        return self._are_few(stakes, set()) and all(villain in stakes for villain in self.villains)

    def _are_few(self, stakes: dict[int, int], harmed: set[int]) -> bool:
        honest = [stake for node, stake in stakes.items() if node not in self.villains]
        absent = sum(sorted(honest, reverse=True)[: self.config.absent])
        hurt = sum(stake for node, stake in stakes.items() if node in self.villains or node in harmed)
        return 3 * (absent + hurt) < sum(stakes.values())

    def is_bearable(self, harmed: set[int]) -> bool:
        if not self.config.epoch_blocks:
            return super().is_bearable(harmed)
        reached = min(self.hosts[node].epoch for node in self.safety.honest)
        sets = [get_stakes(found) for epoch, found in self.safety.sets.items() if epoch >= reached]
        return all(self._are_few(stakes, harmed) for stakes in sets)

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
                check_message(message, self._find_validators(message), toys.CHAIN_ID, toys.verify)
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

    def _find_validators(self, message: Message) -> ValidatorSet:
        """Of the message's epoch. Raises Rejected when there is no such epoch yet."""
        if not self.config.epoch_blocks:
            return self.validators
        found = self.safety.sets.get(get_epoch(message))
        if found is None:
            raise Rejected("has no set yet", field="message.epoch", code="epoch")
        return found.validators

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
