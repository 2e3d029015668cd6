"""Clocks, and what the system tells of processes: the one place where the benchmark reads either.

`node.clock` counts whole milliseconds and is handed to a node; a benchmark times what takes a few
microseconds and stands outside any node. Times in seconds; `monotonic_s` is the machine's, so that
moments noted in different processes compare. Processes are read from /proc. Invariant: reads only.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from consensus.errors import Rejected

_PROC: Final = Path("/proc")


def monotonic_s() -> float:
    """Seconds since an arbitrary moment, the same for all processes of this machine."""
    return time.monotonic()


def cpu_s() -> float:
    """CPU seconds that this process has used."""
    return time.process_time()


def pause(seconds: float) -> None:
    """Let time pass while others are being measured. Ctrl-C cuts it short."""
    time.sleep(seconds)


def measure_s(work: Callable[[], object]) -> float:
    """How many seconds `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compute_median(values: Iterable[float]) -> float:
    return statistics.median(values)


def check_proc() -> None:
    """Raises Rejected where the system does not tell about processes."""
    if not (_PROC / "self" / "stat").exists():
        raise Rejected(
            "is needed to read what a process uses", field=str(_PROC), mend="measure this row on Linux"
        )


def read_cpu_seconds(pid: int) -> float:
    """CPU seconds (user and system) of a process so far; 0 when it is gone. To 10 ms."""
    fields = _read_stat(pid)
    return 0.0 if fields is None else (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def read_resident_bytes(pid: int) -> int:
    """The resident set of a process in bytes; 0 when it is gone."""
    fields = _read_stat(pid)
    return 0 if fields is None else int(fields[21]) * os.sysconf("SC_PAGE_SIZE")


def read_own_bytes(pid: int) -> int:
    """Resident bytes that a process shares with no other; 0 when it is gone."""
    try:
        text = (_PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0
    lines = [line.split() for line in text.splitlines()]
    return sum(int(words[1]) * 1024 for words in lines if words[0].startswith("Private_"))


def read_anonymous_bytes(pid: int) -> int:
    """Resident bytes that are no file's pages: what the system cannot drop when memory is short; 0 when it is gone."""
    try:
        text = (_PROC / str(pid) / "status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    lines = [line.split() for line in text.splitlines()]
    return sum(int(words[1]) * 1024 for words in lines if words[0] in ("RssAnon:", "RssShmem:"))


def is_running(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)  # no signal, only the check
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def list_family(pid: int) -> list[int]:
    """A process and all that descend from it, itself first."""
    parents: dict[int, int] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            fields = _read_stat(int(entry.name))
            if fields is not None:
                parents[int(entry.name)] = int(fields[1])
    family = [pid]
    for member in family:
        family += [child for child, parent in parents.items() if parent == member]
    return family


def _read_stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the third on (state, parent, …); None when it is gone."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()
