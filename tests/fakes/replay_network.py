"""A network for replay tests: the real ledger behind a fake door that loses, refuses and goes away.

Time is the loop's own and is skipped, never waited for: a replay of minutes runs in milliseconds.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from consensus import crypto
from consensus.block import Header, encode_block
from consensus.errors import NotYet, Rejected
from consensus.genesis import Genesis
from consensus.ledger.report import decode_payload
from consensus.ledger.rules import Rules
from consensus.parameters import CLOCK_WORKLOAD, DAY_MS, Parameters
from consensus.transaction import KIND_REPORT, KIND_TRANSFER, Transaction, decode_transaction
from consensus.vote import NOTARIZE, Certificate, Subject, Validator, ValidatorSet
from node.replay.network import Answer, Explained, Holding, NodeAway, NodeStatus

Result = TypeVar("Result")

VALIDATOR = crypto.PrivateKey.from_seed(b"validator")
FUNDERS = tuple(crypto.PrivateKey.from_seed(b"funder %d" % i) for i in range(4))
WALL_MS = 1_700_000_000_000
WORKLOAD = Parameters(clock=CLOCK_WORKLOAD, timestamp_age_ms_max=62 * DAY_MS, lifetime_ms_max=62 * DAY_MS)


class _SkippingSelector(selectors.DefaultSelector):
    """Never waits: the time that would have passed is added to `now_s`."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        events = super().select(0)
        if not events:
            if timeout is None:
                raise RuntimeError("everything waits and no timer is set")
            self.now_s += timeout
        return events


class SkippingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._skipping = _SkippingSelector()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now_s


