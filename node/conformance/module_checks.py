"""What a consensus module must keep: each check is one function that raises NonConforming, or says what it saw.

The contract is consensus/ledger/scoring.py's. Invariant: every check follows from the seed, but for the two
that measure this machine (processes, cost). Leaves out: whether a module is any good at telling fraud.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from consensus.errors import Rejected
from consensus.ledger.scoring import (
    REFUSE_NEVER,
    ModuleView,
    ReportColumns,
    Thresholds,
    TransferColumns,
    ValidationModule,
    Verdicts,
)
from ml.discovery import load_module
from node.conformance.playing import THRESHOLDS, NonConforming, Played, compare, play
from node.conformance.processes import compare_processes
from node.conformance.stream import (
    EXTREME_AMOUNTS,
    EXTREME_TIMES_MS,
    Stream,
    StreamBlock,
    find_components,
    make_load,
    make_stream,
    split,
)

COST_US_MAX: Final = 4.0  # of processor time a transaction, in blocks of 1,000 (docs/performance.md)
COST_BLOCKS: Final = 24
SPLITS: Final = 6
THREADS: Final = 4
FLIPS: Final = 16  # bytes of the artifact changed, one at a time


@dataclass(frozen=True, slots=True)
class Subject:
    """The module under test: found by name each time anew, as every validator does."""

    name: str
    artifact: bytes
    seed: int

    def load(self) -> ValidationModule:
        return load_module(self.name, self.artifact)

    def make_random(self) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(self.seed))


def check_form(subject: Subject) -> str:
    """Types, shapes and ranges of every answer, by the ledger's own test; rows given are read-only."""
    played = play(subject.load(), make_stream(subject.seed))
    return f"{len(played.score)} transfers, scores {played.score.min()} to {played.score.max()}"


def check_extremes(subject: Subject) -> str:
    """Nothing fails or leaves its range: empty blocks, all money, the ends of time, rows of 0x00 and 0xff."""
    module = subject.load()
    amounts = [amount for amount in EXTREME_AMOUNTS for _ in EXTREME_TIMES_MS]
    times = list(EXTREME_TIMES_MS) * len(EXTREME_AMOUNTS)
    n = len(amounts)
    sender = np.arange(n, dtype=np.int64) % 3
    transfers = TransferColumns(sender, (sender + np.arange(n) % 2) % 4, np.array(amounts), np.array(times))
    places = np.arange(n, dtype=np.int64)
    none = TransferColumns(*(column[:0] for column in (sender, sender, sender, sender)))
    blocks = (
        StreamBlock(none, places[:0]),
        StreamBlock(transfers, places[:0]),
        StreamBlock(none, places),
        StreamBlock(transfers, places[:0]),
    )
    play(module, Stream(blocks, 4))
    for fill in (0x00, 0xFF):
        rows = np.full((4, module.row_bytes), fill, dtype=np.uint8)
        reports = ReportColumns(sender, sender, transfers.amount, transfers.timestamp_ms, np.full(n, 10_000))
        for columns in (none, transfers):
            _check_answer(module, columns, reports, rows, f"rows of 0x{fill:02x}")
    return f"{n} corners, empty blocks, rows of 0x00 and 0xff"


def _check_answer(
    module: ValidationModule, transfers: TransferColumns, reports: ReportColumns, rows: np.ndarray, words: str
) -> None:
    rows.flags.writeable = False
    verdicts, written = module.evaluate(transfers, reports, ModuleView(rows, THRESHOLDS))
    score = verdicts.score
    if score.shape != (len(transfers),) or written.shape != rows.shape or written.dtype != np.uint8:
        raise NonConforming(f"{words}: an answer of another shape")
    if len(score) and not 0 <= int(score.min()) <= int(score.max()) <= 10_000:
        raise NonConforming(f"{words}: a score of {score.min()} or {score.max()}")


def check_thresholds(subject: Subject) -> str:
    """Outcomes follow from scores by the chain's thresholds; those move no score and no row."""
    stream, module = make_stream(subject.seed), subject.load()
    first = play(module, stream)
    for thresholds in (THRESHOLDS, Thresholds(REFUSE_NEVER, REFUSE_NEVER), Thresholds(0, 5_000)):
        played = play(module, stream, thresholds)
        expected = Verdicts.from_scores(played.score, thresholds).outcome
        compare(Played(played.score, expected, played.rows), played, f"at {thresholds}")
        compare(Played(first.score, played.outcome, first.rows), played, "thresholds change scores")
    return "3 pairs of thresholds"


def check_splits(subject: Subject) -> str:
    """One stream in any blocks: the same verdicts and rows. In-block bursts count as those over many blocks."""
    stream, random = make_stream(subject.seed), subject.make_random()
    whole = play(subject.load(), stream)
    compare(whole, play(subject.load(), split(stream, random, into_single=True)), "one transfer a block")
    for _ in range(SPLITS):
        parts = split(stream, random)
        compare(whole, play(subject.load(), parts), f"cut into {len(parts.blocks)} blocks")
    return f"{len(stream)} transfers cut {SPLITS + 1} ways"


