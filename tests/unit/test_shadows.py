"""Shadows: published models score along on a node, and nothing of the chain depends on it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consensus.ledger import cases
from consensus.ledger.publication import cut_artifact
from consensus.transaction import KIND_PUBLISH_MODEL, KIND_WITHDRAW_REPORT
from node.duties.shadow_log import (
    BLOCK,
    RECORD,
    REPORT,
    START,
    TRANSFER,
    ShadowLog,
    compare,
    make_entries,
    read_subject,
)
from node.duties.shadows import Shadows
from tests.ledger_chain import KEYS, Chain, make_genesis
from tests.model_chain import GENESIS_DIGEST, ModelChain, digest_of, load_counting, make_model_genesis, seat
from tests.staking_chain import PEOPLE

DOUBLE = b"2 c 4"  # reads the rows of the seat
OTHER = b"3 d 6"  # reads rows of its own
D = digest_of(DOUBLE)


class AtOnce(Executor):
    """Does what it is given before it returns."""

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(call(*arguments, **named))
        return future


class Never(Executor):
    """Has not come to it yet."""

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        return Future()


class Watched:
    """A chain whose every block a node's shadows see before it is committed."""

    def __init__(self, folder: Path, count_max: int = 2, executor: Executor | None = None) -> None:
        self.chain = ModelChain(make_model_genesis(publication_ms=1_000_000))
        self.folder = folder
        self.shadows = self.start(count_max, executor)

    def start(self, count_max: int = 2, executor: Executor | None = None) -> Shadows:
        self.shadows = Shadows(self.chain.rules, self.folder, count_max, executor or AtOnce())
        return self.shadows

    def grow(self, *transactions: Any) -> None:
        block = self.chain.build(*transactions).block
        self.shadows.before_final(self.chain.view, block)
        self.chain.add(block)

    def pay(self, amount: int = 1_000, sender: int = 1) -> Any:
        return self.chain.transfer(PEOPLE[sender], PEOPLE[3], amount=amount)

    def list_scores(self, artifact: bytes) -> list[tuple[int, int]]:
        """(chain's, shadow's) of every transfer in the log."""
        entries = self.shadows.get_log(digest_of(artifact)).read()
        entries = entries[entries["kind"] == TRANSFER]
        return [(int(e["chain_score"]), int(e["shadow_score"])) for e in entries]


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "shadows")


def test_a_model_scores_along_from_its_publication_on(watched: Watched) -> None:
    watched.grow(watched.pay(), *watched.chain.publish(DOUBLE))
    watched.grow(watched.pay())
    watched.grow(watched.pay(), watched.pay(2_000, 2))
    # On the seat's own rows: it knows what was sent before it came.
    assert watched.list_scores(DOUBLE) == [(200, 400), (300, 600), (200, 400)]


def test_one_that_reads_other_rows_keeps_its_own_from_its_publication_on(watched: Watched) -> None:
    watched.grow(watched.pay(), *watched.chain.publish(OTHER))
    watched.grow(watched.pay())
    watched.grow(watched.pay())
    assert watched.list_scores(OTHER) == [(200, 300), (300, 600)]


def test_after_a_restart_rows_of_ones_own_begin_anew_and_the_log_says_from_where(watched: Watched) -> None:
    watched.grow(*watched.chain.publish(OTHER), *watched.chain.publish(DOUBLE))
    watched.grow(watched.pay())
    watched.start()
    watched.grow(watched.pay())
    watched.grow(watched.pay())
    assert watched.list_scores(OTHER) == [(100, 300), (200, 300), (300, 600)]
    entries = watched.shadows.get_log(digest_of(OTHER)).read()
    assert entries["subject"][entries["kind"] == START].tolist() == [2, 3]
    compared = compare(entries)
    assert compared is not None
    assert (compared.first_height, compared.last_height, compared.transfers) == (3, 4, 2)
    entries = watched.shadows.get_log(D).read()  # rows of the seat are whole whatever happened here
    assert entries["subject"][entries["kind"] == START].tolist() == [2]


def test_one_that_gets_a_seat_is_no_shadow_any_more(watched: Watched) -> None:
    watched.grow(*watched.chain.publish(DOUBLE))
    watched.grow()
    assert watched.shadows.list_digests() == (D,)
    chain = watched.chain
    chain.settle(seat(DOUBLE, GENESIS_DIGEST))
    watched.grow(watched.pay())
    assert watched.shadows.list_digests() == ()


def test_only_the_newest_score_along(watched: Watched) -> None:
    for artifact in (b"4 c 4", b"5 c 4", b"6 c 4"):
        watched.grow(*watched.chain.publish(artifact))
    watched.grow()
    assert set(watched.shadows.list_digests()) == {digest_of(b"5 c 4"), digest_of(b"6 c 4")}
    watched.start(count_max=0)
    watched.grow()
    assert watched.shadows.list_digests() == ()