def run_skipping(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine on a loop that skips time."""
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        return runner.run(work)


class LoopClock:
    """The running loop's time; wall time starts at WALL_MS."""

    def now_ms(self) -> int:
        return WALL_MS + self.monotonic_ms()

    def monotonic_ms(self) -> int:
        return int(asyncio.get_running_loop().time() * 1000)


class FakeNetwork:
    """Nodes that share one chain and one mempool; each can be down, busy or of another opinion.

    refuse(tx) -> score of a refusal, or None. lose(node, tx): accepted, and dropped. down: nodes that do not
    answer. busy: {node: retry_ms}. states: {node: header} for a node that holds another block at the end.
    """

    def __init__(
        self,
        nodes: int = 4,
        parameters: Parameters = WORKLOAD,
        *,
        timestamp_ms: int = 0,
        balance: int = 10**12,
        block_ms: int = 100,
        block_transactions: int = 200,
    ) -> None:
        self.names = tuple(f"http://node{i}" for i in range(nodes))
        self.genesis = Genesis(
            chain_id="fake",
            timestamp_ms=timestamp_ms,
            parameters=parameters,
            validators=ValidatorSet((Validator(VALIDATOR.public_key, 1),)),
            accounts=tuple((key.address, balance) for key in FUNDERS),
            reporters=tuple(key.address for key in FUNDERS),
            modules=(),
        )
        self.rules = Rules(self.genesis, ())
        self.state = self.rules.create_genesis_state()
        self.headers: list[Header] = [self.state.header]
        self.blocks: list[bytes] = [b""]
        self.final: list[Transaction] = []
        self.block_times_ms: list[int] = [timestamp_ms]
        self.mempool: dict[bytes, Transaction] = {}
        self.submissions: list[tuple[int, int]] = []  # node, transactions
        self.is_producing = True
        self.down: set[int] = set()
        self.busy: dict[int, int] = {}
        self.other_blocks: dict[int, bytes] = {}
        self.refuse: Callable[[Transaction], int | None] = lambda tx: None
        self.lose: Callable[[int, Transaction], bool] = lambda node, tx: False
        self.answer: Callable[[int, Transaction], Answer | None] = lambda node, tx: None
        self.watchers: list[Callable[[bytes, int], None]] = []
        self._block_ms = block_ms
        self._block_transactions = block_transactions
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> FakeNetwork:
        self._task = asyncio.create_task(self._produce())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    @property
    def height(self) -> int:
        return len(self.headers) - 1

    @property
    def transfers(self) -> list[Transaction]:
        """Final transfers that no funder sent: the workload's."""
        own = {key.address for key in FUNDERS}
        return [tx for tx in self.final if tx.kind == KIND_TRANSFER and tx.sender not in own]

    @property
    def reports(self) -> list[tuple[Transaction, Transaction]]:
        """Final fraud reports and what they report."""
        return [(tx, decode_payload(tx.payload).reported) for tx in self.final if tx.kind == KIND_REPORT]

    async def _produce(self) -> None:
        while True:
            await asyncio.sleep(self._block_ms / 1000)
            if self.is_producing:
                self._grow()

    def _grow(self) -> None:
        candidates = sorted(self.mempool.values(), key=lambda tx: tx.timestamp_ms)[: self._block_transactions]
        parent = self.headers[-1]
        certificate = None
        if parent.height > 0:
            subject = Subject(0, NOTARIZE, parent.view, parent.hash)
            certificate = Certificate(subject, ((0, VALIDATOR.sign(subject.compute_digest("fake"))),))
        built = self.rules.build_block(
            self.state.view(),
            candidates,
            epoch=0,
            view_number=self.height + 1,
            proposer_key=VALIDATOR.public_key,
            now_ms=LoopClock().now_ms(),
            certificate=certificate,
        )
        for tx, error in built.rejected:
            if isinstance(error, Rejected):
                del self.mempool[tx.id]
        for tx in built.block.transactions:
            del self.mempool[tx.id]
        self.state.commit(built.delta)
        self.final += built.block.transactions
        self.headers.append(built.block.header)
        self.block_times_ms.append(built.block.header.timestamp_ms)
        self.blocks.append(encode_block(built.block))

    async def _pass(self, node: int) -> None:
        await asyncio.sleep(0.001)
        if node in self.down:
            raise NodeAway("connection refused")
        if node in self.busy:
            raise NodeAway("too many requests", retry_ms=self.busy[node])

    # --- what a replay asks -----------------------------------------------------------------------

    async def get_status(self, node: int) -> NodeStatus:
        await self._pass(node)
        header = self.headers[-1]
        is_workload = self.genesis.parameters.clock == CLOCK_WORKLOAD
        clock_ms = header.timestamp_ms if is_workload else LoopClock().now_ms()
        return NodeStatus("fake", self.genesis.digest, header.height, clock_ms, self.genesis.parameters)

    async def submit(self, node: int, raws: Sequence[bytes]) -> list[Answer]:
        await self._pass(node)
        self.submissions.append((node, len(raws)))
        return [self._take(node, decode_transaction(raw)) for raw in raws]

    def _take(self, node: int, tx: Transaction) -> Answer:
        special = self.answer(node, tx)
        if special is not None:
            return special
        if tx.id in self.mempool:
            return Answer("accepted")
        assert self.rules.check_signatures([tx]) == [True]
        score = self.refuse(tx)
        if score is not None:
            return Answer("refused", "refused", f"scored {score}", score)
        now_ms = LoopClock().now_ms()
        problem = self.rules.find_inadmissible([tx], self.state.view(), now_ms)[0]
        if problem is not None:
            retry_ms = 1_000 if isinstance(problem, NotYet) else 0
            return Answer("rejected", problem.code, str(problem), retry_ms=retry_ms)
        if not self.lose(node, tx):
            self.mempool[tx.id] = tx
        return Answer("accepted")

    async def wait_final(self, node: int, above: int, timeout_ms: int) -> int:
        await self._pass(node)
        for _ in range(timeout_ms // 10):
            if self.height > above or node in self.down:
                break
            await asyncio.sleep(0.01)
        await self._pass(node)
        return self.height

    async def watch_refusals(self, node: int, on_refusal: Callable[[bytes, int], None]) -> None:
        self.watchers.append(on_refusal)
        await asyncio.Event().wait()

    async def get_block(self, node: int, height: int) -> bytes:
        await self._pass(node)
        return self.other_blocks.get(node, self.blocks[height])

    async def get_block_hashes(self, node: int, first: int, end: int) -> list[bytes]:
        await self._pass(node)
        return [header.hash for header in self.headers[first : min(end, first + 3)]]

    async def get_account(self, node: int, address: bytes) -> Holding:
        await self._pass(node)
        account = self.state.view().get_account(address)
        return Holding(0, 0) if account is None else Holding(account.balance, account.nonce_next)

    async def explain(self, node: int, transaction_id: bytes) -> Explained | None:
        await self._pass(node)
        return None
