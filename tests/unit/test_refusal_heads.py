"""Heads of refusal logs in blocks: free for the proposer, but no nonsense, and none in tails."""

from __future__ import annotations

import pytest

from consensus.block import decode_header
from consensus.errors import Fault, Rejected
from consensus.merkle import EMPTY_ROOT
from consensus.refusal import LogHead, get_head
from tests.ledger_chain import VALIDATORS, Chain, alter, make_certificate
from tests.staking_chain import StakingChain

HEAD = LogHead(3, b"r" * 32)


def test_a_proposer_is_free_to_commit_to_its_log() -> None:
    chain = Chain()
    built = chain.rules.build_block(
        chain.view,
        (),
        epoch=0,
        view_number=1,
        proposer_key=VALIDATORS[0].public_key,
        now_ms=chain.now_ms,
        certificate=make_certificate(chain.view),
        refusals=HEAD,
    )
    header = built.block.header
    assert (get_head(header), get_head(decode_header(header.raw))) == (HEAD, HEAD)
    plain = chain.build().block.header
    assert get_head(plain) == LogHead(0, EMPTY_ROOT)
    assert (header.state_root, header.hash != plain.hash) == (plain.state_root, True)
    chain.add(built.block)
    chain.grow()  # and the next proposer to none: consistency is for who looks at one proposer's blocks


@pytest.mark.parametrize("head", [LogHead(0, b"r" * 32), LogHead(3, EMPTY_ROOT)])
def test_a_head_that_no_log_has_is_refused(head: LogHead) -> None:
    chain = Chain()
    block = alter(chain.build().block, refusal_count=head.count, refusal_root=head.root)
    with pytest.raises(Rejected) as caught:
        chain.check(block)
    assert caught.value.code == "refusals"
    with pytest.raises(Fault):
        chain.rules.build_block(
            chain.view,
            (),
            epoch=0,
            view_number=1,
            proposer_key=VALIDATORS[0].public_key,
            now_ms=chain.now_ms,
            certificate=None,
            refusals=head,
        )


def test_a_tail_commits_to_no_log() -> None:
    chain = StakingChain()
    while chain.epoch == 0:
        chain.grow()
    tail = chain.build(epoch=0).block
    chain.check(tail)
    with pytest.raises(Rejected) as caught:
        chain.check(alter(tail, refusal_count=HEAD.count, refusal_root=HEAD.root))
    assert caught.value.code == "refusals"


def test_a_count_beyond_what_json_keeps_exact_is_refused() -> None:
    header = alter(Chain().build().block, refusal_count=2**53, refusal_root=b"r" * 32).header
    with pytest.raises(Rejected):
        decode_header(header.raw)
