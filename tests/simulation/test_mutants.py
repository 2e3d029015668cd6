"""The mutant runner: two mutants are killed, a harmless change survives, a stale edit is told."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.mutant_list import MUTANTS, Edit, Mutant
from tests.mutants import ROOT, BadMutantError, apply_edit, main, try_all

CONSENSUS_MD = (
    *("finalize-after-nullify", "nullify-after-finalize", "journal-forgotten", "notarize-unjudged"),
    *("quorum-one-unit-low", "gap-unchecked", "certificates-not-journaled", "own-votes-not-recounted"),
    *("parent-below-final", "leader-off-by-one"),
)


def test_two_mutants_are_killed_and_a_harmless_change_survives() -> None:
    quick = "simulate --runs 8 --loss 0.1 --crashes 0.006 --blackouts 0.2 --jobs 1"
    file = "consensus/bft/pacing.py"
    harmless = Mutant(
        "harmless", "nothing", (Edit(file, "GROWTH_VIEWS: Final = 4", "GROWTH_VIEWS: Final = 5"),), (quick,)
    )
    broken = [replace(MUTANTS[name], checks=(quick,)) for name in ("journal-forgotten", "notarize-unjudged")]
    before = (ROOT / file).read_bytes()
    first, second, third = try_all([*broken, harmless], jobs=1)
    assert "no way back" in first.complaint or "single votes" in first.complaint
    assert "without it" in second.complaint
    assert third.check is None
    assert (ROOT / file).read_bytes() == before


def test_every_edit_fits_the_code_as_it_is() -> None:
    for mutant in MUTANTS.values():
        for edit in mutant.edits:
            assert (ROOT / edit.file).read_text().count(edit.old) == 1, f"{mutant.name}: {edit.old}"
            assert edit.old != edit.new


def test_the_list_holds_the_mutants_of_consensus_md_and_ten_of_each_kind_more() -> None:
    assert set(CONSENSUS_MD) <= set(MUTANTS)
    touched = {
        edit.file for name, mutant in MUTANTS.items() if name not in CONSENSUS_MD for edit in mutant.edits
    }
    assert len(MUTANTS) >= len(CONSENSUS_MD) + 10
    assert {
        "node/engine/journal.py",
        "node/mempool/mempool.py",
        "node/blocks/catch_up.py",
        "consensus/ledger/work.py",
    } <= touched


def test_an_edit_that_fits_nowhere_or_twice_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one\none\n")
    for old in ("one", "two"):
        with pytest.raises(BadMutantError, match=r"a\.py"):
            apply_edit(tmp_path, Edit("a.py", old, "three"))


def test_an_unknown_name_is_bad_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no-such-mutant"]) == 2
    assert "--list" in capsys.readouterr().err