def test_a_shadow_that_fails_is_dropped_and_the_chain_goes_on(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.grow(*watched.chain.publish(DOUBLE), *watched.chain.publish(OTHER))
    module = watched.chain.rules.find_module(watched.chain.view, D)
    monkeypatch.setattr(module, "evaluate", lambda *_: 1 // 0)
    for _ in range(3):
        watched.grow(watched.pay())
    assert watched.list_scores(DOUBLE) == []
    assert watched.list_scores(OTHER) == [(100, 300), (200, 600), (300, 900)]
    assert watched.shadows.list_digests() == (digest_of(OTHER),)


def test_blocks_that_come_faster_than_it_scores_are_left_out(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "shadows", executor=Never())
    watched.grow(*watched.chain.publish(DOUBLE))
    for _ in range(80):
        watched.grow()
    assert len(watched.shadows._waiting) == 64
    watched.shadows._executor = AtOnce()
    watched.shadows._waiting.clear()
    watched.grow(watched.pay())
    assert watched.list_scores(DOUBLE) == [(100, 200)]


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "shadows").write_text("a file is in the way")
    watched = Watched(tmp_path / "shadows")
    watched.grow(*watched.chain.publish(DOUBLE))
    watched.grow(watched.pay())
    watched.grow(watched.pay())
    assert watched.chain.height == 3


def test_reports_stand_in_the_log_with_the_transfer_they_speak_of(tmp_path: Path) -> None:
    chain = Chain(make_genesis(module_room_bytes=5), None, load_counting)
    shadows = Shadows(chain.rules, tmp_path / "shadows", 2, AtOnce())

    def grow(*transactions: Any) -> None:
        block = chain.build(*transactions).block
        shadows.before_final(chain.view, block)
        chain.add(block)

    (payload,) = cut_artifact("counting", D, DOUBLE)
    grow(chain.make(KIND_PUBLISH_MODEL, KEYS[0], KEYS[0].address, payload, fee=500))
    sent = chain.transfer(KEYS[2], KEYS[3], amount=900)
    grow(sent, chain.transfer(KEYS[4], KEYS[5]))
    grow()
    grow(chain.report(2, 0))
    grow(chain.transfer(KEYS[4], KEYS[3]))
    entries = shadows.get_log(D).read()
    assert entries["subject"][entries["kind"] == REPORT].tolist() == [read_subject(sent.id)]
    compared = compare(entries)
    assert compared is not None
    assert (compared.transfers, compared.reported) == (3, 1)


def test_a_report_that_is_taken_back_leaves_rows_of_ones_own_as_if_it_had_not_come(tmp_path: Path) -> None:
    chain = Chain(make_genesis(module_room_bytes=20), None, load_counting)
    shadows = Shadows(chain.rules, tmp_path / "shadows", 2, AtOnce())

    def grow(*transactions: Any) -> dict[bytes, bytes]:
        block = chain.build(*transactions).block
        assert len(block.transactions) == len(transactions)
        shadows.before_final(chain.view, block)
        chain.add(block)
        return dict(shadows._shadows[digest_of(OTHER)].own_rows) if shadows._shadows else {}

    (payload,) = cut_artifact("counting", digest_of(OTHER), OTHER)
    grow(chain.make(KIND_PUBLISH_MODEL, KEYS[0], KEYS[0].address, payload, fee=500))
    sent = chain.transfer(KEYS[2], KEYS[3], amount=900)
    grow(sent)
    before = grow()
    reported = grow(chain.report(2, 0))
    assert reported != before
    back = chain.make(KIND_WITHDRAW_REPORT, KEYS[1], sent.receiver, cases.encode_about(sent))
    assert grow(back) == before


# --- the log ------------------------------------------------------------------------------------------


def write(log: ShadowLog, rows: list[tuple[int, int, int, int, int]], reports: list[int]) -> None:
    """(id, chain's score, outcome, shadow's score, outcome) of each, in block 7."""
    entries = make_entries(TRANSFER, [row[0] for row in rows])
    for number, name in enumerate(("chain_score", "chain_outcome", "shadow_score", "shadow_outcome"), 1):
        entries[name] = [row[number] for row in rows]
    log.append([make_entries(START, [7]), entries, make_entries(REPORT, reports), make_entries(BLOCK, [7])])


def test_two_models_are_compared_by_outcome_and_by_the_reports_that_came(tmp_path: Path) -> None:
    log = ShadowLog(tmp_path / "shadows", D)
    assert compare(log.read()) is None
    write(log, [(1, 10, 0, 90, 1), (2, 50, 1, 20, 0), (3, 5, 0, 5, 0), (4, 1, 0, 2, 0)], [1, 99])
    compared = compare(log.read())
    assert compared is not None
    assert compared.outcomes == ((2, 1, 0), (1, 0, 0), (0, 0, 0))
    assert (compared.agreeing, compared.reported, compared.mean_difference) == (2, 1, 12.75)
    assert (compared.chain_average_precision, compared.shadow_average_precision) == (0.5, 1.0)


def test_a_record_cut_short_by_a_crash_is_cut_off(tmp_path: Path) -> None:
    log = ShadowLog(tmp_path, D)
    write(log, [(1, 10, 0, 90, 1)], [])
    path = tmp_path / f"{D.hex()}.log"
    path.write_bytes(path.read_bytes()[:-3])
    assert len(log.read()) == 2
    write(log, [(2, 10, 0, 90, 1)], [])
    assert log.read()["subject"].tolist() == [7, 1, 7, 2, 7]


def test_a_full_log_is_turned_over_and_the_one_before_is_kept(tmp_path: Path) -> None:
    log = ShadowLog(tmp_path, D, bytes_max=6 * RECORD.itemsize)
    for number in range(7):
        write(log, [(number, 1, 0, 1, 0)], [])
    kept = log.read()
    kept = kept["subject"][kept["kind"] == TRANSFER]
    assert kept.tolist() == [2 * (7 // 2) - 2 + n for n in range(len(kept))]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2 * 9 * RECORD.itemsize
    assert log.find_last_height() == 7


def test_subjects_read_back_as_the_bytes_of_the_id() -> None:
    entries = make_entries(TRANSFER, [read_subject(bytes(range(32)))])
    assert entries.tobytes()[1:9] == bytes(range(8))
    assert np.frombuffer(entries.tobytes(), dtype=RECORD)["subject"][0] == read_subject(bytes(range(32)))


def test_the_genesis_model_is_never_a_shadow(watched: Watched) -> None:
    assert make_model_genesis().modules[0].digest == GENESIS_DIGEST
    watched.grow(watched.pay())
    assert watched.shadows.list_digests() == ()
