"""Breaks one rule at a time, in a copy of the tree, and shows which check notices.

    scripts/mutants                  all of them
    scripts/mutants NAME…            these;   scripts/mutants --list   what there is

The working tree is never touched. A mutant that survives means a missing check: exit code 1. An edit whose
`old` text does not stand exactly once in its file is an error of this list: exit code 2.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tests.mutant_list import MUTANTS, Edit, Mutant

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("consensus", "ml", "node", "tests", "pyproject.toml", "setup.cfg")
CHECK_SECONDS_MAX = 240  # a mutant that hangs is noticed, too


class BadMutantError(Exception):
    """The list does not fit the code any more."""


@dataclass(frozen=True, slots=True)
class Kill:
    """check: what noticed, None for a survivor; complaint: what it said."""

    mutant: Mutant
    check: str | None
    complaint: str
    seconds: float


def copy_tree(target: Path) -> None:
    """What the checks need of the working tree."""
    ignore = shutil.ignore_patterns("__pycache__", ".*")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=ignore)
        else:
            shutil.copy2(source, target / name)


def apply_edit(tree: Path, edit: Edit) -> str:
    """Make the edit; the file's text before it. Raises BadMutantError."""
    path = tree / edit.file
    text = path.read_text(encoding="utf-8")
    found = text.count(edit.old)
    if found != 1:
        raise BadMutantError(f"{edit.file} holds {found} times, not once:\n{edit.old}")
    path.write_text(text.replace(edit.old, edit.new), encoding="utf-8")
    return text


@contextmanager
def mutated(tree: Path, mutant: Mutant) -> Iterator[None]:
    """The tree with the mutant's edits; afterwards as before."""
    before: list[tuple[Path, str]] = []
    try:
        for edit in mutant.edits:
            try:
                before.append((tree / edit.file, apply_edit(tree, edit)))
            except BadMutantError as error:
                raise BadMutantError(f"{mutant.name}: {error}") from None
        yield
    finally:
        for path, text in reversed(before):
            path.write_text(text, encoding="utf-8")


def run_check(tree: Path, check: str) -> str | None:
    """Run one check in a tree; what it complains of, or None if all is well."""
    tool, *words = check.split()
    if tool == "simulate":
        command = [sys.executable, "-m", "node", "simulate", *words]
    else:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "--no-header",
            "-p",
            "no:cacheprovider",
            *words,
        ]
    # Compiled files are told apart by whole seconds and sizes: an edit may leave both as they were.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(tree)}
    try:
        done = subprocess.run(
            command,
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=CHECK_SECONDS_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"does not end within {CHECK_SECONDS_MAX} s"
    if done.returncode == 0:
        return None
    return _find_complaint(done.stdout, done.stderr)


def _find_complaint(stdout: str, stderr: str) -> str:
    """The line that says it best."""
    for pattern, text in (
        (r"^seed \d+: (.*)$", stderr),
        (r"^FAILED (\S+)", stdout),
        (r"^ERROR (\S+)", stdout),
    ):
        found = re.search(pattern, text, re.MULTILINE)
        if found:
            return found[1]
    lines = (stderr or stdout).strip().splitlines()
    return lines[-1] if lines else "it fails without a word"


def try_mutant(tree: Path, mutant: Mutant) -> Kill:
    """Break the rule and run the checks until one notices."""
    started = time.monotonic()
    with mutated(tree, mutant):
        for check in mutant.checks:
            complaint = run_check(tree, check)
            if complaint is not None:
                return Kill(mutant, check, complaint, time.monotonic() - started)
    return Kill(mutant, None, "", time.monotonic() - started)


def try_all(mutants: Sequence[Mutant], jobs: int) -> Iterator[Kill]:
    """Each mutant's end, in the order of the list; `jobs` copies of the tree side by side."""
    with tempfile.TemporaryDirectory(prefix="assay-mutants-") as folder:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(jobs):
            tree = Path(folder) / str(number)
            tree.mkdir()
            copy_tree(tree)
            trees.put(tree)
        # A check that fails without any mutant would kill them all and say nothing.
        first = trees.get()
        for check in sorted({check for mutant in mutants for check in mutant.checks}):
            complaint = run_check(first, check)
            if complaint is not None:
                raise BadMutantError(f"without a mutant `{check}` fails already: {complaint}")
        trees.put(first)

        def use_a_tree(mutant: Mutant) -> Kill:
            tree = trees.get()
            try:
                return try_mutant(tree, mutant)
            finally:
                trees.put(tree)

        with ThreadPoolExecutor(jobs) as pool:
            yield from pool.map(use_a_tree, mutants)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/mutants", description="Break a rule and see which check notices."
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--list", action="store_true", help="print the mutants and the rules they break")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at once (default: one a core)")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in MUTANTS]
    if unknown or options.jobs < 1:
        print(f"scripts/mutants: no mutant is called {unknown}; --list names them", file=sys.stderr)
        return 2
    mutants = [MUTANTS[name] for name in options.names or MUTANTS]
    if options.list:
        for mutant in mutants:
            print(f"{mutant.name:28} {mutant.breaks}")
        return 0
    survivors = []
    try:
        for kill in try_all(mutants, min(options.jobs, len(mutants))):
            if kill.check is None:
                survivors.append(kill.mutant.name)
                print(
                    f"SURVIVES {kill.mutant.name:28} {kill.seconds:5.1f} s  {kill.mutant.breaks}", flush=True
                )
            else:
                print(
                    f"killed   {kill.mutant.name:28} {kill.seconds:5.1f} s  {kill.check.split()[0]}: {kill.complaint}",
                    flush=True,
                )
    except BadMutantError as error:
        print(f"scripts/mutants: {error}", file=sys.stderr)
        return 2
    print(f"{len(mutants) - len(survivors)} of {len(mutants)} killed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
