"""What every test may use: outside data, a seed, and the command that replays a red test.

Hypothesis explores anew on every run; a failure prints its `@reproduce_failure` line. Everything
else draws from `seed`, which is fixed unless ASSAY_SEED says otherwise.
"""

import os
import shlex
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parent.parent
SEED_DEFAULT = 20230463  # any number will do; this one is the ePrint number of the Simplex paper
REPLAY_NOTES = pytest.StashKey[list[str]]()

settings.register_profile(
    "assay",
    deadline=None,  # a busy machine is no bug
    max_examples=60,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("assay")


@pytest.fixture(scope="session")
def shared_path() -> Callable[[str], Path]:
    """`shared_path("vectors/merkle")`: a path of the outside data; skips the test when it is not there."""
    root = Path(os.environ.get("ASSAY_SHARED") or REPOSITORY.parent / "shared")

    def find(relative: str) -> Path:
        path = root / relative
        if not path.exists():
            pytest.skip(f"{path} is missing: point ASSAY_SHARED at the folder that holds {relative}")
        return path

    return find


@pytest.fixture
def seed() -> int:
    """The seed of whatever this test draws; ASSAY_SEED=N tries another."""
    text = os.environ.get("ASSAY_SEED", str(SEED_DEFAULT))
    if not text.isdecimal():
        pytest.fail(f"ASSAY_SEED: {text!r} is not a whole number", pytrace=False)
    return int(text)


@pytest.fixture
def note_replay(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """`note_replay("assay simulate --seed 7")`: shown if the test fails, besides the test's own command."""
    notes: list[str] = request.node.stash.setdefault(REPLAY_NOTES, [])
    return notes.append


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        names = getattr(item, "fixturenames", ())
        chosen = f"ASSAY_SEED={os.environ.get('ASSAY_SEED', SEED_DEFAULT)} " if "seed" in names else ""
        own = f"{chosen}.venv/bin/python -m pytest {shlex.quote(item.nodeid)}"
        report.sections.append(("replay", "\n".join([own, *item.stash.get(REPLAY_NOTES, [])])))
    return report
