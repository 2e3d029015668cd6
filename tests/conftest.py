"""What every test may use: outside data, a seed, and the command that replays a red test.

Hypothesis explores anew on every run; a failure prints its `@reproduce_failure` line. Everything
else draws from `seed`, which is fixed unless ASSAY_SEED says otherwise, or from `fresh_seed`, which is
another one in every session and told in the report's first lines.
"""

import os
import random
import shlex
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from consensus.ledger.kinds import KIND_BY_NUMBER
from consensus.ledger.work import Work

REPOSITORY = Path(__file__).resolve().parent.parent
SEED_DEFAULT = 20230463  # any number will do; this one is the ePrint number of the Simplex paper
REPLAY_NOTES = pytest.StashKey[list[str]]()
FRESH_SEED = pytest.StashKey[int]()

settings.register_profile(
    "assay",
    deadline=None,  # a busy machine is no bug
    max_examples=60,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("assay")


class _TimelessWork(Work):
    """What an effect sees of a block: all but its time, which may still rise while the block is built."""

    @property
    def timestamp_ms(self) -> int:  # type: ignore[override]
        raise AssertionError(
            "an effect reads the block's time: whoever builds and whoever judges would differ"
        )


def _apply_timelessly(apply: Callable[..., None], kind: object, tx: object, work: Any) -> None:
    usual = work.__class__
    work.__class__ = _TimelessWork
    try:
        apply(kind, tx, work)
    finally:
        work.__class__ = usual


@pytest.fixture(scope="session", autouse=True)
def _effects_are_timeless() -> Generator[None, None, None]:
    """In every test that executes a transaction here, whatever its kind."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in {type(kind) for kind in KIND_BY_NUMBER.values()}:
            apply = partial(_apply_timelessly, kind.apply)
            patch.setattr(kind, "apply", lambda *arguments, _apply=apply: _apply(*arguments))
        yield


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
def fresh_seed(pytestconfig: pytest.Config) -> int:
    """A seed that nobody tried before; ASSAY_SEED=N repeats one."""
    return pytestconfig.stash[FRESH_SEED]


def pytest_configure(config: pytest.Config) -> None:
    text = os.environ.get("ASSAY_SEED", "")
    drawn = int(text) if text.isdecimal() else random.SystemRandom().randrange(1 << 40)
    # Workers are told what the session drew.
    config.stash[FRESH_SEED] = getattr(config, "workerinput", {}).get("fresh_seed", drawn)


class _Sharing(LoadScopeScheduling):
    """With `-n`: networks of processes one at a time, on one worker; everything else file by file beside them.

    But for the long run, which waits more than it works.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        is_network = file.startswith("tests/integration/") and not file.endswith("/test_long_run.py")
        return "networks" if is_network else file


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["fresh_seed"] = node.config.stash[FRESH_SEED]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Sharing:
    config.option.loadscopereorder = False  # the networks' tests take longest: they come early
    return _Sharing(config, log)


def pytest_report_header(config: pytest.Config) -> str:
    return f"fresh seed: {config.stash[FRESH_SEED]} (ASSAY_SEED={config.stash[FRESH_SEED]} repeats it)"


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
        if "fresh_seed" in names:
            chosen = f"ASSAY_SEED={item.config.stash[FRESH_SEED]} "
        own = f"{chosen}.venv/bin/python -m pytest {shlex.quote(item.nodeid)}"
        for fixture in getattr(item, "funcargs", {}).values():
            if hasattr(fixture, "tell_state"):  # a network of processes: what it was doing
                report.sections.append(("network", fixture.tell_state()))
        report.sections.append(("replay", "\n".join([own, *item.stash.get(REPLAY_NOTES, [])])))
    return report