def check_order(subject: Subject) -> str:
    """Nothing depends on the order of unrelated transfers, nor on how accounts are numbered."""
    random = subject.make_random()
    stream = make_stream(subject.seed, accounts=400, rows=60)
    whole = play(subject.load(), stream)
    blocks, order, start = [], [], 0
    for block in stream.blocks:
        groups = np.array(find_components(block.transfers), dtype=np.int64)
        ranks = random.permutation(len(groups) + 1)
        places = np.argsort(ranks[groups], kind="stable") if len(groups) else groups
        blocks.append(
            StreamBlock(
                TransferColumns(
                    *(getattr(block.transfers, name)[places] for name in TransferColumns.__slots__)
                ),
                block.reported,
            )
        )
        order.append(places + start)
        start += len(groups)
    back = np.argsort(np.concatenate(order), kind="stable")
    blocks = [StreamBlock(block.transfers, back[block.reported]) for block in blocks]
    moved = play(subject.load(), Stream(tuple(blocks), stream.accounts))
    compare(
        whole,
        Played(moved.score[back], moved.outcome[back], moved.rows),
        "unrelated transfers in another order",
    )
    numbers = random.permutation(stream.accounts)
    renamed = [
        StreamBlock(
            TransferColumns(numbers[t.sender], numbers[t.receiver], t.amount, t.timestamp_ms), block.reported
        )
        for block in stream.blocks
        for t in (block.transfers,)
    ]
    other = play(subject.load(), Stream(tuple(renamed), stream.accounts))
    compare(whole, Played(other.score, other.outcome, other.rows[numbers]), "accounts numbered otherwise")
    return f"{len(stream)} transfers among {stream.accounts} accounts"


def check_neighbours(subject: Subject) -> str:
    """What other accounts do in the same blocks changes no verdict and no row."""
    mine, theirs = make_stream(subject.seed), make_stream(subject.seed + 1)
    alone = play(subject.load(), mine)
    random = subject.make_random()
    blocks, kept = [], []
    starts = np.cumsum([0] + [len(block.transfers) for block in mine.blocks])
    start = 0
    for ours, other in zip(mine.blocks, theirs.blocks, strict=True):
        n, m = len(ours.transfers), len(other.transfers)
        is_ours = np.zeros(n + m, dtype=bool)
        is_ours[np.sort(random.choice(n + m, n, replace=False))] = True
        columns = []
        for name in TransferColumns.__slots__:
            column = np.zeros(n + m, dtype=np.int64)
            shift = mine.accounts if name in ("sender", "receiver") else 0
            column[is_ours] = getattr(ours.transfers, name)
            column[~is_ours] = getattr(other.transfers, name) + shift
            columns.append(column)
        kept.append(np.flatnonzero(is_ours) + start)
        blocks.append((TransferColumns(*columns), ours.reported))
        start += n + m
    places = np.concatenate(kept)
    assert len(places) == starts[-1]
    both = Stream(
        tuple(StreamBlock(columns, places[reported]) for columns, reported in blocks),
        mine.accounts + theirs.accounts,
    )
    played = play(subject.load(), both)
    compare(
        alone,
        Played(played.score[places], played.outcome[places], played.rows[: mine.accounts]),
        "with other accounts' transfers between",
    )
    return f"{len(mine)} transfers with {len(theirs)} of others between them"


def check_reports(subject: Subject) -> str:
    """A block's reports take effect after it: they change no verdict of its own transfers."""
    stream, module = make_stream(subject.seed), subject.load()
    whole = stream.concatenate()
    n = len(whole)
    rows = np.zeros((stream.accounts, module.row_bytes), dtype=np.uint8)
    view = ModuleView(rows, THRESHOLDS)
    empty = whole.sender[:0]
    with_reports, _ = module.evaluate(
        whole,
        ReportColumns(whole.sender, whole.receiver, whole.amount, whole.timestamp_ms, whole.amount * 0),
        view,
    )
    without, _ = module.evaluate(whole, ReportColumns(empty, empty, empty, empty, empty), view)
    if not np.array_equal(with_reports.score, without.score):
        raise NonConforming("reports of the same block change its verdicts")
    return f"{n} reports in the block that they speak of"


def check_purity(subject: Subject) -> str:
    """Inputs stay as they are, and nothing is remembered from one call to the next."""
    stream, module = make_stream(subject.seed), subject.load()
    columns = stream.concatenate()
    rows = np.zeros((stream.accounts, module.row_bytes), dtype=np.uint8)
    sender, receiver, amount, time_ms = (column.copy() for column in _fields(columns))
    arguments = (columns, ReportColumns(sender, receiver, amount, time_ms, amount * 0))
    before = [field.tobytes() for argument in arguments for field in _fields(argument)] + [rows.tobytes()]
    _, written = module.evaluate(*arguments, ModuleView(rows, THRESHOLDS))
    after = [field.tobytes() for argument in arguments for field in _fields(argument)] + [rows.tobytes()]
    if before != after:
        raise NonConforming("it changes the columns or rows that it was given")
    if module.row_bytes and np.shares_memory(written, rows):
        raise NonConforming("the rows that it answers are the ones it was given, not a copy")
    first = play(module, stream)
    play(module, make_stream(subject.seed + 2))
    compare(first, play(module, stream), "the same stream again, after another")
    return "two calls in a row, every input byte compared"


