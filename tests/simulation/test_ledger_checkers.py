"""Each checker of final chains objects to nodes whose history breaks its invariant, and to no sound ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from consensus import crypto
from consensus.vote import FINALIZE, NOTARIZE
from node.blocks.chain import Chain
from node.simulation.checkers import Violation
from node.simulation.full_nodes.checkers import NodeCheckers
from node.simulation.full_nodes.ledger_checkers import LedgerChecker
from tests.fakes.final_chains import History, Node, make_rules


def make_checker(history: History) -> LedgerChecker:
    return LedgerChecker(history.rules, crypto.verify)


def make_pair() -> tuple[History, LedgerChecker, Node, Node]:
    """Two nodes that have the same two blocks, looked at."""
    history = History()
    history.grow(history.pay(0, 0), history.pay(2, 4))
    history.grow(history.pay(0, 1))
    checker, nodes = make_checker(history), (Node(history), Node(history))
    for index, node in enumerate(nodes):
        for block in history.blocks:
            node.take(block)
        checker.look_at(index, node)
    return history, checker, *nodes


def test_sound_nodes_pass_in_the_middle_and_at_the_end() -> None:
    history, checker, first, second = make_pair()
    history.grow(history.report(1))
    first.take(history.blocks[2])
    checker.look_at(0, first)
    checker.look_at(1, second)
    assert not checker.are_level({0: first, 1: second})
    second.take(history.blocks[2])
    assert checker.are_level({0: first, 1: second})
    checker.note_told(1, history.blocks[0].transactions[1].id)
    checker.check_end({0: first, 1: second})


def test_two_nodes_with_different_blocks_at_one_height() -> None:
    history, checker, first, second = make_pair()
    first.take(history.build(history.pay(1)))
    second.take(history.build(history.pay(3)))
    checker.look_at(0, first)
    with pytest.raises(Violation, match=r"^one chain: node 1 has another block at height 3"):
        checker.look_at(1, second)


def test_a_state_that_is_not_after_the_block_that_is_stored() -> None:
    history, checker, first, _ = make_pair()
    first.take(history.build(history.pay(1)))
    first.store.headers[3] = first.store.bodies[2].header
    first.store.bodies[2] = history.build(history.pay(3))
    first.store.headers[3] = first.store.bodies[2].header
    with pytest.raises(Violation, match=r"^one chain: the state of node 0"):
        checker.look_at(0, first)


def test_a_node_that_comes_back_lower_than_it_stood() -> None:
    history, checker, first, _ = make_pair()
    again = Node(history)
    again.take(history.blocks[0])
    with pytest.raises(Violation, match=r"^no way back: node 0 stands at block 1"):
        checker.look_at(0, again)
    checker.forget(0)  # its store was taken away
    checker.look_at(0, again)
    checker.look_at(1, first)


def test_final_blocks_that_are_not_stored() -> None:
    history, checker, first, second = make_pair()
    for node in (first, second):
        node.take(history.build(history.pay(1)))
    first.store.headers.pop()
    with pytest.raises(Violation, match=r"^durable: node 0 calls block 3 final"):
        checker.look_at(0, first)
    second.store.bodies.pop()
    with pytest.raises(Violation, match=r"^durable: node 1 stores no body"):
        checker.look_at(1, second)


def test_a_score_that_an_observer_does_not_compute() -> None:
    history, checker, first, _ = make_pair()
    sound = history.build(history.pay(1))
    assert sound.scores == (1,)
    first.believe(history.craft(*sound.transactions, scores=(2,), state_root=sound.header.state_root))
    with pytest.raises(Violation, match=r"^scores: final block 3"):
        checker.look_at(0, first)


def test_a_state_root_that_an_observer_does_not_compute() -> None:
    history, checker, first, _ = make_pair()
    first.believe(history.craft(state_root=bytes(32)))
    with pytest.raises(Violation, match=r"^execution: final block 3 .*state_root"):
        checker.look_at(0, first)


def test_a_transaction_that_was_told_final_and_is_not() -> None:
    history, checker, first, second = make_pair()
    with pytest.raises(Violation, match=r"^told final: node 1"):
        checker.note_told(1, history.pay(3, 9).id)
    with pytest.raises(Violation, match=r"^told final: node 1"):
        checker.check_end({0: first, 1: second})


def rewrite_header(history: History, node: Node) -> None:
    node.store.headers[1] = history.craft().header


def lose_place(history: History, node: Node) -> None:
    del node.store.places[history.blocks[0].transactions[0].id]


def move_place(history: History, node: Node) -> None:
    node.store.places[history.blocks[0].transactions[0].id] = (1, 1)


def lose_certificate(history: History, node: Node) -> None:
    del history
    node.store.certificate = None


def weaken_certificate(history: History, node: Node) -> None:
    node.store.certificate = history.certify(node.chain.finalized, FINALIZE, (0, 1)), 2


def show_notarization(history: History, node: Node) -> None:
    node.store.certificate = history.certify(node.chain.finalized, NOTARIZE), 2


def show_another(history: History, node: Node) -> None:
    node.store.certificate = history.certify(history.headers[1], FINALIZE), 2


def change_balance(history: History, node: Node) -> None:
    del history
    node.state._rows[0, 27] ^= 1


def change_score_memory(history: History, node: Node) -> None:
    del history
    node.state._rows[0, -1] ^= 1  # the last byte is a module's


def add_account(history: History, node: Node) -> None:
    del history
    node.state.account_count += 1
    node.chain = Chain(node.state)


def change_root(history: History, node: Node) -> None:
    del history
    rows = np.array(node.state.rows)
    rows[0, 27] ^= 1
    node.state.fill(rows, node.state.records, node.state.history)
    node.chain = Chain(node.state)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("no way back", rewrite_header),
        ("found again", lose_place),
        ("found again", move_place),
        ("certificates", lose_certificate),
        ("certificates", weaken_certificate),
        ("certificates", show_notarization),
        ("certificates", show_another),
        ("accounts", change_balance),
        ("accounts", add_account),
        ("scores", change_score_memory),
        ("state roots", change_root),
    ],
)
def test_what_is_amiss_at_the_end(name: str, damage: Callable[[History, Node], None]) -> None:
    history, checker, first, second = make_pair()
    damage(history, second)
    with pytest.raises(Violation, match=rf"^{name}: "):
        checker.check_end({0: first, 1: second})


# --- the door -------------------------------------------------------------------------------------------


def test_complaints_go_to_the_world_and_none_is_raised() -> None:
    history, _, first, _ = make_pair()
    told: list[str] = []
    checkers = NodeCheckers(history.rules, frozenset((0, 1)), told.append)
    first.store.bodies.pop()
    checkers.look_at(0, first)  # type: ignore[arg-type] - as much of a node as is looked at
    assert [text.split(":")[0] for text in told] == ["durable"]


def test_honest_nodes_have_nothing_against_one_another() -> None:
    told: list[str] = []
    checkers = NodeCheckers(make_rules(), frozenset((0, 1, 2)), told.append)
    checkers.on_penalty(0, 3, 50, "a bad body")
    checkers.on_penalty(3, 0, 100, "what a villain says")
    assert told == []
    assert [(penalty.by, penalty.whom) for penalty in checkers.penalties] == [(0, 3)]
    checkers.on_penalty(2, 0, 25, "a frame refused")
    assert [text.split(":")[0] for text in told] == ["peace"]


def test_what_villains_hold_is_nobodys_complaint() -> None:
    history, _, first, _ = make_pair()
    told: list[str] = []
    checkers = NodeCheckers(history.rules, frozenset((1,)), told.append)
    first.store.bodies.pop()
    checkers.look_at(0, first)  # type: ignore[arg-type] - as above
    checkers.on_told_final(0, bytes(32))
    assert told == []
    checkers.on_told_final(1, bytes(32))
    assert [text.split(":")[0] for text in told] == ["told final"]
