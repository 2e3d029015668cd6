"""A local network as a person runs it: `assay localnet` in a process of its own, on free ports.

Shared by the integration tests. Waiting is always for something observed, and bounded; processes are
signalled by the ids that the network itself wrote into localnet.json, and none is left behind.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import pytest

from node.__main__ import main
from node.localnet import find_base_port

ASSAY = (sys.executable, "-m", "node")
POLL_S = 0.02


def wait_for(what: str, ask: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first truthy answer; AssertionError when it does not come in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = ask()
        if answer:
            return answer
        time.sleep(POLL_S)  # between two looks, not instead of one
    raise AssertionError(f"{what} did not happen within {seconds} s")


def hold_for(what: str, ask: Callable[[], Any], seconds: float) -> None:
    """AssertionError unless the answer is truthy again and again, for so long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert ask(), f"{what} did not hold for {seconds} s"
        time.sleep(POLL_S)


def get_json(url: str, body: Any = None, timeout: float = 10.0) -> Any:
    """The JSON answer, or None when nobody answers there, or with an error."""
    status, document = request_json(url, None if body is None else json.dumps(body).encode(), timeout=timeout)
    return document if status == 200 else None


def request_json(
    url: str, body: bytes | None = None, media_type: str = "application/json", timeout: float = 10.0
) -> tuple[int, Any]:
    """(HTTP status, JSON document), errors included; (0, None) when nobody answers."""
    request = urllib.request.Request(url, data=body, headers={"Content-Type": media_type})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
    except (OSError, http.client.HTTPException):  # refused, reset, cut off, timed out
        return 0, None


def run_assay(*arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*ASSAY, *arguments], capture_output=True, text=True, timeout=timeout, check=False)