def _fields(columns: TransferColumns | ReportColumns) -> list[np.ndarray]:
    return [getattr(columns, name) for name in columns.__slots__]


def check_digest(subject: Subject) -> str:
    """One artifact, one digest, before and after work; another artifact is refused or has another digest."""
    module = subject.load()
    digest = module.digest
    play(module, make_stream(subject.seed))
    if module.digest != digest or subject.load().digest != digest:
        raise NonConforming("the digest of one artifact is not always the same")
    flips = min(FLIPS, len(subject.artifact))
    for place in subject.make_random().choice(max(1, len(subject.artifact)), flips, replace=False).tolist():
        changed = bytearray(subject.artifact)
        changed[place] ^= 0x01
        try:
            other = load_module(subject.name, bytes(changed))
        except Rejected:
            continue
        if other.digest == digest:
            raise NonConforming(f"an artifact with another byte {place} has the same digest")
    return f"0x{digest.hex()[:16]}…, {flips} bytes of the artifact changed"


def check_explanation(subject: Subject) -> str:
    """Each says the score and outcome of `evaluate`, adds up in integers, and has words."""
    stream, module = make_stream(subject.seed, blocks=6), subject.load()
    columns = stream.concatenate()
    empty = columns.sender[:0]
    rows = np.zeros((stream.accounts, module.row_bytes), dtype=np.uint8)
    view = ModuleView(rows, THRESHOLDS)
    verdicts, _ = module.evaluate(columns, ReportColumns(empty, empty, empty, empty, empty), view)
    for index in range(len(columns)):
        told = module.explain(columns, view, index)
        if (told.score, told.outcome) != (int(verdicts.score[index]), int(verdicts.outcome[index])):
            raise NonConforming(
                f"explain says {told.score} of transfer {index}, evaluate {verdicts.score[index]}"
            )
        numbers = [told.base, told.margin, *(c.contribution for c in told.contributions)]
        if not all(type(number) is int for number in numbers):
            raise NonConforming("a contribution, base or margin is no int")
        if told.base + sum(c.contribution for c in told.contributions) != told.margin:
            raise NonConforming(f"the contributions of transfer {index} do not add up to the margin")
        sizes = [abs(c.contribution) for c in told.contributions]
        if sizes != sorted(sizes, reverse=True):
            raise NonConforming("the largest contribution does not come first")
        if not all(c.feature and c.words for c in told.contributions):
            raise NonConforming("a contribution has no name or no words")
    return f"{len(columns)} explanations add up"


def check_threads(subject: Subject) -> str:
    """One module asked by several threads at once gives each the same answers (the API explains beside the judge)."""
    stream, module = make_stream(subject.seed), subject.load()
    expected = play(module, stream)
    problems: list[str] = []

    def run() -> None:
        try:
            for _ in range(3):
                compare(expected, play(module, stream), f"asked by {THREADS} threads at once")
        except Exception as error:
            problems.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise NonConforming(problems[0])
    return f"{THREADS} threads"


def check_processes(subject: Subject) -> str:
    """Other processes answer the same: hash seeds, thread counts, numpy's CPU features switched off."""
    expected = play(subject.load(), make_stream(subject.seed)).digest
    return compare_processes(subject.name, subject.artifact, subject.seed, subject.load().digest + expected)


def check_cost(subject: Subject) -> str:
    """Processor time of `evaluate` for a transaction, in blocks of 1,000: the median block."""
    stream, module = make_load(subject.seed, blocks=COST_BLOCKS), subject.load()
    rows = np.zeros((stream.accounts, module.row_bytes), dtype=np.uint8)
    scores = np.zeros(len(stream), dtype=np.int64)
    spent = []
    start = 0
    for block in stream.blocks:
        reports = stream.build_reports(block, scores)
        view = ModuleView(rows, THRESHOLDS)
        begun = time.process_time_ns()
        verdicts, rows = module.evaluate(block.transfers, reports, view)
        spent.append((time.process_time_ns() - begun) / 1_000 / len(block.transfers))
        scores[start : start + len(block.transfers)] = verdicts.score
        start += len(block.transfers)
    cost = float(np.median(spent[2:]))  # the first ones warm up
    words = f"{cost:.2f} µs of processor time a transaction, {module.row_bytes} bytes an account"
    if cost > COST_US_MAX:
        raise NonConforming(f"{words}; the budget is {COST_US_MAX:g} µs")
    return words


MODULE_CHECKS: Final[tuple[tuple[str, Callable[[Subject], str]], ...]] = (
    ("form", check_form),
    ("extremes", check_extremes),
    ("thresholds", check_thresholds),
    ("splits", check_splits),
    ("order", check_order),
    ("neighbours", check_neighbours),
    ("reports", check_reports),
    ("purity", check_purity),
    ("digest", check_digest),
    ("explanation", check_explanation),
    ("threads", check_threads),
    ("processes", check_processes),
    ("cost", check_cost),
)
