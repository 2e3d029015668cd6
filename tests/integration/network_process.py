"""A local network as a person runs it: `assay localnet` in a process of its own, on free ports.

Shared by the integration tests. Waiting is always for something observed, and bounded; processes are
signalled by the ids that the network itself wrote into localnet.json.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

ASSAY = (sys.executable, "-m", "node")
POLL_S = 0.02


def find_base_port(nodes: int) -> int:
    """A base port whose node ports (base + 10 i, + 1) are all free now."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            base = probe.getsockname()[1]
        ports = [base + 10 * i + j for i in range(nodes) for j in (0, 1)]
        if ports[-1] > 65_000:
            continue
        with contextlib.ExitStack() as stack:
            try:
                for port in ports:
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
        return base


def wait_for(what: str, ask: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first truthy answer; AssertionError when it does not come in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = ask()
        if answer:
            return answer
        time.sleep(POLL_S)  # between two looks, not instead of one
    raise AssertionError(f"{what} did not happen within {seconds} s")


def get_json(url: str, body: Any = None) -> Any:
    """The JSON answer, or None when nobody answers there."""
    request = urllib.request.Request(url, headers={"Content-Type": "application/json"})
    if body is not None:
        request.data = json.dumps(body).encode()
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


def run_assay(*arguments: str, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*ASSAY, *arguments], capture_output=True, text=True, timeout=timeout, check=False)


class NetworkProcess:
    """`assay localnet` running; `with NetworkProcess(folder) as network:` ends it whatever happens."""

    def __init__(self, home: Path, *options: str, nodes: int = 4) -> None:
        self.home = home
        self._options = list(options)
        self._nodes = nodes
        self._restarted: dict[int, subprocess.Popen[str]] = {}
        self.base_port = find_base_port(nodes)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> NetworkProcess:
        self.start(is_new=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, *, is_new: bool = False) -> None:
        made_once = ["--nodes", str(self._nodes), "--base-port", str(self.base_port)] if is_new else []
        self._process = subprocess.Popen(
            [*ASSAY, "localnet", "--home", str(self.home), *made_once, *self._options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        wait_for("localnet.json", self._is_up)

    def _is_up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            assert self._process.stdout is not None
            raise AssertionError(f"localnet ended: {self._process.stdout.read()}")
        return (self.home / "localnet.json").exists()

    @property
    def description(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.home / "localnet.json").read_text())
        return document

    def get_api(self, index: int) -> str:
        return f"http://127.0.0.1:{self.base_port + 10 * index + 1}"

    def get_status(self, index: int) -> Any:
        return get_json(self.get_api(index) + "/v1/status")

    def get_height(self, index: int) -> int:
        status = self.get_status(index)
        return -1 if status is None else int(status["finalized"]["height"])

    def get_pid(self, index: int) -> int:
        if index in self._restarted:
            return self._restarted[index].pid
        return int(self.description["nodes"][index]["pid"])

    def kill(self, index: int) -> None:
        """kill -9 of one node that this network started."""
        os.kill(self.get_pid(index), signal.SIGKILL)
        if index in self._restarted:
            self._restarted.pop(index).wait()
        wait_for(f"the end of node {index}", lambda: self.get_status(index) is None)

    def restart(self, index: int) -> None:
        """`assay node --home` for a node that was killed."""
        self._restarted[index] = subprocess.Popen(
            [*ASSAY, "node", "--home", str(self.home / f"node{index}")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        wait_for(f"node {index}", lambda: self.get_status(index))

    def stop(self) -> int:
        """Ctrl-C, and the exit code of localnet."""
        for process in self._restarted.values():
            process.terminate()
        for process in self._restarted.values():
            process.wait(timeout=30)
        self._restarted.clear()
        process = self._process
        if process is None:
            return 0
        self._process = None
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        return process.returncode

    def kill_all(self) -> None:
        """kill -9 of every node and of the parent, at once."""
        pids = [self.get_pid(index) for index in range(self._nodes)]
        process = self._process
        assert process is not None
        for pid in [*pids, process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=60)
        for restarted in self._restarted.values():
            restarted.wait(timeout=30)
        self._restarted.clear()
        self._process = None
        for index in range(self._nodes):
            wait_for(f"the end of node {index}", lambda index=index: self.get_status(index) is None)
