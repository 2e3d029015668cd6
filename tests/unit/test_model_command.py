"""`assay model`: the flags and the JSON that scripts rely on, and bad input in one line."""

from __future__ import annotations

import argparse
import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from consensus.errors import Rejected
from ml.dataset import Trace, write_trace
from ml.definitions import DAY_MS
from ml.evaluation import REGIMES, select_handbook_rows
from ml.fraud import read_default_artifact
from ml.synthetic import TownRules, generate_workload
from ml.variants import Variant
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
    assert set(figures) >= {
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


def test_every_regime_and_every_week_comes_with_one_command(town, capsys):
    path, _ = town
    arguments = ("--data", path, "--from", 8, "--to", 22, "--regimes", "all", "--weekly", "--json")
    assert assay_model("evaluate", *arguments) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document["regimes"]) == list(REGIMES)
    assert document["average_precision"] == document["regimes"]["on time"]["average_precision"]
    precision = {name: figures["average_precision"] for name, figures in document["regimes"].items()}
    assert len(set(precision.values())) == len(precision)
    for weeks in document["weeks"].values():
        assert [week["day_start"] for week in weeks] == [8, 15]
    assert sum(week["rows"] for week in document["weeks"]["late 7..21"]) == document["rows"]


def test_the_html_report_is_one_file_that_fetches_nothing(town, tmp_path, capsys):
    path, _ = town
    out = tmp_path / "report.html"
    assert assay_model("evaluate", "--data", path, "--from", 15, "--to", 17, "--html", out) == 0
    shown = capsys.readouterr().out
    page = out.read_text()
    assert page.startswith("<!doctype html>")
    assert page.count("<svg") == 3  # precision and recall, reliability, distribution of scores
    assert not re.search(r"https?://|<script|<link|url\(|@import", page)
    for svg in re.findall(r"<svg.*?</svg>", page):
        assert ElementTree.fromstring(svg).tag == "svg"
    for heading in ("Reliability", "Thresholds", "By pattern, amount and age"):
        assert heading in page
    assert "stated and found risk lie" in shown
    assert "refused clean" in shown


def test_patterns_in_the_data_get_a_line_each(tmp_path, capsys):
    workload = generate_workload(32, accounts=100, days=8, per_day=100)
    rows = ["t,sender,receiver,amount,fraud,kind"]
    trace = workload.trace
    for i in range(len(trace)):
        kind = workload.patterns[workload.pattern[i]]
        time, sender, receiver = trace.time_ms[i], trace.sender[i], trace.receiver[i]
        rows.append(f"{time},{sender},{receiver},{trace.amount[i]},{trace.fraud[i]},{kind}")
    path = tmp_path / "town.csv"
    path.write_text("\n".join(rows) + "\n")
    assert assay_model("evaluate", "--data", path, "--columns", "pattern=kind", "--json") == 0
    bands = json.loads(capsys.readouterr().out)["bands"]
    kinds = {workload.patterns[n] for n in np.unique(workload.pattern)}
    assert {band["name"] for band in bands if band["kind"] == "pattern"} == kinds
    assert {"amount", "sender's age", "receiver's age"} <= {band["kind"] for band in bands}


def test_variants_say_how_far_a_model_falls(capsys, monkeypatch):
    small = [
        Variant(name, "town", lambda rules=rules: generate_workload(5, 200, 12, 150, rules))
        for name, rules in (("town", TownRules()), ("fast spells", TownRules(spell_days=(1, 3))))
    ]
    monkeypatch.setattr("node.modelling.variants.VARIANTS", small)
    assert assay_model("evaluate", "--variants") == 0
    assert "falls by" in capsys.readouterr().out
    assert assay_model("evaluate", "--variants", "--json") == 0
    lines = json.loads(capsys.readouterr().out)["variants"]
    assert [line["variant"] for line in lines] == ["town", "fast spells"]
    assert all(0 <= line["refused_clean"] < 0.05 for line in lines)


