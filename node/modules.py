"""Which validation modules a chain names, and where their artifacts lie.

A genesis names modules by entry point and digest. An artifact is looked for in the home's models/
folder under the digest it gives, then among those that ship; whatever is found must compute the digest
that genesis pins, so that differing code or data shows at start and not in a vote.

Invariant: nothing outside the state says which model judges. Leaves out: finding a module's code by its
name; `ml.discovery` does that, for ours like for anyone's.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from consensus.errors import Rejected
from consensus.genesis import Genesis, ModuleEntry
from consensus.ledger.rules import Rules
from consensus.ledger.scoring import REFUSE_NEVER, SCORE_MAX, Thresholds, ValidationModule
from ml.discovery import load_module

ARTIFACT_BYTES_MAX: Final = 4_000_000  # four times what a chain takes
FRAUD: Final = "fraud"  # the module whose artifact a user trains
MODULES_KEPT: Final = 4  # those of one chain
THRESHOLDS_DEFAULT: Final = Thresholds(SCORE_MAX // 2, SCORE_MAX)  # of a module that suggests none


def load_modules(genesis: Genesis, home: Path) -> tuple[ValidationModule, ...]:
    """The modules of a chain, in genesis order. Raises Rejected when one is missing or differs."""
    return tuple(
        _load_pinned(entry, _read_artifact(home, entry.digest) or _read_shipped(entry.name))
        for entry in genesis.modules
    )


def make_rules(genesis: Genesis, home: Path) -> Rules:
    """The rules of a chain, with genesis's modules from this home; published ones come from the state."""
    return Rules(genesis, load_modules(genesis, home), load_module)


def find_artifacts(genesis: Genesis, model: bytes | None = None) -> dict[bytes, bytes]:
    """Digest to artifact of every module a genesis names: `model` for the fraud module, or what ships.

    Raises Rejected when one does not compute the digest that genesis pins.
    """
    artifacts = {
        entry.digest: model if model is not None and entry.name == FRAUD else _read_shipped(entry.name)
        for entry in genesis.modules
    }
    for entry in genesis.modules:
        _load_pinned(entry, artifacts[entry.digest])
    return artifacts


def plan_modules(
    names: tuple[str, ...], *, refuses: bool, model: bytes | None = None
) -> tuple[tuple[ModuleEntry, ...], dict[bytes, bytes]]:
    """Genesis entries of modules, with the thresholds each suggests, and their artifacts.

    `model` is the fraud module's artifact; the one that ships when None. Raises Rejected.
    """
    if model is not None and FRAUD not in names:
        raise Rejected("is the fraud module's, which is not among --modules", field="--model")
    entries, artifacts = [], {}
    for name in names:
        artifact = model if model is not None and name == FRAUD else _read_shipped(name)
        module = _load(name, artifact)
        suggested = getattr(module, "thresholds", THRESHOLDS_DEFAULT)
        refuse_min = suggested.refuse_score_min if refuses else REFUSE_NEVER
        entries.append(ModuleEntry(module.name, module.digest, suggested.flag_score_min, refuse_min))
        artifacts[module.digest] = artifact
    return tuple(entries), artifacts


def read_model_file(path: Path) -> bytes:
    """A model that `assay model train` wrote. Raises Rejected; what is in it, the module checks."""
    try:
        if path.stat().st_size > ARTIFACT_BYTES_MAX:
            raise Rejected(f"is larger than {ARTIFACT_BYTES_MAX} bytes", field=str(path))
        return path.read_bytes()
    except OSError as error:
        raise Rejected(
            f"cannot be read ({error.strerror})", field=str(path), mend="name a file of `assay model train`"
        ) from None


def write_artifact(home: Path, digest: bytes, artifact: bytes) -> None:
    (home / "models" / f"{digest.hex()}.model").write_bytes(artifact)


@lru_cache(maxsize=MODULES_KEPT)
def _load(name: str, artifact: bytes) -> ValidationModule:
    """Modules are pure: of the same bytes one serves all, and whoever is forked later has it already."""
    return load_module(name, artifact)


def _load_pinned(entry: ModuleEntry, artifact: bytes) -> ValidationModule:
    module = _load(entry.name, artifact)
    if module.digest != entry.digest:
        raise Rejected(
            f"computes digest 0x{module.digest.hex()}, the chain pins 0x{entry.digest.hex()}",
            field=f"module {entry.name}",
            mend="put the chain's artifact into models/ of the home, or install the version that made it",
        )
    return module


def _read_artifact(home: Path, digest: bytes) -> bytes:
    path = home / "models" / f"{digest.hex()}.model"
    if not path.is_file():
        return b""
    if path.stat().st_size > ARTIFACT_BYTES_MAX:
        raise Rejected(f"is larger than {ARTIFACT_BYTES_MAX} bytes", field=str(path))
    return path.read_bytes()


def _read_shipped(name: str) -> bytes:
    """The artifact that ships for a module; b"" for one that needs none."""
    shipped = files("ml") / "models" / f"{name}.model"
    return shipped.read_bytes() if shipped.is_file() else b""
