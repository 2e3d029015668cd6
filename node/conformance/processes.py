"""The same stream in other processes: `python -m node.conformance.processes NAME SEED < ARTIFACT`.

Each process differs from this one in what must not matter: the seed of hashes, the number of threads of
numeric libraries, the CPU features that numpy may use. Invariant: what a child prints is a digest over the
module's own digest and all it answered, or one line that says why there is none.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any, Final

import numpy as np

from consensus.errors import AssayError
from ml.discovery import load_module
from node.conformance.playing import NonConforming, play
from node.conformance.stream import make_stream

SECONDS_MAX: Final = 120  # for one process, on a machine that is busy with others
THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def list_variants() -> dict[str, dict[str, str]]:
    """What is set in each process's environment, by a name for people."""
    variants = {
        "hash seed 1, one thread": {"PYTHONHASHSEED": "1", **dict.fromkeys(THREAD_VARIABLES, "1")},
        "hash seed 77, four threads": {"PYTHONHASHSEED": "77", **dict.fromkeys(THREAD_VARIABLES, "4")},
    }
    features = " ".join(list_cpu_features())
    if features:
        variants["numpy without " + features.lower()] = {"NPY_DISABLE_CPU_FEATURES": features}
    return variants


def list_cpu_features() -> tuple[str, ...]:
    """Those beyond its baseline that numpy uses on this machine, and can be told not to use."""
    core: Any = np._core._multiarray_umath  # type: ignore[attr-defined]  # numpy has no public name for it
    used = core.__cpu_features__
    return tuple(name for name in core.__cpu_dispatch__ if used.get(name))


def compare_processes(name: str, artifact: bytes, seed: int, expected: bytes) -> str:
    """What was tried. Raises NonConforming with the first process that answers otherwise."""
    variants = list_variants()
    for words, variables in variants.items():
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **variables}
        # Numpy warns of features that it leaves out, and a module's own warnings are its affair.
        command = [sys.executable, "-W", "ignore", "-m", __name__, name, str(seed)]
        try:
            done = subprocess.run(
                command,
                input=artifact,
                env=environment,
                capture_output=True,
                timeout=SECONDS_MAX,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise NonConforming(f"a process with {words} does not end within {SECONDS_MAX} s") from None
        if done.returncode:
            last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise NonConforming(f"a process with {words} fails: {' '.join(last)}")
        if done.stdout.strip() != expected.hex().encode():
            raise NonConforming(f"a process with {words} answers otherwise")
    return f"{len(variants)} processes: {'; '.join(variants)}"


def main(arguments: list[str]) -> int:
    name, seed = arguments
    try:
        module = load_module(name, sys.stdin.buffer.read())
        print((module.digest + play(module, make_stream(int(seed))).digest).hex())
    except (AssayError, NonConforming) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
