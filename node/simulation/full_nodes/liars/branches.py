"""A liar that is asked for final blocks, and shows a chain of its own making that it alone has signed.

Everything about the blocks is sound: they link to the asker's last final block, execute, and carry their
state roots. All that is wrong is who says that they are final. Whoever believes a certificate by its form
follows the liar off the chain; whoever counts signatures throws it out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from consensus import block as blocks
from consensus import vote
from consensus.block import Block, Header
from consensus.ledger.state import State
from consensus.vote import FINALIZE, NOTARIZE, Certificate, Subject, Vote
from node.network.frames import FinalBlocks, Frame, GetFinalBlocks, Status
from node.simulation.full_nodes.liars.liar import Frames, Liar

BOAST: Final = 5  # blocks more than it has: above the gap from which a node asks for them
BRANCH_BLOCKS_MAX: Final = 2


class ForgedBranch(Liar):
    """It claims to be ahead, and to whoever asks it shows blocks of its own, finalized by itself."""

    def rewrite(self, frame: Frame, receiver: int) -> Frames:  # noqa: ARG002 - boasts to all alike
        if not isinstance(frame, Status):
            return (frame,)
        height = max(frame.head_height, frame.final_height + BOAST)
        return (replace(frame, head_height=height, final_height=frame.final_height + BOAST),)

    def answer(self, frame: Frame, sender: int) -> Frames | None:  # noqa: ARG002 - lies to all alike
        if not isinstance(frame, GetFinalBlocks) or not 0 < frame.from_height <= self._height + 1:
            return None
        branch = self._grow(frame.from_height, 1 + self.rng.randrange(BRANCH_BLOCKS_MAX))
        if not branch:
            return None
        certificate = vote.encode_certificate(self._sign(FINALIZE, branch[-1].header))
        return (FinalBlocks(frame.from_height, tuple(map(blocks.encode_block, branch)), certificate, ()),)

    @property
    def _height(self) -> int:
        return self.node.store.finalized_height

    def _grow(self, first: int, count: int) -> list[Block]:
        """Blocks that stand on the final one below `first`, each with all that its execution asks for."""
        state, branch = self._replay(first - 1), list[Block]()
        certificate = self._find_certificate(first)
        if certificate is None and first > 1:
            return []
        for _ in range(count):
            parent = state.header
            built = self.rules.build_block(
                state.view(),
                (),
                epoch=parent.epoch,
                view_number=parent.view + 1,
                proposer_key=self.means.validator_key.public_key,
                now_ms=parent.timestamp_ms + 1,
                certificate=certificate,
            )
            state.commit(built.delta)
            branch.append(built.block)
            certificate = self._sign(NOTARIZE, built.block.header)
        return branch

    def _replay(self, height: int) -> State:
        state = self.rules.create_genesis_state()
        for number in range(1, height + 1):
            block = self.node.store.get_block_at(number)
            assert block is not None  # final here
            state.commit(self.rules.check_block(state.view(), block, None))
        return state

    def _find_certificate(self, first: int) -> Certificate | None:
        """A quorum's, of the block below `first`: that much of the lie is true."""
        honest = self.node.store.get_block_at(first) if first <= self._height else None
        if honest is not None:
            return honest.parent_certificate
        found = self.node.store.get_certificate(first - 1) if first > 1 else None
        return found[0] if found is not None and found[1] == first - 1 else None

    def _sign(self, kind: int, header: Header) -> Certificate:
        subject = Subject(header.epoch, kind, header.view, header.hash)
        key = self.means.validator_key
        own = Vote(subject, self.means.index, key.sign(subject.compute_digest(self.rules.chain_id)))
        return Certificate(subject, ((own.signer, own.signature),))