def run_here(capsys: pytest.CaptureFixture[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """The same command line in this process: a second of start less. Not for what forks or stays."""
    code = main(arguments)
    output = capsys.readouterr()
    return subprocess.CompletedProcess(arguments, code, output.out, output.err)


def assert_one_line(result: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """The command ended with `code` and one line on stderr that holds these words."""
    lines = result.stderr.splitlines()
    assert result.returncode == code, (result.returncode, result.stdout, result.stderr)
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("assay: "), lines
    for word in words:
        assert word in lines[0], (word, lines[0])


def find_processes(home: Path) -> list[int]:
    """Processes that were started for this folder: of localnet, its nodes and their workers."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z" and any(word.startswith(os.fsencode(home)) for word in words):
                    found.append(int(entry.name))
    return found


class Started(Protocol):
    """A process of a node that was started again: a part of `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float) -> int: ...

    def terminate(self) -> None: ...


class NetworkProcess:
    """`assay localnet` running; `with NetworkProcess(folder) as network:` ends it whatever happens."""

    def __init__(self, home: Path, *options: str, nodes: int = 4) -> None:
        self.home = home
        self.nodes = nodes
        self._options = list(options)
        self._restarted: dict[int, Started] = {}
        self.base_port = find_base_port(nodes)
        self.output = ""  # of localnet, once it has ended
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> NetworkProcess:
        made_once = ["--nodes", str(self.nodes), "--base-port", str(self.base_port)]
        self.start(*made_once, *self._options)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            for pid in find_processes(self.home):  # of a test that failed half way
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def start(self, *options: str) -> None:
        """Start `assay localnet`; returns when it says that it is up."""
        (self.home / "localnet.json").unlink(missing_ok=True)  # that of one that was killed says nothing
        self._process = subprocess.Popen(
            [*ASSAY, "localnet", "--home", str(self.home), *options],
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
    def pid(self) -> int:
        """Of localnet itself."""
        assert self._process is not None
        return self._process.pid

    @property
    def description(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.home / "localnet.json").read_text())
        return document

    def get_home(self, index: int) -> Path:
        return self.home / f"node{index}"

    def get_api(self, index: int) -> str:
        return f"http://127.0.0.1:{self.base_port + 10 * index + 1}"

    def get_status(self, index: int) -> Any:
        return get_json(self.get_api(index) + "/v1/status")

    def get_height(self, index: int) -> int:
        status = self.get_status(index)
        return -1 if status is None else int(status["finalized"]["height"])

    def get_block_hash(self, index: int, height: int) -> str | None:
        block = get_json(f"{self.get_api(index)}/v1/blocks/{height}")
        return None if block is None or not block["final"] else str(block["hash"])

    def wait_height(self, height: int, seconds: float = 60.0) -> None:
        """Until every node has this height final, and the same block there."""
        for index in range(self.nodes):
            wait_for(
                f"height {height} on node {index}",
                lambda index=index: self.get_height(index) >= height,
                seconds,
            )
        hashes = {self.get_block_hash(index, height) for index in range(self.nodes)}
        assert len(hashes) == 1, hashes
        assert None not in hashes

    def wait_connected(self, index: int, peers: int) -> None:
        """Until this node counts so many peers."""
        wait_for(f"{peers} peers of node {index}", lambda: self.get_status(index)["peers"] >= peers)

    def get_pid(self, index: int) -> int:
        if index in self._restarted:
            return self._restarted[index].pid
        return int(self.description["nodes"][index]["pid"])

    def kill(self, index: int) -> None:
        """kill -9 of one node that this network started."""
        os.kill(self.get_pid(index), signal.SIGKILL)
        self.wait_ended(index)

    def wait_ended(self, index: int, seconds: float = 30.0) -> None:
        """Until a node is gone that was told to go; AssertionError when that is known to have gone badly."""
        if index in self._restarted:
            code = self._restarted.pop(index).wait(seconds)
            assert code in (0, -signal.SIGKILL), f"node {index} ended with {code}"
        pid = None if self._process is None else self.description["nodes"][index]["pid"]
        wait_for(
            f"the end of node {index}",
            lambda: self.get_status(index) is None and pid not in find_processes(self.home),
            seconds,
        )

    def restart(self, index: int) -> None:
        """`assay node --home` for a node that ended; its log goes on in its node.log."""
        self.spawn(index)
        wait_for(f"node {index}", lambda: self.is_up(index))

    def is_up(self, index: int) -> bool:
        """Whether a node that was started again answers; AssertionError when it has ended instead."""
        code = self._restarted[index].poll()
        assert code is None, f"node {index} ended with {code}: {self.read_log(index)[-2000:]}"
        return self.get_status(index) is not None

    def spawn(self, index: int) -> None:
        """The same, without waiting for its answer."""
        self._restarted[index] = self._launch(index)

    def _launch(self, index: int) -> Started:
        with open(self.get_home(index) / "node.log", "ab") as log:
            return subprocess.Popen(
                [*ASSAY, "node", "--home", str(self.get_home(index))],
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )

    def stop_node(self, index: int) -> int:
        """SIGTERM to a node that `restart` started, and its exit code."""
        process = self._restarted.pop(index)
        process.terminate()
        return process.wait(timeout=30)

    def tell_state(self) -> str:
        """For who must understand a failure: where each node stands, and the last that it said."""
        told = []
        for index in range(self.nodes):
            status = self.get_status(index)
            if status is None:
                told.append(f"node {index} does not answer")
            else:
                heights = (status["head"]["height"], status["finalized"]["height"])
                told.append(f"node {index}: head {heights[0]}, final {heights[1]}, view {status['view']}")
            with contextlib.suppress(OSError):
                told += [f"  {line[:300]}" for line in self.read_log(index).splitlines()[-8:]]
        return "\n".join(told)

    def read_log(self, index: int) -> str:
        return (self.get_home(index) / "node.log").read_text()

    def stop(self) -> int:
        """Ctrl-C, and the exit code of localnet."""
        for process in self._restarted.values():
            process.terminate()
        for process in self._restarted.values():
            process.wait(timeout=30)
        self._restarted.clear()
        localnet, self._process = self._process, None
        if localnet is None:
            return 0
        if localnet.poll() is None:
            localnet.send_signal(signal.SIGINT)
        self.output = localnet.communicate(timeout=60)[0]
        return localnet.returncode

    def _close_nursery(self) -> None:
        """For a network whose nodes are started again by another process: end that."""

    def kill_all(self, running: Iterable[int] | None = None) -> None:
        """kill -9 of every node (or of those that run, if not all do) and of the parent, at once."""
        pids = [self.get_pid(index) for index in (range(self.nodes) if running is None else running)]
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
        self._close_nursery()
        wait_for("the end of every process", lambda: not find_processes(self.home))
