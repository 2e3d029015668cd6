"""`assay model`: the flags and the JSON that scripts rely on, and bad input in one line."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest

from consensus.errors import Rejected
from ml.dataset import Trace, write_trace
from ml.evaluation import select_handbook_rows
from ml.features import DAY_MS
from ml.fraud import read_default_artifact
from ml.synthetic import generate_workload
from node.commands import model as command


def assay_model(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(a) for a in arguments]))


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    """A town's file whose days count from 0, and its number of rows."""
    trace = generate_workload(32, accounts=300, days=24, per_day=250).trace
    start = int(trace.time_ms[0]) // DAY_MS * DAY_MS
    path = tmp_path_factory.mktemp("town") / "town.csv.gz"
    write_trace(path, Trace(*[trace.time_ms - start, *(getattr(trace, n) for n in Trace.__slots__[1:])]))
    return path, trace


def test_train_evaluate_and_inspect_work_together(town, tmp_path, capsys, monkeypatch):
    pytest.importorskip("lightgbm")
    monkeypatch.setattr("ml.training.TREES", 12)
    path, trace = town
    out = tmp_path / "town.model"
    assert assay_model("train", "--data", path, "--from", 1, "--to", 14, "--seed", 5, "--out", out) == 0
    assert "out of fold" in capsys.readouterr().out
    first = out.read_bytes()
    assert (
        assay_model("train", "--data", path, "--from", 1, "--to", 14, "--seed", 5, "--out", out, "--json")
        == 0
    )
    assert out.read_bytes() == first
    card = json.loads(capsys.readouterr().out)["card"]
    assert (card["day_start"], card["day_end"], card["seed"]) == (1, 14, 5)
    assert assay_model("evaluate", "--model", out, "--data", path, "--from", 14, "--to", 16, "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    day = (trace.time_ms - trace.time_ms[0] // DAY_MS * DAY_MS) // DAY_MS
    assert figures["rows"] == ((day >= 14) & (day < 16)).sum()


def test_evaluate_prints_one_json_document_and_writes_one_score_a_row(town, tmp_path, capsys):
    path, _ = town
    scores = tmp_path / "scores.txt"
    assert assay_model("evaluate", "--data", path, "--from", 9, "--to", 12, "--scores", scores, "--json") == 0
    captured = capsys.readouterr()
    figures = json.loads(captured.out)
    assert captured.err == ""  # progress stays quiet in a pipe
    assert set(figures) == {
        "rows",
        "positives",
        "average_precision",
        "roc_auc",
        "card_precision_at_100",
        "recall_at_fpr",
        "precision_at_fpr",
        "microseconds_per_transaction",
    }
    assert (
        list(figures["recall_at_fpr"]) == list(figures["precision_at_fpr"]) == ["0.0001", "0.0005", "0.001"]
    )
    lines = scores.read_text().splitlines()
    assert len(lines) == figures["rows"]
    assert all(0 <= int(line) <= 10_000 for line in lines)


def test_late_and_missing_reports_change_the_scores(town, tmp_path, capsys):
    path, _ = town
    texts = []
    for extra in ((), ("--report-delay", "7..21"), ("--report-share", 0.2), ("--report-false", 0.3)):
        out = tmp_path / "scores"
        assert assay_model("evaluate", "--data", path, "--scores", out, "--json", *extra) == 0
        texts.append(out.read_text())
    capsys.readouterr()
    assert len(set(texts)) == 4


def test_evaluate_for_people_shows_the_published_table_beside_it(town, capsys):
    path, _ = town
    assert assay_model("evaluate", "--data", path, "--protocol", "handbook", "--from", 15, "--to", 17) == 0
    assert "published: random forest" in capsys.readouterr().out


def test_inspect_describes_the_model_that_ships(capsys):
    assert assay_model("inspect", "--json") == 0
    about = json.loads(capsys.readouterr().out)
    assert about["bytes"] == len(read_default_artifact())
    assert about["digest"].startswith("0x")
    assert assay_model("inspect") == 0
    assert "suggests flag at" in capsys.readouterr().out


def test_the_handbook_leaves_out_senders_with_a_fraud_that_was_known_by_then():
    days = np.array([0, 1, 8, 14, 14, 15, 15, 16])
    sender = np.array([0, 1, 2, 0, 1, 1, 2, 3])
    fraud = np.array([1, 1, 1, 0, 0, 0, 0, 1], dtype=np.uint8)
    trace = Trace(days * DAY_MS, sender, sender, days, fraud, ("a", "b", "c", "d"))
    # on day 15 the frauds of days 1 to 7 are known: sender 1 is left out, sender 2 (day 8) not yet
    assert select_handbook_rows(trace, 15, 17).tolist() == [False] * 6 + [True, True]
    assert select_handbook_rows(trace, 14, 15).tolist() == [False] * 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "--model", "MISSING"), "cannot be read"),
        (("evaluate", "--model", "CUT"), "damaged or cut short"),
        (("evaluate", "--from", 5, "--to", 5), "holds no day"),
        (("evaluate", "--from", 90, "--to", 91), "the data holds days 0 to 23"),
        (("evaluate", "--report-delay", "soon"), "--report-delay"),
        (("evaluate", "--report-delay", "9..7"), "not a range"),
        (("evaluate", "--report-share", 2), "not a share"),
        (("evaluate", "--columns", "amount=value"), "no column 'value'"),
        (("evaluate", "--scores", "MISSING/scores"), "cannot be written"),
        (("train", "--out", "MISSING/model"), "folder does not exist"),
        (("train", "--out", "m", "--seed", -1), "--seed"),
    ],
)
def test_bad_input_is_one_line_that_names_the_mend(town, tmp_path, arguments, message):
    (tmp_path / "CUT").write_bytes(read_default_artifact()[:900])
    placed = [tmp_path / a if isinstance(a, str) and a.isupper() else a for a in arguments]
    placed = [tmp_path / a if isinstance(a, str) and a.startswith("MISSING/") else a for a in placed]
    with pytest.raises(Rejected, match=message) as caught:
        assay_model(*placed, "--data", town[0])
    assert "\n" not in str(caught.value)
