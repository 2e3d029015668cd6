"""Whole nodes in one loop over a MemoryNetwork: real keys, disk and consensus, no sockets, no HTTP."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from consensus.crypto import PrivateKey
from consensus.ledger import bond, unbond
from consensus.ledger.rotation import sign_rotation
from consensus.parameters import LEADER_ROUND_ROBIN
from consensus.transaction import (
    KIND_BOND,
    KIND_ROTATE_KEY,
    KIND_TRANSFER,
    KIND_UNBOND,
    KIND_UNJAIL,
    Transaction,
    sign_transaction,
)
from node.config import NodeConfig
from node.full_node import FullNode
from node.home import STAKE, Network, NetworkPlan, create_home, create_network
from node.network.handshake import Identity
from node.network.memory_transport import MemoryNetwork, MemoryTransport
from node.network.transport import Handler
from node.node_files import read_node_files
from node.policies.calling import ThreadCaller
from node.policies.plan import LoadedPolicy
from node.policies.room import MakeCaller

WAIT_SECONDS = 60.0  # a very busy machine; on an idle one all of this takes well under a second


class FullNodes:
    """`nodes[i]` runs, or is None. `start`, `join` them, and `close`."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        block_interval_ms: int = 40,
        epoch_blocks: int = 0,
        leader_election: str = LEADER_ROUND_ROBIN,
    ) -> None:
        self.rng = random.Random(seed)
        plan = NetworkPlan(
            nodes=4,
            base_port=20_000,
            block_interval_ms=block_interval_ms,
            module_names=(),
            epoch_blocks=epoch_blocks,
            leader_election=leader_election,
        )
        self.network: Network = create_network(folder, plan, self.rng.randbytes)
        self.homes = list(self.network.homes)
        self.links = MemoryNetwork()
        self.nodes: list[FullNode | None] = [None] * 4
        self._nonces = [0] * len(self.network.accounts)
        self.policies: dict[int, list[LoadedPolicy]] = {}  # by place, of the node started there next
        self.make_caller: MakeCaller = ThreadCaller

    def add(self, *, block_interval_ms: int = 40) -> int:
        """The place of one more node, whose key is nobody's in genesis."""
        settings = NodeConfig(
            name=f"node{len(self.homes)}", p2p_port=1, api_port=2, block_interval_ms=block_interval_ms
        )
        home = self.homes[0].with_name(settings.name)
        create_home(
            home,
            settings,
            genesis_path=self.homes[0] / "genesis.json",
            chain_id=None,
            clock="",
            refuses=False,
            model=None,
            timestamp_ms=0,
            random_bytes=self.rng.randbytes,
        )
        self.homes.append(home)
        self.nodes.append(None)
        return len(self.homes) - 1

    async def start(self, *places: int) -> None:
        """Start these nodes and link them to all that run."""
        for place in places:
            files = read_node_files(self.homes[place])
            node = FullNode(
                replace(files, settings=replace(files.settings, worker=False, delta_ms=150)),
                rng=self.rng,
                make_network=self._make_network,
                serves_api=False,
                policies=self.policies.get(place, ()),
                make_caller=self.make_caller,
            )
            self.nodes[place] = node
            await node.start()
            for other, running in enumerate(self.nodes):
                if running is not None and other != place:
                    self.links.join(self.get_key(place), self.get_key(other))

    def _make_network(self, identity: Identity, handler: Handler) -> MemoryTransport:
        transport = self.links.add(identity.key.public_key)
        transport.handler = handler
        return transport

    async def stop(self, place: int) -> None:
        node = self.get(place)
        self.nodes[place] = None
        await node.close()

    async def close(self) -> None:
        for place, node in enumerate(self.nodes):
            if node is not None:
                await self.stop(place)

    def get(self, place: int) -> FullNode:
        node = self.nodes[place]
        assert node is not None
        return node

    def list_running(self) -> list[int]:
        return [place for place, node in enumerate(self.nodes) if node is not None]

    def get_key(self, place: int) -> bytes:
        return self.get(place).node_key.public_key

    def cut_off(self, place: int) -> None:
        for other in range(len(self.nodes)):
            if other != place and self.nodes[other] is not None:
                self.links.cut(self.get_key(place), self.get_key(other))

    def join(self, place: int) -> None:
        for other in range(len(self.nodes)):
            if other != place and self.nodes[other] is not None:
                self.links.join(self.get_key(place), self.get_key(other))

    @property
    def chain_id(self) -> str:
        return next(node for node in self.nodes if node is not None).rules.chain_id

    def transfer(self, sender: int, amount: int = 7) -> Transaction:
        """From a funded account to the next one."""
        accounts: Sequence[PrivateKey] = self.network.accounts
        return self.sign(sender, accounts[(sender + 1) % len(accounts)].address, amount=amount)

    def sign(
        self,
        sender: int,
        receiver: bytes,
        *,
        amount: int = 0,
        payload: bytes = b"",
        kind: int = KIND_TRANSFER,
    ) -> Transaction:
        """Of a funded account; each of its transactions has the next nonce."""
        nonce, self._nonces[sender] = self._nonces[sender], self._nonces[sender] + 1
        return sign_transaction(
            self.network.accounts[sender],
            self.chain_id,
            kind=kind,
            nonce=nonce,
            receiver=receiver,
            amount=amount,
            fee=1,
            timestamp_ms=10,
            expires_ms=10_000,
            payload=payload,
        )

    def found(self, sender: int, place: int, amount: int = STAKE) -> Transaction:
        """A funded account bonds for the validator key of the node at `place`."""
        operator = self.network.accounts[sender].address
        key = read_node_files(self.homes[place]).validator_key
        assert key is not None
        payload = bond.sign_founding(key, self.chain_id, operator, 0)
        return self.sign(sender, operator, amount=amount, payload=payload, kind=KIND_BOND)

    def unjail(self, place: int) -> Transaction:
        return self._operate(place, KIND_UNJAIL, 0, b"")

    def rotate(self, place: int, key: PrivateKey, nonce: int) -> Transaction:
        """The validator of this node's account votes with `key` from the next set on that is fixed."""
        operator = self._get_operator(place).address
        return self._operate(place, KIND_ROTATE_KEY, nonce, sign_rotation(key, self.chain_id, operator))

    def _get_operator(self, place: int) -> PrivateKey:
        key = read_node_files(self.homes[place]).validator_key
        assert key is not None
        return key

    def _operate(self, place: int, kind: int, nonce: int, payload: bytes) -> Transaction:
        """By the account of this node's key, which operates a validator of genesis and must have money."""
        key = self._get_operator(place)
        return sign_transaction(
            key,
            self.chain_id,
            kind=kind,
            nonce=nonce,
            receiver=key.address,
            amount=0,
            fee=1,
            timestamp_ms=10,
            expires_ms=10_000,
            payload=payload,
        )

    def unbond(self, sender: int, operator: bytes) -> Transaction:
        return self.sign(sender, operator, payload=unbond.encode_units(unbond.ALL), kind=KIND_UNBOND)

    async def submit(self, place: int, transactions: Sequence[Transaction]) -> None:
        receipts = await self.get(place).entrance.submit([tx.raw for tx in transactions])
        assert [receipt.reason for receipt in receipts] == [""] * len(receipts)

    async def wait(self, what: str, ask: Callable[[], bool]) -> None:
        """Until it is so; what is waited for is made by the nodes, which share this loop."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while not ask():
                    self.check()
                    await asyncio.sleep(0.005)
        except TimeoutError:
            heights = [node and node.chain.finalized.height for node in self.nodes]
            raise AssertionError(f"{what} did not come about; final heights {heights}") from None

    def check(self) -> None:
        """No node may have failed."""
        for node in self.nodes:
            if node is not None and node.fault is not None:
                raise AssertionError(f"{node.settings.name} failed") from node.fault

    async def wait_final(self, height: int, *places: int) -> None:
        nodes = [self.get(place) for place in places or self.list_running()]
        await self.wait(
            f"height {height}", lambda: all(node.chain.finalized.height >= height for node in nodes)
        )

    async def wait_transactions(self, transactions: Sequence[Transaction], *places: int) -> None:
        nodes = [self.get(place) for place in places or self.list_running()]
        await self.wait(
            "that all is final",
            lambda: all(node.store.find_transaction(tx.id) for node in nodes for tx in transactions),
        )

    def get_roots(self, *places: int) -> set[bytes]:
        """The state roots of these nodes at the highest height that all of them have final."""
        nodes = [self.get(place) for place in places or self.list_running()]
        height = min(node.chain.finalized.height for node in nodes)
        headers = [node.store.get_header(height) for node in nodes]
        assert height > 0
        return {header.state_root for header in headers if header is not None}
