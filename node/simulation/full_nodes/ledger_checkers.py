"""What final chains must be, on all honest nodes of a run: the same, sound, and never taken back.

Each new final block is read from the store of the first node that has it, reckoned anew by the plain
ledger, and executed by an observer, which has seen the chain from genesis and nothing else: scores,
outcomes and state roots are compared with what it computes. Every other node must have the same header.

Invariant: a block is judged once per run and looked at once per node. Complaints begin with the name of
their invariant. Source: consensus.md, What the simulation checks; scoring.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from consensus import vote
from consensus.block import Block, Header
from consensus.errors import Rejected
from consensus.ledger import epochs, staking
from consensus.ledger.motion import get_seating
from consensus.ledger.rules import Rules
from consensus.ledger.state import ROW_FIXED_BYTES, State, decode_account
from consensus.ledger.supply import compute_money, get_supply
from consensus.vote import Certificate, Verifier
from node.blocks.chain import Chain
from node.simulation.checkers import Violation
from node.simulation.full_nodes.plain_ledger import PlainLedger
from node.simulation.full_nodes.plain_models import PlainSeat
from node.simulation.full_nodes.plain_stakes import PlainStakes

SCORE_CODES: Final = frozenset({"score", "outcome", "refused", "scores", "outcomes"})


class FinalStore(Protocol):
    """As `node.store.store.Store` has it."""

    def get_header(self, height: int) -> Header | None: ...

    def get_block_at(self, height: int) -> Block | None: ...

    def get_certificate(self, height: int) -> tuple[Certificate, int] | None: ...

    def get_links(self, height: int) -> tuple[Header, ...]: ...

    def find_transaction(self, transaction_id: bytes) -> tuple[int, int] | None: ...


class LedgerNode(Protocol):
    """As much of a FullNode as is looked at here."""

    @property
    def chain(self) -> Chain: ...

    @property
    def store(self) -> FinalStore: ...


class LedgerChecker:
    """Over all honest nodes of one run. Raises Violation."""

    def __init__(
        self,
        rules: Rules,
        verify: Verifier,
        innocent: frozenset[bytes] = frozenset(),
        sound_models: Mapping[bytes, bytes] | None = None,
    ) -> None:
        """innocent: operators that no evidence can be true of. sound_models: as `PlainModels` wants them."""
        self._innocent = innocent
        self.rules = rules
        self.observed: State = rules.create_genesis_state()
        self.plain = PlainLedger(rules.genesis, self.observed.header, rules.row_bytes, verify, sound_models)
        self.told: dict[bytes, int] = {}  # transaction id -> a node that told a client it is final
        self._tips: dict[int, Header] = {}  # node -> the last final block it stood at

    # --- while the run lasts --------------------------------------------------------------------------

    def look_at(self, index: int, node: LedgerNode) -> None:
        """Where a node stands; after each of its turns, and after every start."""
        final = node.chain.finalized
        tip = self._tips.get(index, self.plain.headers[0])
        if final is tip or final.hash == tip.hash:
            return
        if final.height <= tip.height:
            raise Violation(
                f"no way back: node {index} stands at block {final.height} of view {final.view}, "
                f"it stood at {tip.height} of view {tip.view}"
            )
        for height in range(tip.height + 1, final.height + 1):
            header = node.store.get_header(height)
            if header is None:
                raise Violation(f"durable: node {index} calls block {height} final and does not store it")
            if height > self.plain.height:
                self._take(index, node, height)
            if header.hash != self.plain.headers[height].hash:
                raise Violation(f"one chain: node {index} has another block at height {height}")
        if self.plain.headers[final.height].hash != final.hash:
            raise Violation(f"one chain: the state of node {index} is not after the block that it stores")
        if node.chain.final_view.root != self.plain.headers[final.height].state_root:
            raise Violation(f"state roots: node {index} has another one at height {final.height}")
        self._tips[index] = final

    def _take(self, index: int, node: LedgerNode, height: int) -> None:
        """A block that is final for the first time in this run."""
        block = node.store.get_block_at(height)
        if block is None:
            raise Violation(f"durable: node {index} stores no body of final block {height}")
        self.plain.apply(block)
        try:
            delta = self.rules.check_block(self.observed.view(), block, None)
        except Rejected as error:
            name = "scores" if error.code in SCORE_CODES else "execution"
            raise Violation(f"{name}: final block {height} is invalid: {error}") from error
        self.observed.commit(delta)
        self._check_models(height)
        stakes = self.plain.stakes
        if stakes is not None:
            if not self._innocent.isdisjoint(stakes.slashed):
                raise Violation(f"framing: by block {height} an honest validator is slashed")
            self._check_supply(stakes, height)
            if height % self.rules.parameters.epoch_blocks == 0:
                check_stakes(stakes, self.observed, height)

    def _check_supply(self, stakes: PlainStakes, height: int) -> None:
        told = get_supply(self.observed.records)
        if (told.issued, told.burned, told.total) != (stakes.issued, stakes.burned, stakes.supply):
            raise Violation(
                f"supply: after block {height} the state has {told}, by reckoning {stakes.supply}"
            )

    def _check_models(self, height: int) -> None:
        seats = get_seating(self.observed.records).seats
        found = [
            PlainSeat(seat.digest, seat.flag_score_min, seat.refuse_score_min, seat.weight) for seat in seats
        ]
        if found != self.plain.models.seats:
            raise Violation(f"models: after block {height} others judge than validators decided")

    def forget(self, index: int) -> None:
        """The world took everything that this node had stored."""
        self._tips.pop(index, None)

    def note_told(self, index: int, transaction_id: bytes) -> None:
        """A node told a client that this transaction is final."""
        self.told.setdefault(transaction_id, index)
        if transaction_id not in self.plain.places:
            raise Violation(
                f"told final: node {index} says 0x{transaction_id.hex()} is final, and no block has it"
            )

    # --- at the end -----------------------------------------------------------------------------------

    def are_level(self, nodes: Mapping[int, LedgerNode]) -> bool:
        """Whether all of them stand at the last block that is final anywhere."""
        return all(node.chain.finalized.height >= self.plain.height for node in nodes.values())

    def check_end(self, nodes: Mapping[int, LedgerNode]) -> None:
        """Everything, once more and from the disk: nothing was rewritten, and states hold what they should."""
        for index, node in nodes.items():
            self.look_at(index, node)
            height = node.chain.finalized.height
            stored = [node.store.get_header(number) for number in range(height + 1)]
            for number, header in enumerate(stored):
                if header is None or header.hash != self.plain.headers[number].hash:
                    raise Violation(f"no way back: node {index} no longer has final block {number}")
            self._check_proof(index, node, height)
            for transaction_id, place in self.plain.places.items():
                found = node.store.find_transaction(transaction_id)
                if place[0] <= height and found != place:
                    raise Violation(
                        f"found again: node {index} finds 0x{transaction_id.hex()} at {found}, it is at {place}"
                    )
            if height == self.plain.height:
                self._check_state(index, node)
        for transaction_id, index in self.told.items():
            if transaction_id not in self.plain.places:
                raise Violation(
                    f"told final: node {index} said that 0x{transaction_id.hex()} is final, and it is not"
                )

    def _check_proof(self, index: int, node: LedgerNode, height: int) -> None:
        if height == 0:
            return
        found = node.store.get_certificate(height)
        if found is None:
            raise Violation(f"certificates: node {index} cannot show why block {height} is final")
        certificate = found[0]
        header = (node.store.get_header(height), *node.store.get_links(height))[-1]
        subject = certificate.subject
        if header is None or subject.kind != vote.FINALIZE or subject.block_hash != header.hash:
            raise Violation(f"certificates: what node {index} shows for block {height} is about another")
        self.plain.check_quorum(certificate)

    def _check_state(self, index: int, node: LedgerNode) -> None:
        view = node.chain.final_view
        if view.account_count != len(self.plain.accounts):
            raise Violation(
                f"accounts: node {index} has {view.account_count}, there are {len(self.plain.accounts)}"
            )
        if (view.tree_root, view.records.root) != (self.observed.tree.root, self.observed.records.root):
            raise Violation(f"state roots: what node {index} holds is not what its root says")
        expected = self.observed.view()
        for address, account in self.plain.accounts.items():
            row = view.get_row(address)
            told = None if row is None else decode_account(row[:ROW_FIXED_BYTES])
            bonded_units = view.get_bonded_units(address)
            if told is None or (told.balance, bonded_units, told.nonce_next, told.nonce_window) != (
                account.balance,
                self.plain.count_bonded(address),
                account.nonce_next,
                account.nonce_window,
            ):
                raise Violation(f"accounts: node {index} has {told}, by reckoning {account}")
            if row != expected.get_row(address):
                raise Violation(f"scores: node {index} remembers other things of 0x{address.hex()}")


def check_stakes(plain: PlainStakes, observed: State, height: int) -> None:
    """At an epoch's end: pools, what is leaving, and who sits next are as reckoned. Raises Violation."""
    records, epoch = observed.records, plain.epoch
    money = compute_money(observed)
    if money.total != plain.supply:
        raise Violation(f"money: after block {height} there are {money.total} of a supply of {plain.supply}")
    pools = dict(staking.walk_stakes(records))
    if pools.keys() != plain.pools.keys():
        raise Violation(f"stakes: after block {height} there are {len(pools)} pools, not {len(plain.pools)}")
    for operator, pool in plain.pools.items():
        stake = pools[operator]
        told = (stake.serial, stake.voting_key, stake.tokens, stake.shares, stake.own_shares)
        told_status = (staking.STATUS_NAMES[stake.status], stake.jailed_until, stake.owed_units)
        expected = (pool.serial, pool.key, pool.tokens, pool.shares, pool.parts.get(operator, 0))
        if (told, told_status) != (expected, (pool.status, pool.jailed_until, pool.owed)):
            raise Violation(f"stakes: after block {height} the state has {stake}, by reckoning {pool}")
    if money.unbonding != (leaving := sum(out.tokens for out in plain.exits.values())):
        raise Violation(f"stakes: after block {height} {money.unbonding} are leaving, by reckoning {leaving}")
    for later in (epoch + 1, epoch + 2):
        chosen, seats = epochs.get_set(records, later), plain.sets[later]
        told_set = list(zip(chosen.operators, chosen.validators.validators, strict=True))
        if told_set != [(seat.operator, seat.validator) for seat in seats]:
            raise Violation(f"seats: the set of epoch {later} is not the one that stakes make")
    elected = {seat.operator for seat in plain.sets[epoch + 2]} & set(plain.slashed)
    if elected and len(plain.sets[epoch + 2]) > len(elected):
        raise Violation(f"seats: who was slashed sits in epoch {epoch + 2} again")
