"""At the end of a replay: do all nodes hold the same block and state at one height?

The height is the one that the client followed to; every node gets a bounded time to reach it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from consensus.block import Header
from node.clock import Clock
from node.replay.network import NetworkClient, NodeAway, read_final_block
from node.replay.summary import Agreement

WAIT_MS_MAX: Final = 30_000  # a node that was restarted catches up with a minute of blocks meanwhile
ASK_MS: Final = 300


async def compare_nodes(
    network: NetworkClient, clock: Clock, height: int, wait_ms_max: int = WAIT_MS_MAX
) -> Agreement:
    """Ask every node for its final block at `height`; those that do not have it in time are unreachable."""
    deadline_ms = clock.monotonic_ms() + wait_ms_max
    nodes = range(len(network.names))
    headers = await asyncio.gather(*(_ask(network, clock, node, height, deadline_ms) for node in nodes))
    found = {name: header for name, header in zip(network.names, headers, strict=True) if header is not None}
    unreachable = tuple(name for name in network.names if name not in found)
    if not found:
        return Agreement(height, b"", b"", 0, (), unreachable)
    hashes = [header.hash for header in found.values()]
    # Of two camps neither is right for a client; the larger one is shown, the others are named.
    most = max(hashes, key=hashes.count)
    differing = tuple(
        f"{name} (state root 0x{header.state_root.hex()})"
        for name, header in found.items()
        if header.hash != most
    )
    state_root = next(header.state_root for header in found.values() if header.hash == most)
    return Agreement(height, most, state_root, hashes.count(most), differing, unreachable)


async def _ask(
    network: NetworkClient, clock: Clock, node: int, height: int, deadline_ms: int
) -> Header | None:
    while clock.monotonic_ms() < deadline_ms:
        try:
            final = await network.wait_final(node, height - 1, ASK_MS)
            if final >= height:
                return read_final_block(await network.get_block(node, height)).header
        except NodeAway:
            await asyncio.sleep(ASK_MS / 1000)
    return None
