"""What a node's final blocks say of its refusals: every head a part of its log, or the loss of it told.

By the definition of RFC 6962 over all leaves, newest block first. Where a head is not the beginning of the
log, the world must have taken that, and the log's first leaf must name the very block. Invariant: nothing is
excused but what the world did. Leaves out: what a log that is gone held; nobody can tell.
"""

from __future__ import annotations

from collections.abc import Sequence

from consensus.block import Header
from consensus.refusal import LogBeginning, decode_entry
from node.simulation.checkers import Violation
from node.simulation.full_nodes.plain_ledger import compute_root


def check_refusal_log(
    index: int, leaves: Sequence[bytes], own: Sequence[Header], taken_height: int | None
) -> None:
    """own: the node's final blocks, rising. taken_height: no block above it was proposed before the world took
    its log; None: it never did. Raises Violation."""
    for header in reversed(own):
        count = header.refusal_count
        if count <= len(leaves) and compute_root(leaves[:count]) == header.refusal_root:
            continue
        if taken_height is None:
            raise Violation(
                f"refusal logs: node {index} commits to {count} refusals in block {header.height} that its "
                f"log of {len(leaves)} does not begin with"
            )
        if own[-1].height <= taken_height:
            return  # it has not proposed since: what it will say of the loss is not said yet
        first = decode_entry(leaves[0]) if leaves else None
        told = isinstance(first, LogBeginning) and first.block_hash == header.hash
        if not told:
            raise Violation(
                f"refusal logs: node {index} lost what it commits to in block {header.height}, and keeps silent"
            )
        return
