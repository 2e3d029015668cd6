"""Rows, budgets, ratios; the table for people and the document for programs; two documents compared."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.errors import Rejected
from node.bench.compare import (
    NOISE,
    compare_rows,
    describe_differences,
    form_differences,
    read_document,
)
from node.bench.run import GROUPS, choose_rows
from node.bench.table import SPEC_BY_NAME, SPECS, Row, describe, form_document, make_row, round_figure

FIXED_NAMES = (
    *("reexecute", "one_validator_tps", "four_validator_tps"),
    *("latency_unloaded_p50_ms", "latency_unloaded_p99_ms", "latency_loaded_p50_ms", "latency_loaded_p99_ms"),
    *("idle_cpu_percent", "idle_rss_mb", "first_final_seconds", "catch_up", "score_us_per_tx"),
    *("block_cost_growth", "million_accounts_rss_mb"),
)


def write(path: Path, *rows: Row) -> Path:
    path.write_text(json.dumps(form_document(25_000, rows)))
    return path


def compare(old: Row, new: Row) -> str:
    return compare_rows({old.name: old}, {new.name: new})[0].verdict


def test_the_names_that_scripts_rely_on_come_first_and_in_order() -> None:
    assert tuple(spec.name for spec in SPECS[: len(FIXED_NAMES)]) == FIXED_NAMES
    assert all(SPEC_BY_NAME[name].budget is not None for name in FIXED_NAMES)


def test_every_row_is_measured_by_exactly_one_group() -> None:
    measured = [row for group in GROUPS for row in group.rows]
    assert sorted(measured) == sorted(spec.name for spec in SPECS)


def test_a_rate_is_judged_as_a_multiple_of_the_raw_rate() -> None:
    assert make_row("four_validator_tps", 3_000, 25_000) == Row(
        "four_validator_tps", 3_000, "tx/s", 0.12, 0.12, True
    )
    assert make_row("four_validator_tps", 2_900, 25_000).met is False
    assert make_row("four_validator_tps", 2_900, 20_000).met is True


def test_a_time_is_judged_by_itself_and_has_no_ratio() -> None:
    row = make_row("latency_unloaded_p50_ms", 42.31, 25_000)
    assert (row.ratio_to_raw, row.met) == (None, True)
    assert make_row("latency_unloaded_p50_ms", 60.5, 25_000).met is False


def test_a_cost_is_also_told_as_a_multiple_of_one_verification() -> None:
    assert make_row("score_us_per_tx", 2, 25_000).ratio_to_raw == 0.05


def test_a_row_that_failed_has_no_value_and_misses_its_budget() -> None:
    assert make_row("reexecute", None, 25_000) == Row("reexecute", None, "tx/s", None, 0.6, False)
    assert make_row("load_us_per_tx", None, 25_000).met is None


def test_a_row_without_a_budget_is_neither_met_nor_missed() -> None:
    assert make_row("load_us_per_tx", 5.0, 25_000).met is None


def test_the_document_has_exactly_the_members_that_were_promised() -> None:
    document = form_document(25_000.4, [make_row("catch_up", 12_000, 25_000)])
    assert set(document) == {"raw_verify_per_second", "rows"}
    assert document["raw_verify_per_second"] == 25_000
    assert set(document["rows"][0]) == {"name", "value", "unit", "ratio_to_raw", "budget", "met"}


def test_the_table_names_the_machine_and_what_went_wrong() -> None:
    rows = [make_row("catch_up", 1_234.5, 25_000), make_row("reexecute", None, 25_000)]
    text = describe(25_000, rows, ["reexecution failed: audit: no"])
    assert "Python 3" in text
    assert "cores" in text
    assert "reexecution failed: audit: no" in text
    assert "failed" in next(line for line in text.splitlines() if line.startswith("reexecute "))


@given(st.floats(min_value=1e-6, max_value=1e9))
def test_a_rounded_figure_stays_within_a_thousandth(value: float) -> None:
    assert abs(round_figure(value) - value) <= 1e-3 * value


def test_more_is_better_for_rates_and_worse_for_costs() -> None:
    assert compare(make_row("catch_up", 10_000, 25_000), make_row("catch_up", 12_000, 25_000)) == "better"
    assert compare(make_row("idle_rss_mb", 80, 25_000), make_row("idle_rss_mb", 100, 25_000)) == "worse"


def test_a_slower_machine_alone_makes_nothing_worse() -> None:
    assert compare(make_row("catch_up", 10_000, 25_000), make_row("catch_up", 5_000, 12_500)) == "same"


def test_less_than_the_noise_is_the_same() -> None:
    old = make_row("idle_rss_mb", 100, 25_000)
    assert compare(old, make_row("idle_rss_mb", 100 * (1 + 0.9 * NOISE), 25_000)) == "same"


def test_rows_of_one_file_alone_and_failures_are_named() -> None:
    good, bad = make_row("catch_up", 10_000, 25_000), make_row("catch_up", None, 25_000)
    assert compare(good, bad) == "failed"
    assert compare(bad, good) == "was failing"
    assert compare_rows({}, {"catch_up": good})[0].verdict == "only in the new"
    assert compare_rows({"catch_up": good}, {})[0].verdict == "only in the old"
    lost = make_row("overload_lost", 0, 25_000), make_row("overload_lost", 3, 25_000)
    assert compare(*lost) == "worse"


def test_a_document_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = make_row("catch_up", 12_000, 25_000), make_row("idle_rss_mb", 80.5, 25_000)
    read = read_document(write(tmp_path / "bench.json", *rows))
    assert tuple(read.values()) == rows
    differences = compare_rows(read, read)
    assert {item["verdict"] for item in form_differences(differences)} == {"same"}
    assert "catch_up" in describe_differences(differences)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"rows": [{}]}', '{"rows": 3}', '{"rows": [{"name": 1}]}', "\x00"]
)
def test_what_is_no_document_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(Rejected, match="no benchmark's document"):
        read_document(tmp_path / "bad.json")


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match=r"gone\.json"):
        read_document(tmp_path / "gone.json")


def test_rows_are_chosen_by_name_or_by_measurement_in_the_tables_order() -> None:
    assert choose_rows(["idle", "reexecute"]) == ("reexecute", "idle_cpu_percent", "idle_rss_mb")
    whole = choose_rows([])
    assert whole[: len(FIXED_NAMES)] == FIXED_NAMES
    assert not any(name.startswith(("overload", "long_run")) for name in whole)
    with pytest.raises(Rejected, match="is not a row"):
        choose_rows(["speed"])
