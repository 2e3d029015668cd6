"""`assay replay` and `assay demo` as people type them: bad use is one clear line, and nothing is sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from node.__main__ import main
from node.replay.command import get_exit_code, read_columns

GOOD = "t,sender,receiver,amount,label\n1,a,b,5,0\n2,b,a,6,1\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("t,sender,receiver,amount\n", "no rows"),
        ("t,sender,amount\n1,a,5\n", "receiver"),
        ("t,sender,receiver,amount\n2,a,b,5\n1,a,b,5\n", "earlier than the row before"),
        ("t,sender,receiver,amount\n1,a,b,NaN\n", "not a number"),
        ("t,sender,receiver,amount\n1,a,b,-5\n", "negative"),
        ("t,sender,receiver,amount\n1,a,b,1.5\n", "whole number"),
        ("t,sender,receiver,amount,label\n1,a,b,1,2\n", "largest allowed"),
    ],
)
def test_a_bad_workload_is_one_line(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "w.csv"
    path.write_text(text)
    assert main(["replay", str(path), "--home", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "no network is given"),
        (["--home", "nowhere"], "no network is running there"),
        (["--api", "http://127.0.0.1:1"], "--key"),
        (["--api", "not a url", "--key", "k"], "not a node's URL"),
        (["--home", "x", "--api", "http://127.0.0.1:1"], "exclude each other"),
        (["--home", "x", "--rate", "-1"], "--rate"),
        (["--home", "x", "--limit", "0"], "--limit"),
        (["--home", "x", "--columns", "t"], "FIELD=NAME"),
        (["--home", "x", "--columns", "when=t"], "unknown field"),
        (["--home", "x", "--report", "/nonexistent/r.json"], "cannot be written"),
    ],
)
def test_bad_options_are_one_line(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "w.csv"
    path.write_text(GOOD)
    assert main(["replay", str(path), *options]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1


def test_a_damaged_localnet_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "w.csv").write_text(GOOD)
    (tmp_path / "localnet.json").write_text(json.dumps({"nodes": []}))
    assert main(["replay", str(tmp_path / "w.csv"), "--home", str(tmp_path)]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_columns_are_read_as_a_mapping() -> None:
    assert read_columns("t=time,sender=from") == {"t": "time", "sender": "from"}


def test_the_exit_code_asks_for_no_failure_and_agreement() -> None:
    good = {"interrupted": False, "failed": 0, "nodes_agree": True}
    assert get_exit_code(good) == 0
    assert get_exit_code({**good, "failed": 1}) == 1
    assert get_exit_code({**good, "nodes_agree": False}) == 1
    assert get_exit_code({**good, "interrupted": True}) == 130


def test_a_demo_that_is_too_small_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--transactions", "5"]) == 2
    assert "--transactions" in capsys.readouterr().err


def test_a_demo_does_not_take_over_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_text("x")
    assert main(["demo", "--home", str(tmp_path)]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "x"
