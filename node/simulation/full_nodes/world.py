"""The deterministic world of whole nodes: real ledger, mempool, gossip, sync, judges and signatures, with
transport, storage, time and chance made by the world.

Faults, villains and checkers are those of the base world; besides, clients pay, and ledgers are compared
(`workload.py`, `checkers.py`). After healing the network must finalize, settle what clients were promised,
and be level, in bounded time.

Invariant: as `world.World`; no violation is raised through a node's code, which might catch it.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from consensus import crypto
from consensus.bft.contract import BlockRef, Engine, Message, Proposal
from consensus.bft.simplex import EngineConfig, SimplexEngine
from consensus.errors import Rejected
from consensus.ledger.epochs import EpochSet
from consensus.ledger.rules import Rules
from consensus.parameters import LEADER_ONION
from consensus.vote import NOTARIZE, Certificate, Evidence, Vote
from node.engine.host import MakeEngine
from node.full_node import FullNode
from node.mempool.receipts import Receipt
from node.network.frames import Frame
from node.node_files import NodeFiles
from node.simulation.checkers import Violation
from node.simulation.config import Outcome, SimulationConfig
from node.simulation.full_nodes import model_life
from node.simulation.full_nodes.accusations import Accusations
from node.simulation.full_nodes.cables import Cables
from node.simulation.full_nodes.casting import cast_run
from node.simulation.full_nodes.chain import GENESIS_MS, ChainSeats, make_chain
from node.simulation.full_nodes.checkers import NodeCheckers
from node.simulation.full_nodes.disguise import Disguise
from node.simulation.full_nodes.epoch_book import EpochBook
from node.simulation.full_nodes.equipment import equip_liar, make_files, make_paced
from node.simulation.full_nodes.host import NodeHost
from node.simulation.full_nodes.ledger_checkers import FinalStore
from node.simulation.full_nodes.model_life import ModelLife
from node.simulation.full_nodes.process import NodeProcess
from node.simulation.full_nodes.signatures import remember_signatures
from node.simulation.full_nodes.stakers import Operator, Stakers
from node.simulation.full_nodes.wires import Door
from node.simulation.full_nodes.workload import Workload
from node.simulation.seats import compute_place, get_stakes
from node.simulation.timeline import Timeline
from node.simulation.turns import compute_draws
from node.simulation.villains import VILLAINS
from node.simulation.world import SimulatedHost, World, place_villains

WEIGH_MS: Final = 200  # how often what nodes keep is weighed
LEVEL_LOOK_MS: Final = 5  # blocks come every few tens of ms: between two of them all stand level
LEVEL_MS_MAX: Final = 90_000  # after healing; clients are given 60 s, and then nothing is left to wait for


class NodeWorld(World):
    """One run of whole nodes. `make_engine`: how a test puts another engine in."""

    hosts: Sequence[NodeHost]

    def __init__(
        self,
        config: SimulationConfig,
        seed: int,
        make_engine: MakeEngine = SimplexEngine,
        timeline: Timeline | None = None,
    ) -> None:
        villains = frozenset(place_villains(config, random.Random(seed)))
        self.cast = cast = cast_run(config, seed, villains)
        has_life = config.model_switches > 0
        self.chain = make_chain(
            cast.stakes,
            config.epoch_blocks,
            len(cast.joiners),
            is_restless=cast.is_restless,
            leader_election=config.leader_election,
            has_model_life=has_life,
            clock=config.clock,
        )
        self._make_simulated = make_engine
        self._disguises: dict[int, Disguise] = {}
        rules = self.chain.rules
        self.epochs = EpochBook([key.public_key for key in self.chain.validator_keys])
        self._frames: dict[bytes, int] = {}
        super().__init__(
            config,
            seed,
            validators=rules.validators,
            genesis=self.chain.genesis,
            chain_id=rules.chain_id,
            verify=_verify,
            timeline=timeline,
        )
        self.cables = Cables(self, [key.public_key for key in self.chain.node_keys])
        innocent = frozenset(self.chain.validator_keys[index].address for index in self.safety.honest)
        rules_to_check = self.chain.checking_rules
        sound = model_life.list_sound() if has_life else None
        self.checkers = NodeCheckers(rules_to_check, self.safety.honest, self.fail, _verify, innocent, sound)
        self.accusations = Accusations(self.checkers.ledger.plain, self.hosts)
        clients = random.Random(f"{seed}/clients")
        stakers = self._make_stakers(rules) if config.epoch_blocks else None
        life = self._make_model_life()
        self.clients = Workload(rules, self.chain.client_keys, clients, self, self.checkers, stakers, life)

    def _make_stakers(self, rules: Rules) -> Stakers:
        honest, keys = self.safety.honest, self.chain.validator_keys
        operators = [Operator(index, key, index in honest) for index, key in enumerate(keys)]
        rng = random.Random(f"{self.seed}/stakers")
        plain = self.checkers.ledger.plain
        return Stakers(rules, self.cast, operators, self.chain.client_keys, rng, plain)

    def _make_model_life(self) -> ModelLife | None:
        if not self.config.model_switches:
            return None
        return ModelLife(
            self.chain.rules,
            self.chain.publisher_key,
            self.chain.validator_keys,
            random.Random(f"{self.seed}/models"),
            self.checkers.ledger.observed.view,
            self.config.model_switches,
        )

    def _make_hosts(self) -> Sequence[NodeHost]:
        return [NodeHost(index, self) for index in range(self.config.node_count)]

    # --- the run --------------------------------------------------------------------------------------

    def run(self) -> str:
        before = logging.root.manager.disable
        logging.disable()  # a log record reads the clock, and nobody reads these
        try:
            with remember_signatures():
                self.clients.start()
                self.push(WEIGH_MS, self._weigh, ())
                return super().run()
        finally:
            logging.disable(before)
            for host in self.hosts:
                if host.process is not None:
                    host.process.end()

    def _weigh(self) -> None:
        for host in self.hosts:
            if host.node is not None:
                self.checkers.weigh(host.index, host.node)
        self.push(WEIGH_MS, self._weigh, ())

    def _on_healed(self, host: SimulatedHost) -> None:
        self.hosts[host.index].heal()
        self.cables.on_links_changed()

    def _heal(self) -> None:
        healed_ms = self.now_ms
        self.clients.stop()
        super()._heal()
        while not (
            self.clients.check_settled(healed_ms) and self.is_level() and self.accusations.are_answered()
        ):
            if self.now_ms > healed_ms + LEVEL_MS_MAX:
                if not self.accusations.are_answered():
                    raise Violation(f"punished: {LEVEL_MS_MAX} ms after healing a proven liar is not slashed")
                heights = {host.index: host.node and host.node.chain.finalized.height for host in self.hosts}
                raise Violation(f"level: {LEVEL_MS_MAX} ms after healing nodes stand at heights {heights}")
            self._run_for(LEVEL_LOOK_MS)
        self.checkers.check_end(self._list_online())
        self.clients.check_end()
        for host in self.hosts:
            if host.process is not None:
                for failure in host.process.loop.list_failures():
                    raise Violation(failure)

    def is_level(self) -> bool:
        """Whether all honest nodes that are to be up stand at the last final block."""
        nodes = self._list_online()
        return len(nodes) == len(self.safety.honest) - self.config.absent and self.checkers.are_level(nodes)

    def _list_online(self) -> dict[int, FullNode]:
        return {index: node for index in self.list_up() if (node := self.hosts[index].node) is not None}

    # --- what a process is made of --------------------------------------------------------------------

    def get_files(self, index: int) -> NodeFiles:
        return make_files(self.config, self.chain, index)

    def get_engine_maker(self, process: NodeProcess) -> MakeEngine:
        door = process.door
        make = door.make_engine if isinstance(door, Disguise) else self._make_simulated
        return make_paced(self.config, make)

    def make_door(self, process: NodeProcess) -> Door | None:
        """What stands between this process's node and the wire: a villain's disguise, a liar, or nothing."""
        index = process.index
        name = self.villains.get(index)
        if name is None:
            return None
        if name in VILLAINS:
            return Disguise(process, name)
        return equip_liar(self, process, name)

    def get_wire_door(self, process: NodeProcess) -> Door | None:
        """What the process's wire goes through: its villain's door, unless a scenario puts one before it."""
        return process.door

    def make_disguised(self, config: EngineConfig, sign: Callable[[bytes], bytes] | None) -> SimplexEngine:
        """The honest engine inside a villain."""
        return SimplexEngine(config, sign)

    def get_wall_ms(self) -> int:
        return GENESIS_MS + self.now_ms

    def draw(self) -> float:
        return self.rng.random()

    # --- epochs ---------------------------------------------------------------------------------------

    def is_bearable(self, harmed: set[int]) -> bool:
        """Whether the honest among these may lose what they said, in this epoch's set and all later ones."""
        cast = self.cast
        if cast.is_restless:
            return harmed & self.safety.honest <= cast.faulty
        stakes = (*cast.stakes, *(cast.joiner_units for _ in cast.joiners))
        stake = sum(stakes[index] for index in harmed & self.safety.honest)
        return 3 * (stake + self.config.weigh_faulty()) < sum(cast.stakes)

    def open_epoch(self, process: NodeProcess, epoch: int, epoch_set: EpochSet, store: FinalStore) -> None:
        """A node makes the engine of an epoch with this set, over what it has stored."""
        self.epochs.begin(epoch, epoch_set)
        if not self.config.epoch_blocks:
            return
        seats = ChainSeats(epoch_set.validators, self.epochs.get_members(epoch))
        if not (self.cast.is_sound(get_stakes(seats)) or self.config.is_beyond_promise):
            self.fail(f"promise: the world lets the faulty hold a third of epoch {epoch}")
        self.note(f"epoch {epoch}", process.index)
        self._guard(lambda: self.safety.open_epoch(process.index, epoch, seats))
        if self.config.leader_election == LEADER_ONION:
            headers = map(store.get_header, range(epoch * self.config.epoch_blocks + 1))
            reveals = [header.reveal for header in headers if header is not None]
            draws = compute_draws([entry.stake for entry in epoch_set.validators.validators], epoch, reveals)
            self._guard(lambda: self.safety.draw(process.index, epoch, draws))

    def look_at(self, host: SimulatedHost, engine: Engine) -> None:
        process = self.hosts[host.index].process
        assert process is not None
        assert process.node is not None  # it is the one that looks
        epoch, view = process.node.engines.epoch, engine.view
        self.epochs.note_view(epoch, view)
        place = compute_place(epoch, view), compute_place(epoch, engine.finalized_view)
        if host.index in self.safety.honest:  # a villain may forget all that it said
            self.safety.look_at(host.index, *place)
        self.safety.weigh(host.index, engine)
        if self.timeline is not None:
            self.timeline.add_view(self.now_ms, host.index, view, getattr(engine, "leader", -1))

    def count_views(self) -> int:
        return self.epochs.count_views()

    # --- what processes tell --------------------------------------------------------------------------

    def _guard(self, check: Callable[[], None]) -> None:
        try:
            check()
        except Violation as violation:
            self.fail(str(violation))

    def check_start(self, process: NodeProcess, node: FullNode) -> None:
        self._guard(lambda: self.check_journal(process.host, node.journal_status))
        for record in node.engines.records:
            if process.is_honest and isinstance(record, Certificate):
                # It may have gone down between holding this and saying so.
                self._guard(partial(self.safety.hear, process.index, record, is_body_durable=True))

    def hear(self, process: NodeProcess, message: Message) -> None:
        """What an honest node says, before it is sent."""
        vote = message.vote if isinstance(message, Proposal) else message
        is_durable = True
        block: BlockRef | None = None
        if isinstance(vote, Vote) and vote.subject.kind == NOTARIZE:
            block_hash = vote.subject.block_hash
            is_durable = process.is_durable(block_hash)
            node = process.node
            header = None if node is None else node.chain.get_header(block_hash)
            block = None if header is None else self.epochs.read_block(header.raw)
        self._guard(lambda: self.safety.hear(process.index, message, is_body_durable=is_durable, block=block))

    def hear_held(self, index: int, message: Message) -> None:
        """An engine says this, whether or not a frame of it will ever leave the node."""
        if index in self.safety.honest and isinstance(message, Certificate):
            self._guard(lambda: self.safety.hear(index, message, is_body_durable=True))

    def look_at_node(self, index: int, node: FullNode) -> None:
        """After every turn of a node's loop in which something became final, and after its start."""
        height, final = self.safety.heights.get(index, 0), node.chain.finalized.height
        while height < final:
            height += 1
            header = node.store.get_header(height)
            if header is None:
                raise Violation(f"one chain: node {index} stands at {final} and has no block {height}")
            self.record("commit", index, f"height {height}")
            self.safety.commit(index, self.epochs.read_block(header.raw))
        self.checkers.look_at(index, node)

    def on_evidence(self, index: int, evidence: Evidence) -> None:
        self.record(
            "evidence", index, f"validator {evidence.first.signer}, view {evidence.first.subject.view}"
        )
        if index in self.safety.honest:
            self._guard(lambda: self.safety.accuse(evidence))
            self.accusations.note(self.hosts[index], evidence)

    def lose_store(self, host: NodeHost) -> None:
        """All that it had stored of the chain is gone; its journal is not."""
        index = host.index
        self.checkers.on_store_lost(index)
        self.safety.heights.pop(index, None)
        if self.config.epoch_blocks or host.is_damaged:
            # It goes through the epochs again, and signs nothing there; or it knows nothing of where it stood.
            self.safety.places.pop(index, None)
        elif index in self.safety.places:
            self.safety.places[index] = (self.safety.places[index][0], 0)

    def lose_refusal_log(self, index: int) -> None:
        """This node's log of refusals is gone."""
        nodes = (host.node for host in self.hosts)
        heights = [node.chain.get_head().height for node in nodes if node is not None]
        # One more may be on its way, that nobody has judged yet.
        self.checkers.on_refusal_log_lost(index, max(heights, default=0) + 1)

    def on_halt(self, index: int, reason: str) -> None:
        self._guard(lambda: self.halted(index, reason))

    def fail_by(self, index: int, fault: BaseException) -> None:
        """A node ended itself, and no fault of the world's was the cause."""
        frame, place = fault.__traceback__, ""
        while frame is not None:
            place = f" in {frame.tb_frame.f_code.co_qualname}"
            frame = frame.tb_next
        self.fail(f"fault: node {index} stopped: {type(fault).__name__}: {fault}{place}")

    def is_build_failing(self) -> bool:
        return self.build_failures > 0 and self.rng.random() < self.build_failures

    # --- the network ----------------------------------------------------------------------------------

    def cut(self, name: str, links: frozenset[tuple[int, int]]) -> None:
        before = self.links.cut_now
        super().cut(name, links)
        if self.links.cut_now != before:
            self.cables.on_links_changed()

    def note_frame(self, sender: int, receiver: int, data: bytes) -> None:
        number = self._frames.get(data)
        if number is None:
            number = self._frames[data] = len(self._frames)
            self.trace.add(data)
        self.trace.add_number(self.now_ms << 16 | sender << 8 | receiver)
        self.trace.add_number(number)

    @property
    def is_watched(self) -> bool:
        return self.timeline is not None

    def note_sent(self, sender: int, receiver: int, frame: Frame, delay_ms: int | None) -> None:
        try:
            message = self.epochs.read_message(frame)
        except Rejected:
            return
        if message is not None and self.timeline is not None:
            delays_ms = () if delay_ms is None else (delay_ms,)
            self.timeline.add_message(self.now_ms, sender, receiver, message, delays_ms)

    def note_penalty(self, by: int, whom: int, points: int, reason: str, *, is_ban: bool) -> None:
        self.checkers.on_penalty(by, whom, points, reason)
        self.note(f"{'bans' if is_ban else 'scores'} {whom}: {points} {reason}", by)

    # --- clients --------------------------------------------------------------------------------------

    def list_up(self) -> Sequence[int]:
        return [
            host.index for host in self.hosts if host.node is not None and host.index in self.safety.honest
        ]

    def get_node(self, index: int) -> FullNode | None:
        return self.hosts[index].node

    def submit(
        self, index: int, raws: Sequence[bytes], answer: Callable[[Sequence[Receipt] | None], None]
    ) -> None:
        process = self.hosts[index].process
        if process is None:
            self.push(0, answer, (None,))
        else:
            process.submit(raws, answer)


def _verify(public_key: bytes, digest: bytes, signature: bytes) -> bool:
    return crypto.verify(public_key, digest, signature)  # looked up now: it may be one that remembers


def simulate_nodes(
    config: SimulationConfig,
    seed: int,
    make_engine: MakeEngine = SimplexEngine,
    timeline: Timeline | None = None,
) -> Outcome:
    """One run of whole nodes, wholly determined by its arguments. A violation is told in the outcome."""
    world = NodeWorld(config, seed, make_engine, timeline)
    return world.summarize(world.run())