def test_ratings_are_read_as_a_trace_by_their_columns(tmp_path, capsys):
    path = tmp_path / "ratings.csv"
    rows = [f"{day * 86_400},{day % 5},{day % 7 + 5},{-3 if day % 9 == 0 else 4}" for day in range(90)]
    path.write_text("t,sender,receiver,rating\n" + "\n".join(rows) + "\n")
    columns = "label=rating<0,amount=#1"
    assert assay_model("evaluate", "--data", path, "--columns", columns, "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["rows"], figures["positives"]) == (90, 10)


def test_a_model_of_other_features_is_trained_inspected_and_measured(town, tmp_path, capsys, monkeypatch):
    pytest.importorskip("lightgbm")
    monkeypatch.setattr("ml.training.TREES", 8)
    path, _ = town
    definitions = tmp_path / "features.json"
    features = [
        ["size", "amount"],
        ["lately", "evidence", 5],
        ["fresh", "reports", 0, 10],
        ["calm", "clean", 3, 20],
    ]
    rules = {"ring_days": 20, "label_delay_days": 2, "decay_shift": 5}
    definitions.write_text(json.dumps({"rules": rules, "features": features}))
    out = tmp_path / "other.model"
    arguments = ("--data", path, "--to", 14, "--definitions", definitions, "--out", out, "--json")
    assert assay_model("train", *arguments) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["definitions"]["features"] == features
    assert about["definitions"]["rules"]["ring_days"] == 20
    assert about["row_bytes"] < 256
    assert assay_model("evaluate", "--model", out, "--data", path, "--from", 14, "--to", 20, "--json") == 0
    assert json.loads(capsys.readouterr().out)["average_precision"] > 0.02  # chance
    assert assay_model("inspect", out) == 0
    assert "evidence 5" in capsys.readouterr().out


def test_features_go_out_and_a_forest_learned_elsewhere_comes_back(town, tmp_path, capsys):
    lightgbm = pytest.importorskip("lightgbm")
    path, _ = town
    table = tmp_path / "features.npz"
    assert assay_model("features", "--data", path, "--to", 14, "--out", table) == 0
    with np.load(table) as held:
        seen, fraud, names = held["features"], held["fraud"], held["names"].tolist()
    data = lightgbm.Dataset(seen, fraud.astype(float), feature_name=names)
    booster = lightgbm.train({"objective": "binary", "verbose": -1, "num_leaves": 12}, data, 10)
    booster.save_model(tmp_path / "theirs.txt")
    capsys.readouterr()
    out = tmp_path / "ours.model"
    days = ("--from", 14, "--to", 22)
    assert assay_model("import", tmp_path / "theirs.txt", "--out", out, "--prove") == 0
    assert "equal to lightgbm on 4096 drawn rows" in capsys.readouterr().out
    assert assay_model("import", tmp_path / "theirs.txt", "--out", out, "--data", path, *days, "--json") == 0
    about = json.loads(capsys.readouterr().out)
    assert about["refuse_score_min"] <= 10_001
    assert len(about["card"]["data_sha256"]) == 2  # the source's file and the data it was calibrated on
    assert assay_model("evaluate", "--model", out, "--data", path, *days, "--json") == 0
    assert json.loads(capsys.readouterr().out)["average_precision"] > 0.2


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
        (("train", "--out", "m", "--refuse-fpr", 0.2), "refused <= flagged"),
        (("train", "--out", "m", "--definitions", "MISSING"), "cannot be read"),
        (("evaluate", "--html", "MISSING/report.html"), "folder does not exist"),
        (("evaluate", "--columns", "amount=#x"), "not a whole number"),
        (("import", "MISSING.txt", "--out", "m"), "cannot be read"),
    ],
)
def test_bad_input_is_one_line_that_names_the_mend(town, tmp_path, arguments, message):
    (tmp_path / "CUT").write_bytes(read_default_artifact()[:900])
    placed = [tmp_path / a if isinstance(a, str) and a.isupper() else a for a in arguments]
    placed = [tmp_path / a if isinstance(a, str) and a.startswith("MISSING/") else a for a in placed]
    with pytest.raises(Rejected, match=message) as caught:
        assay_model(*placed, "--data", town[0])
    assert "\n" not in str(caught.value)
