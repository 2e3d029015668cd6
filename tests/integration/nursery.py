"""A warm parent that forks nodes on request, as `assay localnet` does for its own: 0.1 s instead of one.

    python -m tests.integration.nursery FOLDER        one JSON request a line, one JSON answer a line
    {"start": HOME} -> pid       {"poll": pid} -> exit code, or null while it runs

Invariant: one thread and no loop before a fork; when its input ends, because the test did, so do its children.
FOLDER only names the network in the list of processes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from node import process

POLL_S = 0.02


class ForkedNode:
    """A node that the nursery forked; what a test needs of `subprocess.Popen`."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self.pid = pid
        self._nursery = nursery
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None:
            self._code = self._nursery.ask({"poll": self.pid})
        return self._code

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"node {self.pid}", timeout)
            time.sleep(POLL_S)
        return code

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)


class Nursery:
    """The test's side."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.nursery", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def start(self, home: Path) -> ForkedNode:
        return ForkedNode(self, self.ask({"start": str(home)}))

    def ask(self, request: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=30)


def fork(home: Path) -> int:
    """Fork a node; its process id. Like `node.localnet`, whose children no test can start again."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)  # the test's pipes are the nursery's alone
        os.dup2(null, 1)
        code = process.run_node(home, lambda _: None, log_to_file=True)
    except BaseException as error:
        print(f"{home.name} ended: {error!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def main() -> None:
    codes: dict[int, int | None] = {}
    answer: int | None
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            pid = answer = fork(Path(request["start"]))
            codes[pid] = None
        else:
            pid = request["poll"]
            if codes[pid] is None:
                ended, status = os.waitpid(pid, os.WNOHANG)
                codes[pid] = os.waitstatus_to_exitcode(status) if ended else None
            answer = codes[pid]
        print(json.dumps(answer), flush=True)
    for pid, code in codes.items():
        if code is None and not os.waitpid(pid, os.WNOHANG)[0]:
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
