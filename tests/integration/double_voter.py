"""A development build of a liar: `assay node`, whose validator votes for a second block in every view.

    python -m tests.integration.double_voter HOME

All else in it is an honest node. Its operator loses money: for tests, and for the story in docs/staking.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from consensus import crypto
from consensus.bft.contract import Broadcast, Effect, Event
from consensus.bft.replica import EngineConfig
from consensus.bft.simplex import SimplexEngine
from consensus.vote import NOTARIZE, Subject, Vote
from node import process
from node.full_node import FullNode


class DoubleVoter(SimplexEngine):
    """Each notarize vote is followed by one for a block that is nowhere."""

    def __init__(self, config: EngineConfig, sign: Callable[[bytes], bytes] | None) -> None:
        super().__init__(config, sign)
        self._chain_id = config.chain_id
        self._sign_lie = sign

    def step(self, event: Event) -> tuple[Effect, ...]:
        told: list[Effect] = []
        for effect in super().step(event):
            told.append(effect)
            match effect:
                case Broadcast(Vote() as honest) if honest.subject.kind == NOTARIZE and self._sign_lie:
                    subject = honest.subject
                    other = crypto.hash_bytes(subject.block_hash)
                    lie = Subject(subject.epoch, NOTARIZE, subject.view, other)
                    signature = self._sign_lie(lie.compute_digest(self._chain_id))
                    told.append(Broadcast(Vote(lie, honest.signer, signature)))
                case _:
                    pass
        return tuple(told)


def main(home: str) -> int:
    setattr(process, "FullNode", partial(FullNode, make_engine=DoubleVoter))  # noqa: B010 (no option makes liars)
    return process.run_node(Path(home), lambda url: print(f"{home} lies at {url}", flush=True))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
