"""The chain of one node: a final state below, a small tree of valid blocks above."""

from __future__ import annotations

import pytest

from consensus.block import Block
from consensus.errors import Fault
from node.blocks.chain import Chain
from tests.chain_factory import ChainFactory


def add(chain: Chain, factory: ChainFactory, block: Block) -> None:
    view = chain.get_view(block.header.parent_hash)
    assert view is not None
    chain.add(block, factory.rules.check_block(view, block, None))


@pytest.fixture
def factory() -> ChainFactory:
    return ChainFactory()


@pytest.fixture
def chain(factory: ChainFactory) -> Chain:
    return Chain(factory.rules.create_genesis_state())


def test_a_branch_runs_from_just_above_the_final_block_oldest_first(
    factory: ChainFactory, chain: Chain
) -> None:
    blocks = factory.grow(3)
    for block in blocks:
        add(chain, factory, block)
    assert [entry.block for entry in chain.get_branch(blocks[2].hash)] == blocks
    assert chain.get_branch(b"?" * 32) == ()
    assert chain.get_head() == blocks[2].header
    assert chain.finalized.height == 0


def test_finalizing_commits_in_order_and_the_views_above_stay_those_of_a_fresh_chain(
    factory: ChainFactory, chain: Chain
) -> None:
    blocks = factory.grow(4)
    for block in blocks:
        add(chain, factory, block)
    early = chain.get_view(blocks[3].hash)
    assert chain.finalize(blocks[1].hash) == tuple(blocks[:2])
    assert chain.finalized == blocks[1].header
    fresh = chain.get_view(blocks[3].hash)
    assert early is not None
    assert fresh is not None
    for view in (early, fresh):
        assert view.root == blocks[3].header.state_root
        assert [view.get_account(key.address) for key in factory.keys] == [
            factory.state.view().get_account(key.address) for key in factory.keys
        ]
    chain.finalize(blocks[3].hash)
    assert chain.final_view.root == factory.state.root


def test_finalizing_forgets_what_does_not_descend_from_it(factory: ChainFactory, chain: Chain) -> None:
    other = factory.build((factory.transfer(3, 4),), skipped_views=2)
    first, second, third = factory.grow(3)
    for block in (other, first, second, third):
        add(chain, factory, block)
    chain.finalize(first.hash)
    assert chain.get_block(other.hash) is None
    assert chain.get_view(other.hash) is None
    assert chain.get_block(third.hash) == third
    assert chain.get_head() == third.header


def test_the_final_block_has_no_branch_and_is_not_made_final_twice(
    factory: ChainFactory, chain: Chain
) -> None:
    (block,) = factory.grow(1)
    add(chain, factory, block)
    chain.finalize(block.hash)
    assert chain.get_branch(block.hash) == ()
    with pytest.raises(Fault, match="no branch"):
        chain.finalize(block.hash)


def test_a_block_without_its_parent_is_our_own_fault(factory: ChainFactory, chain: Chain) -> None:
    first, second = factory.grow(2)
    add(chain, factory, first)
    delta = factory.rules.check_block(chain.get_view(first.hash), second, None)  # type: ignore[arg-type]
    with pytest.raises(Fault, match="parent"):
        Chain(factory.rules.create_genesis_state()).add(second, delta)


def test_of_two_heads_of_one_height_the_later_view_counts(factory: ChainFactory, chain: Chain) -> None:
    early, late = factory.build(), factory.build(skipped_views=1)
    add(chain, factory, late)
    add(chain, factory, early)
    assert chain.get_head() == late.header
