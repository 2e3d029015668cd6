"""`assay`: every command explains itself, and every mistake is one line and exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from consensus.errors import Fault
from node import __main__ as command_line

HERE = [name for name in command_line.COMMANDS if find_spec(f"node.commands.{name}") is not None]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        code = command_line.main(arguments)
    except SystemExit as end:  # argparse ends --help so
        code = int(end.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--help")
    assert code == 0
    assert err == ""
    for name, words in command_line.COMMANDS.items():
        assert f"  {name} " in out
        assert words in out


def test_without_a_command_help_is_shown_and_it_is_bad_use(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys)
    assert code == 2
    assert "commands:" in out


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--version")
    assert code == 0
    assert out.startswith("assay ")


@pytest.mark.parametrize("name", HERE)
def test_every_command_has_help_and_a_first_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, name, "--help")
    assert code == 0
    assert f"usage: assay {name}" in out
    assert err == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonesuch",),
        ("--nonesuch",),
        ("node",),
        ("node", "--home"),
        ("node", "--home", "/nonexistent/home"),
        ("localnet", "--home", "x", "--nodes", "many"),
        ("localnet", "--home", "x", "--nodes", "0"),
        ("localnet", "--home", "x", "--nodes", "65"),
        ("localnet", "--home", "x", "--block-interval", "soon"),
        ("localnet", "--home", "x", "--stakes", "1,a"),
        ("localnet", "--home", "x", "--nodes", "3", "--stakes", "1,2"),
        ("localnet", "--home", "x", "--modules", "nonesuch"),
        ("localnet", "--home", "x", "--modules", ""),
        ("localnet", "--home", "x", "--reporting", "everybody"),
        ("localnet", "--home", "x", "--reports-min", "0"),
        ("report",),
        ("report", "file"),
        ("report", "file", "0x12", "--key", "/nonexistent.key"),
        ("report", "vote", "0x" + "11" * 32, "--key", "/nonexistent.key"),
        ("report", "list", "--limit", "0"),
        ("init", "--nonesuch"),
        ("audit", "--home", "/nonexistent/home"),
        ("status", "--nonesuch"),
        ("status", "--home", "x" * 300),
        ("status", "--api", "http://a..b:1"),
        ("status", "--api", f"http://{'a' * 64}:1"),
        ("localnet", "--home", "x" * 300),
        ("localnet", "--home", "/dev/null"),
        ("init", "--home", "x", "--peer", "a,b,c"),
        ("init", "--home", "x", "--peer", "a,ws://127.0.0.1:1,0x02"),
        ("init", "--home", "x", "--peer", "a,ws://127.0.0.1:1"),
    ],
)
def test_bad_use_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("assay: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_failed_run_is_exit_code_1_and_an_interrupted_one_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for error, code in ((Fault("the disk is full"), 1), (KeyboardInterrupt(), 130)):

        def fail(arguments: object, error: BaseException = error) -> int:
            raise error

        monkeypatch.setattr(command_line, "run_command", fail)
        found, _, err = run(capsys, "node")
        assert found == code
        assert err.count("\n") == 1


def test_an_error_of_the_system_that_names_no_path_is_ours_and_shown_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(arguments: object) -> int:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(command_line, "run_command", fail)
    with pytest.raises(OSError, match="Bad file descriptor"):
        command_line.main(["node"])


def test_help_imports_neither_numpy_nor_aiohttp() -> None:
    script = (
        "import sys; from node.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'aiohttp', 'lmdb', 'coincurve', 'asyncio', 'lightgbm'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_reader_that_goes_away_leaves_no_traceback() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-m", "node", "--help"],
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(write_end)
    assert "Traceback" not in done.stderr
