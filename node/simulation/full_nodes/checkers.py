"""What must hold of whole nodes, looked at from outside: one door for the world, the checkers behind it.

    checkers = NodeCheckers(rules, honest, world.fail)
    checkers.look_at(index, node)         after each turn of a node's loop, and after every start: cheap
    checkers.on_penalty(by, whom, ...)    of Transport.penalise and each frame refused, by index
    checkers.weigh(index, node)           some times a simulated second
    checkers.check_end({index: node})     when all is settled and level

`fail` records a complaint and need not raise: node code catches exceptions, so none leaves this door.
Invariant: whatever is said of or by nodes that are not honest is no complaint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from consensus import crypto
from consensus.errors import Fault, Rejected
from consensus.ledger.rules import Rules
from consensus.vote import Verifier
from node.full_node import FullNode
from node.simulation.checkers import Violation
from node.simulation.full_nodes.ledger_checkers import LedgerChecker
from node.simulation.full_nodes.refusal_checkers import check_refusal_log
from node.simulation.full_nodes.room_checkers import check_bounds, check_leftovers


@dataclass(frozen=True, slots=True)
class Penalty:
    """Node `by` scored node `whom` this many points (0: a frame refused, scored by the transport)."""

    by: int
    whom: int
    points: int
    reason: str


class NodeCheckers:
    """`verify` checks signatures; a world may give one that remembers answers. innocent: honest operators.

    sound_models: those that a run may publish, as `PlainModels` wants them.
    """

    def __init__(
        self,
        rules: Rules,
        honest: frozenset[int],
        fail: Callable[[str], None],
        verify: Verifier = crypto.verify,
        innocent: frozenset[bytes] = frozenset(),
        sound_models: Mapping[bytes, bytes] | None = None,
    ) -> None:
        self.honest = honest
        self.fail = fail
        self.ledger = LedgerChecker(rules, verify, innocent, sound_models)
        self.penalties: list[Penalty] = []  # by honest nodes
        self.has_failed = False
        self._taken: dict[
            int, int
        ] = {}  # node -> no block above was proposed before its refusal log was lost

    # --- while the run lasts --------------------------------------------------------------------------

    def look_at(self, index: int, node: FullNode) -> None:
        """What became final on a node since it was looked at last."""
        if index in self.honest and not self.has_failed:
            self._guard(lambda: self.ledger.look_at(index, node))

    def on_store_lost(self, index: int) -> None:
        """The world took everything that this node had stored: it may stand lower now."""
        self.ledger.forget(index)

    def on_refusal_log_lost(self, index: int, height: int) -> None:
        """The world took this node's refusal log; `height`: of the highest block that was proposed by then."""
        self._taken[index] = height

    def on_penalty(self, by: int, whom: int, points: int, reason: str) -> None:
        """A node holds something against a peer. Honest nodes have nothing against one another."""
        if by not in self.honest:
            return
        self.penalties.append(Penalty(by, whom, points, reason))
        if whom in self.honest:
            self._complain(
                f"peace: honest node {by} penalises honest node {whom} ({points} points: {reason})"
            )

    def on_told_final(self, index: int, transaction_id: bytes) -> None:
        """A node told a client that this transaction is final."""
        if index in self.honest and not self.has_failed:
            self._guard(lambda: self.ledger.note_told(index, transaction_id))

    def weigh(self, index: int, node: FullNode) -> None:
        """What a node's rooms hold: no more than they promise."""
        if index in self.honest and not self.has_failed:
            self._guard(lambda: check_bounds(index, node))

    # --- at the end -----------------------------------------------------------------------------------

    def are_level(self, nodes: Mapping[int, FullNode]) -> bool:
        """Whether these stand at the last block that is final anywhere."""
        return self.ledger.are_level(self._keep_honest(nodes))

    def check_end(self, nodes: Mapping[int, FullNode]) -> None:
        """All that can be asked of nodes at rest. `nodes`: those online, by index."""
        kept = self._keep_honest(nodes)

        def check() -> None:
            self.ledger.check_end(kept)
            for index, node in kept.items():
                check_bounds(index, node)
                check_leftovers(index, node)
                self._check_refusals(index, node)

        self._guard(check)

    def _check_refusals(self, index: int, node: FullNode) -> None:
        log, key = node.refusal_keeper.log, node.refusal_keeper.own_key
        leaves = [log.get(number).leaf for number in range(len(log))]
        headers = self.ledger.plain.headers[: node.chain.finalized.height + 1]
        own = [header for header in headers if header.proposer == key]
        check_refusal_log(index, leaves, own, self._taken.get(index))

    def _keep_honest(self, nodes: Mapping[int, FullNode]) -> dict[int, FullNode]:
        return {index: node for index, node in nodes.items() if index in self.honest}

    def _guard(self, check: Callable[[], None]) -> None:
        try:
            check()
        except Violation as violation:
            self._complain(str(violation))
        except (Rejected, Fault) as error:
            self._complain(f"sound blocks: what is final cannot be read ({error})")

    def _complain(self, text: str) -> None:
        self.has_failed = True
        self.fail(text)
