"""The desk: answers the HTTP API's questions from the node's rooms (implements `api.door.NodeDoor`).

Invariant: reads only, and no more than one bounded read of the disk at a time; what costs more is the explainer's,
beside the loop. Leaves out: HTTP, JSON and limits (`node/api/`); transactions, refusals, stake and what light
clients ask have desks of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from consensus import block as blocks
from consensus import codec, merkle, vote
from consensus.block import Block, Header
from consensus.errors import NotYet
from consensus.ledger.proofs import prove_account
from consensus.ledger.scoring import ValidationModule
from consensus.parameters import CLOCK_WORKLOAD
from consensus.transaction import Transaction
from node.api import door
from node.api.door import (
    AccountProof,
    AccountRecord,
    BlockRecord,
    Event,
    HistoryPage,
    MempoolPage,
    ModuleProfile,
    PeerRecord,
    StatusRecord,
    TransactionProof,
    TransactionRecord,
    VerdictRecord,
)
from node.api.model_records import ComparisonRecord, ModelsRecord
from node.api.refusal_records import ConsistencyProof, RefusalPage, RefusalRecord
from node.api.report_records import CaseRecord, CasesPage, ReporterRecord, ReportersRecord
from node.api.stake_records import HistoryProof, RecordProof, UpdateRecord, ValidatorRecord, ValidatorsRecord
from node.desks.explainer import Explainer
from node.desks.light import LightDesk
from node.desks.models import ModelDesk
from node.desks.refusals import RefusalDesk
from node.desks.reports import ReportDesk
from node.desks.stake import StakeDesk
from node.desks.transactions import TransactionDesk, record_final
from node.duties import shadow_log

if TYPE_CHECKING:
    from node.full_node import FullNode

VERSION: Final = version("assay-node")
HISTORY_ASKED_MAX: Final = (
    1_000  # past blocks read for one question: 10 ms of small ones, 650 ms of full ones
)


class Desk:
    def __init__(self, node: FullNode) -> None:
        self._node = node
        # Hashes of final blocks, read little by little after a start.
        self._history = merkle.HashTree((merkle.hash_leaf(node.genesis_header.hash),))
        self._explainer = Explainer(
            node.rules, node.chain, node.store, node.mempool, node.refusals, node.refusal_keeper
        )
        self._refusals = RefusalDesk(node.refusals, node.refusal_keeper, node.mempool, self._get_proof)
        self._transactions = TransactionDesk(node, self._refusals)
        self._light = LightDesk(
            node.rules, node.chain, node.store, node.set_shelf, self._get_proof, self._get_history_tree
        )

    # --- the node -----------------------------------------------------------------------------------

    def get_status(self) -> StatusRecord:
        node = self._node
        models = ModelDesk(node.chain.final_view).list_models()
        return StatusRecord(
            chain_id=node.rules.chain_id,
            genesis_hash=node.genesis_header.hash,
            node_name=node.settings.name,
            node_address=node.address,
            version=VERSION,
            head=node.chain.get_head(),
            finalized=node.chain.finalized,
            clock_ms=self._get_clock_ms(),
            view=node.engine.view,
            epoch=node.chain.finalized.epoch,
            peers=len(node.network.peers()),
            syncing=node.catching_up.is_syncing,
            mempool_transactions=len(node.mempool),
            mempool_bytes=node.mempool.size_bytes,
            parameters=node.rules.parameters,
            model=next((model for model in models if model.weight), None),
            policies=node.policies.describe(),
        )

    def _get_clock_ms(self) -> int:
        """What a transaction of now should carry: wall time, or the workload's."""
        node = self._node
        chain_ms = node.chain.finalized.timestamp_ms
        return (
            chain_ms if node.rules.parameters.clock == CLOCK_WORKLOAD else max(chain_ms, node.clock.now_ms())
        )

    def is_ready(self) -> bool:
        node = self._node
        return not node.failed.is_set() and not node.catching_up.is_syncing and not node.engine.is_halted

    # --- transactions -------------------------------------------------------------------------------

    def get_wait_ms(self) -> int:
        return self._transactions.get_wait_ms()

    async def submit(self, raws: Sequence[bytes]) -> list[door.Receipt]:
        return await self._transactions.submit(raws)

    async def score(self, transaction: Transaction) -> VerdictRecord:
        return await self._explainer.score(transaction)

    async def explain(self, transaction_id: bytes) -> VerdictRecord | None:
        return await self._explainer.explain(transaction_id)

    def get_transaction(self, transaction_id: bytes) -> TransactionRecord | None:
        return self._transactions.get_transaction(transaction_id)

    def get_refusal(self, transaction_id: bytes) -> RefusalRecord | None:
        return self._refusals.get(transaction_id)

    def get_refusals(self, first: int, limit: int) -> RefusalPage:
        return self._refusals.list(first, limit)

    def prove_refusals(self, first: int, second: int | None) -> ConsistencyProof:
        return self._refusals.prove_consistency(first, second)

    def get_mempool(self, limit: int) -> MempoolPage:
        return self._transactions.get_mempool(limit)

    # --- blocks -------------------------------------------------------------------------------------

    def get_block(self, key: int | bytes | Literal["head", "finalized"]) -> BlockRecord | None:
        node = self._node
        if key == "finalized":
            key = node.chain.finalized.height
        if key == "head":
            key = node.chain.get_head().hash
        block: Block | None
        if isinstance(key, int):
            block = node.store.get_block_at(key) or self._find_above(key)
        else:
            block = node.chain.get_block(key) or node.store.get_block(key)
        return None if block is None else self._record_block(block)

    def get_raw_block(self, height: int) -> bytes | None:
        """A final block's canonical bytes (`consensus.block.encode_block`)."""
        return self._node.store.get_raw_block(height)

    def get_blocks(self, first: int, limit: int) -> Iterator[BlockRecord]:
        for height in range(first, first + limit):
            record = self.get_block(height)
            if record is None:
                return
            yield record

    def _find_above(self, height: int) -> Block | None:
        chain = self._node.chain
        for entry in chain.get_branch(chain.get_head().hash):
            if entry.block.header.height == height:
                return entry.block
        return None

    def _record_block(self, block: Block) -> BlockRecord:
        header = block.header
        final = self._node.store.get_block_at(header.height)
        is_final = final is not None and final.hash == block.hash
        certificate, headers = self._get_proof(header.height) if is_final else (None, ())
        return BlockRecord(block, is_final, certificate, headers)

    def _get_proof(self, height: int) -> tuple[vote.Certificate | None, tuple[Header, ...]]:
        """What makes a block final: a finalization, and the headers from its child to the certified one."""
        store = self._node.store
        found = store.get_certificate(height)
        return (None, ()) if found is None else (found[0], store.get_links(height))

    # --- accounts -----------------------------------------------------------------------------------

    def get_account(self, address: bytes) -> AccountRecord:
        node = self._node
        view = node.chain.final_view
        height = view.header.height
        account = view.get_account(address)
        rows = view.get_module_rows(address)
        if account is None or rows is None:  # who never had money has nothing at stake
            return AccountRecord(address, 0, 0, 0, 0, height)
        pending = node.mempool.get_pending(address)
        panel = node.rules.find_panel(view)
        row = np.frombuffer(rows, dtype=np.uint8).reshape(1, -1)
        parts = [(seat, seat.read_rows(row).tobytes()) for seat in panel.seats]
        profiles = tuple(
            ModuleProfile(panel.get_label(seat), part, _describe(seat.module, part)) for seat, part in parts
        )
        return AccountRecord(
            address,
            account.balance,
            account.nonce_next,
            account.nonce_window,
            view.get_bonded_units(address),
            height,
            profiles,
            None if not pending else max(account.nonce_next, pending[-1].nonce + 1),
            self._open_stakes().get_stake(address),
        )

    def get_account_history(self, address: bytes, before: tuple[int, int] | None, limit: int) -> HistoryPage:
        store = self._node.store
        places = store.get_history(address, before, limit)
        records = []
        for height, index in places:
            block = store.get_block_at(height)
            assert block is not None  # final blocks are stored
            records.append(record_final(block, index))
        return HistoryPage(tuple(records), places[-1] if len(places) == limit else None)

    # --- proofs -------------------------------------------------------------------------------------

    def prove_transaction(self, transaction_id: bytes) -> TransactionProof | None:
        store = self._node.store
        place = store.find_transaction(transaction_id)
        if place is None:
            return None
        height, index = place
        block = store.get_block_at(height)
        assert block is not None  # final blocks are stored
        leaves = [
            blocks.compute_leaf(tx.id, score, outcome)
            for tx, score, outcome in zip(block.transactions, block.scores, block.outcomes, strict=True)
        ]
        certificate, headers = self._get_proof(height)
        anchor_height = self._node.chain.finalized.height
        history = self._get_history_tree(anchor_height)
        proof = history.prove_inclusion(height, anchor_height) if height < anchor_height else ()
        return TransactionProof(
            block.header,
            index,
            len(leaves),
            merkle.prove_inclusion(leaves, index),
            certificate,
            headers,
            anchor_height,
            tuple(proof),
        )

    def _get_history_tree(self, size: int) -> merkle.HashTree:
        """The tree over the hashes of final blocks 0 .. size - 1, which block `size` commits to."""
        if size - len(self._history) > HISTORY_ASKED_MAX:
            raise NotYet(
                f"{len(self._history)} of {size} blocks are read since the start",
                field="history",
                mend="ask again in a while, or another node",
                code="history",
            )
        self.grow_history(size)
        return self._history

    def on_final(self, header: Header) -> None:
        """A block became final: its hash belongs to the history of those to come."""
        if len(self._history) == header.height:
            self._history.append(merkle.hash_leaf(header.hash))
        self._light.remember(header.epoch)

    def grow_history(self, count_max: int) -> None:
        """Read so many more blocks of the past. Called now and then, so that no question waits for all."""
        first = len(self._history)
        for height in range(first, min(first + count_max, self._node.chain.finalized.height)):
            header = self._node.store.get_header(height)
            assert header is not None  # final blocks are stored
            self._history.append(merkle.hash_leaf(header.hash))

    def prove_account(self, address: bytes) -> AccountProof | None:
        view = self._node.chain.final_view
        if view.get_account(address) is None:
            return None
        proof = prove_account(view, address)
        certificate, headers = self._get_proof(view.header.height)
        return AccountProof(view.header, codec.encode(proof.as_tuple()), certificate, headers)

    def get_genesis(self) -> bytes:
        return self._light.genesis_json

    def get_update(self, height: int | None) -> UpdateRecord | None:
        return self._light.get_update(height)

    def prove_history(self, height: int, anchor_height: int) -> HistoryProof | None:
        return self._light.prove_history(height, anchor_height)

    def prove_record(self, key: bytes) -> RecordProof:
        return self._light.prove_record(key)

    # --- lists --------------------------------------------------------------------------------------

    def get_validators(self) -> ValidatorsRecord:
        return self._open_stakes().list_validators()

    def get_validator(self, operator: bytes) -> ValidatorRecord | None:
        return self._open_stakes().find_validator(operator)

    def get_case(self, tx: Transaction) -> CaseRecord | None:
        return self._open_reports().find_case(tx)

    def get_cases(self, after: bytes, limit: int, *, is_disputed: bool) -> CasesPage:
        return self._open_reports().list_cases(after, limit, is_disputed=is_disputed)

    def get_reporters(self) -> ReportersRecord:
        return self._open_reports().list_reporters()

    def get_reporter(self, address: bytes) -> ReporterRecord | None:
        return self._open_reports().find_reporter(address)

    def _open_reports(self) -> ReportDesk:
        return ReportDesk(self._node.chain.final_view, self._node.rules.parameters)

    def _open_stakes(self) -> StakeDesk:
        node = self._node
        return StakeDesk(node.chain.final_view, node.rules.parameters, node.address)

    def update_metrics(self) -> None:
        """What the state says in figures. Called now and then."""
        self._open_stakes().update_metrics(self._node.metrics)

    def get_peers(self) -> tuple[PeerRecord, ...]:
        node = self._node
        return tuple(
            PeerRecord(
                report.name,
                report.node_key,
                report.address,
                "inbound" if report.is_inbound else "outbound",
                report.is_connected,
                node.catching_up.get_height(report.node_key),
            )
            for report in node.network.describe()
        )

    def get_models(self) -> ModelsRecord:
        return ModelDesk(self._node.chain.final_view).list_all()

    async def compare_model(self, digest: bytes) -> ComparisonRecord | None:
        shadows = self._node.shadows
        compared = await asyncio.to_thread(lambda: shadow_log.compare(shadows.get_log(digest).read()))
        if compared is None:
            return None
        qualities = [
            (compared.chain_average_precision, compared.chain_roc_auc),
            (compared.shadow_average_precision, compared.shadow_roc_auc),
        ]
        return ComparisonRecord(
            digest,
            digest in shadows.list_digests(),
            compared.first_height,
            compared.last_height,
            compared.transfers,
            compared.agreeing,
            compared.outcomes,
            compared.mean_difference,
            compared.reported,
            *(qualities if compared.reported else (None, None)),
        )

    def subscribe(self, last_event_id: int | None) -> AsyncIterator[Event]:
        return self._node.events.subscribe(last_event_id)


def _describe(module: ValidationModule, row: bytes) -> Mapping[str, int]:
    """What a module says of an account's row, if it offers `describe_row`; a module need not."""
    describe: Callable[[bytes], Mapping[str, int]] | None = getattr(module, "describe_row", None)
    return {} if describe is None else describe(row)
