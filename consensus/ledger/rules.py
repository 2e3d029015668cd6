"""Rules: one chain's genesis and modules, and every question that is asked of them.

The door to the ledger. What a transaction must look like (`check_form`), whether it may enter a
mempool (`find_inadmissible`), what the modules say (`evaluate`, `explain`), and blocks (`build_block`,
`check_block`). All of it is pure: views in, answers out.

Invariant: a Rules holds the modules that genesis names, by digest, and makes others of the artifacts in a
view's state. Which of them judge, the view says: nothing outside the state does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from consensus import codec, crypto, vote
from consensus.block import Block
from consensus.errors import Fault, NotYet, Rejected
from consensus.genesis import Genesis
from consensus.ledger import building, execution, judging, models, scoring
from consensus.ledger.block_checks import check_jump
from consensus.ledger.building import Built
from consensus.ledger.columns import build_report_columns, read_columns
from consensus.ledger.genesis_state import create_genesis_state
from consensus.ledger.judging import Panel, Seat
from consensus.ledger.kinds import KIND_BY_NUMBER, get_kind
from consensus.ledger.publication import make_sound
from consensus.ledger.scoring import (
    Counterfactual,
    Explanation,
    ModuleLoader,
    ModuleView,
    Thresholds,
    ValidationModule,
    Verdicts,
    get_rows_key,
)
from consensus.ledger.seating import (
    Seating,
    compute_modules_digest,
    decode_seating,
    seat_genesis,
)
from consensus.ledger.shelf import ModuleShelf
from consensus.ledger.state import ROW_FIXED_BYTES, Delta, State, View
from consensus.ledger.work import Work
from consensus.parameters import CLOCK_WORKLOAD, COMBINATION_WEIGHTED, Parameters
from consensus.refusal import EMPTY_LOG, LogHead
from consensus.transaction import Transaction, compute_signing_digest

PANELS_KEPT: Final = 8  # of views on both sides of a change; more are made again in microseconds


@dataclass(frozen=True, slots=True)
class Rules:
    """genesis: the chain. modules: one per entry of genesis.modules, in that order.

    load_module: makes a module of a published artifact; without it no published one can judge.
    row_bytes: the size of an account's row in the state, what its creation is charged for.
    Raises Rejected when a module is not the one that genesis names, or its rows do not fit.
    """

    genesis: Genesis
    modules: tuple[ValidationModule, ...] = ()
    load_module: ModuleLoader | None = None
    shelf: ModuleShelf = field(init=False, repr=False, compare=False)
    first_seating: Seating = field(init=False, repr=False)
    row_bytes: int = field(init=False)
    issuers: frozenset[bytes] = field(init=False, repr=False)
    _panels: dict[bytes, Panel] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        entries = self.genesis.modules
        if len(self.modules) != len(entries):
            raise Rejected(f"{len(self.modules)} are given, genesis names {len(entries)}", field="modules")
        for module, entry in zip(self.modules, entries, strict=True):
            if module.name != entry.name:
                raise Rejected(f'is "{module.name}", genesis names "{entry.name}"', field="modules.name")
            if module.digest != entry.digest:
                raise Rejected(
                    f'of "{entry.name}" is 0x{module.digest.hex()}, genesis names 0x{entry.digest.hex()}',
                    field="modules.digest",
                    mend="install the version that this chain runs",
                )
            codec.check_int(module.row_bytes, "modules.row_bytes", high=scoring.MODULE_ROW_BYTES_MAX)
        seating = seat_genesis(
            (entry, get_rows_key(module), module.row_bytes)
            for module, entry in zip(self.modules, entries, strict=True)
        )
        room_bytes = self.parameters.module_room_bytes or seating.size_bytes
        if seating.size_bytes > room_bytes:
            raise Rejected(
                f"{room_bytes}, the modules of genesis need {seating.size_bytes}",
                field="parameters.module_room_bytes",
                mend=f"use 0 for exactly that, or more than {seating.size_bytes}",
            )
        put = object.__setattr__
        put(self, "shelf", ModuleShelf(self.modules, self.load_module))
        put(self, "first_seating", seating)
        put(self, "row_bytes", ROW_FIXED_BYTES + room_bytes)
        put(self, "issuers", frozenset(self.genesis.issuers))
        put(self, "_panels", {})

    @property
    def chain_id(self) -> str:
        return self.genesis.chain_id

    @property
    def parameters(self) -> Parameters:
        return self.genesis.parameters

    @property
    def validators(self) -> vote.ValidatorSet:
        """Of the first epochs. Those of any other are the state's: `View.find_set(epoch)`."""
        return self.genesis.validators

    def is_scored(self, tx: Transaction) -> bool:
        """Whether the modules judge it: not every kind is, and what an issuer sends is not."""
        return KIND_BY_NUMBER[tx.kind].is_scored and tx.sender not in self.issuers

    def create_genesis_state(self) -> State:
        """The state of block 0; see genesis_state.py."""
        return create_genesis_state(self.genesis, self.first_seating, self.row_bytes)

    def check_form(self, tx: Transaction) -> None:
        """Raises Rejected unless `tx` could be valid in some state. Cheap; the signature is not checked."""
        kind = KIND_BY_NUMBER.get(tx.kind) or get_kind(tx.kind)
        parameters = self.genesis.parameters
        if tx.fee < parameters.fee_units_min:
            raise Rejected(
                f"{tx.fee} is below the minimum",
                field="fee",
                mend=f"use {parameters.fee_units_min}",
                code="fee",
            )
        if tx.amount + tx.fee > codec.MONEY_MAX:
            raise Rejected(
                f"with the fee {tx.amount + tx.fee}, more than all money", field="amount", code="overflow"
            )
        if tx.expires_ms - tx.timestamp_ms > parameters.lifetime_ms_max:
            raise Rejected(
                f"is {tx.expires_ms - tx.timestamp_ms} ms after timestamp_ms",
                field="expires_ms",
                mend=f"use at most {parameters.lifetime_ms_max}",
                code="expires",
            )
        kind.check_form(tx)

    def check_signatures(self, transactions: Sequence[Transaction]) -> list[bool]:
        """Whether each is signed by its sender for this chain. Slow (40 µs each): remember the answers."""
        chain_id = self.chain_id
        return crypto.verify_batch(
            [(tx.public_key, compute_signing_digest(tx, chain_id), tx.signature) for tx in transactions]
        )

    def check_admission(self, tx: Transaction, view: View, now_ms: int) -> None:
        """`find_inadmissible` of one transaction: raises what it finds. A mempool asks for many at once."""
        error = self.find_inadmissible((tx,), view, now_ms)[0]
        if error is not None:
            raise error

    def find_inadmissible(
        self, transactions: Sequence[Transaction], view: View, now_ms: int, *, is_form_known: bool = False
    ) -> list[Rejected | NotYet | None]:
        """For each transaction by itself: why it cannot be in the next block, or None.

        `check_form` is included, signatures are not. One gather of accounts serves all. is_form_known: these
        very objects passed `check_form` of these rules before, which asks no state.
        """
        answers: list[Rejected | NotYet | None] = [None] * len(transactions)
        for place, tx in enumerate(() if is_form_known else transactions):
            try:
                self.check_form(tx)
            except Rejected as error:
                answers[place] = error
        sound = [tx for tx, error in zip(transactions, answers, strict=True) if error is None]
        if not sound:
            return answers
        parent_ms = view.header.timestamp_ms
        work = Work(
            view,
            self.parameters,
            parent_ms,
            sound,
            chain_id=self.chain_id,
            proposer=sound[0].sender,
            shelf=self.shelf,
        )
        parameters = self.parameters
        is_workload = parameters.clock == CLOCK_WORKLOAD
        work.timestamp_ms = max(parent_ms, now_ms)
        for place, tx in enumerate(transactions):
            if answers[place] is not None:
                continue
            try:
                if is_workload:
                    work.timestamp_ms = max(parent_ms, tx.timestamp_ms)
                    check_jump(work.timestamp_ms, parent_ms, parameters)
                work.check(tx)
            except (Rejected, NotYet) as error:
                answers[place] = error
        return answers

    def evaluate(self, view: View, transactions: Sequence[Transaction]) -> Verdicts:
        """What the modules say of these transactions as the next block, in order; changes nothing.

        What is not scored gets 0 and ACCEPT. `check_form` came before; nothing else is checked.
        """
        score = np.zeros(len(transactions), dtype=np.int64)
        outcome = np.zeros(len(transactions), dtype=np.uint8)
        places = [place for place, tx in enumerate(transactions) if self.is_scored(tx)]
        panel = self.find_panel(view)
        if places and panel.seats:
            columns, rows = read_columns(view, [transactions[place] for place in places])
            none = build_report_columns(())
            judgment = judging.judge(panel, columns, none, rows, is_strict=False)
            score[places], outcome[places] = judgment.score, judgment.outcome
        return Verdicts(score, outcome)

    def explain(
        self, view: View, transactions: Sequence[Transaction], index: int
    ) -> tuple[tuple[str, Explanation], ...]:
        """(module's label, explanation) of every module for transactions[index] of a block after `view`.

        Those that only watch are left out. Empty for what is not scored. IndexError outside the block.
        """
        if not self.is_scored(transactions[index]):
            return ()
        scored = [tx for tx in transactions if self.is_scored(tx)]
        place = sum(self.is_scored(tx) for tx in transactions[:index])
        columns, rows = read_columns(view, scored)
        panel = self.find_panel(view)
        return tuple(
            (panel.get_label(seat), judging.explain(seat, columns, rows, place))
            for seat in panel.seats
            if seat.weight
        )

    def prepare_counterfactuals(
        self, view: View, transactions: Sequence[Transaction], index: int
    ) -> Callable[[], tuple[tuple[str, tuple[Counterfactual, ...]], ...]]:
        """What to call for (module name, changes with which it would accept transactions[index]), of every
        module that offers it. The rows are read now; the call takes some 50 ms and may run anywhere.
        """
        if not self.is_scored(transactions[index]):
            return tuple
        scored = [tx for tx in transactions if self.is_scored(tx)]
        place = sum(self.is_scored(tx) for tx in transactions[:index])
        columns, rows = read_columns(view, scored)
        panel = self.find_panel(view)
        questions = [
            (panel.get_label(seat), seat.module, ModuleView(seat.read_rows(rows), seat.thresholds))
            for seat in panel.seats
            if seat.weight and hasattr(seat.module, "find_counterfactuals")
        ]
        return lambda: tuple(
            (name, judging.find_counterfactuals(module, columns, view, place))
            for name, module, view in questions
        )

    def find_panel(self, view: View) -> Panel:
        """Who judges the block after `view`, as its state says. Raises Fault when this node cannot make one."""
        record = view.modules_record
        panel = self._panels.get(record)
        if panel is None:
            panel = self._make_panel(view, record)
            while len(self._panels) >= PANELS_KEPT:
                self._panels.pop(next(iter(self._panels)), None)
            self._panels[record] = panel
        return panel

    def _make_panel(self, view: View, record: bytes) -> Panel:
        seating, parameters = decode_seating(record), self.parameters
        seats = tuple(
            Seat(
                self.find_module(view, seat.digest),
                seat.thresholds,
                seating.get_place(seat),
                seat.weight,
                seating.get_generation(seat),
            )
            for seat in seating.seats
        )
        combined = None
        if parameters.combination == COMBINATION_WEIGHTED:
            combined = Thresholds(parameters.combined_flag_score_min, parameters.combined_refuse_score_min)
        return Panel(seats, combined, compute_modules_digest(record))

    def find_module(self, view: View, digest: bytes) -> ValidationModule:
        """A module of genesis, or one made of the artifact in this view's state. Raises Fault."""
        given = self.shelf.get_given(digest)
        if given is not None:
            return given
        model = models.find_model(view.records, digest)
        found = None if model is None else models.find_publication(view.records, model.publication)
        if model is None or found is None:
            raise Fault(f"the state holds no model 0x{digest.hex()}", field="modules")
        artifact = models.read_artifact(view.records, model.publication, found.manifest)
        try:
            return make_sound(self.shelf, found.manifest, artifact, self.row_bytes - ROW_FIXED_BYTES)
        except Rejected as error:
            raise Fault(
                f'the chain\'s module "{model.name}" cannot be made here: {error.problem}',
                field="modules",
                mend="install the version that this chain runs",
            ) from None

    def build_block(
        self,
        view: View,
        candidates: Sequence[Transaction],
        *,
        epoch: int,
        view_number: int,
        proposer_key: bytes,
        now_ms: int,
        certificate: vote.Certificate | None,
        reveal: bytes = b"",
        refusals: LogHead = EMPTY_LOG,
    ) -> Built:
        """A block after `view` of what fits among `candidates`, in their order; see building.py."""
        return building.build_block(
            self,
            view,
            candidates,
            epoch=epoch,
            view_number=view_number,
            proposer_key=proposer_key,
            now_ms=now_ms,
            certificate=certificate,
            reveal=reveal,
            refusals=refusals,
        )

    def check_block(self, view: View, block: Block, now_ms: int | None) -> Delta:
        """What `block` changes in its parent's `view`. Raises Rejected or NotYet; see execution.py."""
        return execution.check_block(self, view, block, now_ms)
