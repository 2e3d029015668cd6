"""The same code in fresh processes that differ in their hash seeds: what they print should be the same."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def print_with_two_hash_seeds(code: str) -> tuple[str, str]:
    """What `code` prints in a process of either seed. Raises CalledProcessError when it fails."""
    first, second = (
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    )
    return first, second
