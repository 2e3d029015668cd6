"""A whole local network: one process per node, forked from one warm parent, stopped together.

The parent imports the stack once (0.4 s of CPU) and forks before any loop or thread exists, so that
four nodes are up in well under a second. It watches its children and restarts none: a node that dies
is a fact to study. localnet.json appears when every node answers, and not before.

Invariant: only processes started here are signalled, and none outlives the parent for long: each child
watches a pipe that only the parent holds open, and stops in order when even a killed parent lets go of
it. Leaves out: networks over many machines.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from consensus.errors import AssayError, Fault, Rejected
from node import config
from node.home import PORT_STEP, Network
from node.modules import make_rules
from node.process import StopSignals

START_SECONDS_MAX: Final = 120  # re-executing what a checkpoint does not cover may take a while
PORT_MIN, PORT_MAX = (
    10_000,
    32_000,
)  # Linux gives away those from 32,768 on, the IANA's convention begins at 49,152
PORT_TRIES: Final = 200
STOP_SECONDS_MAX: Final = 10  # a node writes a checkpoint and closes; then it is killed

# (home, report_ready(url), lifeline) -> exit code; lifeline: a descriptor that reads end of file once the
# parent is gone.
RunNode = Callable[[Path, Callable[[str], None], int], int]


@dataclass(slots=True)
class NodeProcess:
    """A child: its home, process id, and its end of the pipe it reports readiness through."""

    home: Path
    pid: int
    pipe: int
    ready: str = ""  # its API's base URL, once it serves
    exit_code: int | None = None


class LocalNetwork:
    """The children of this process. `run_node(home, report_ready, lifeline)` is what each one executes."""

    def __init__(self, network: Network, run_node: RunNode) -> None:
        self._network = network
        self._run_node = run_node
        self._genesis_hash = b""
        self.processes: list[NodeProcess] = []
        # Nothing is ever written to it: its writing end is closed by the end of this process, however it ends.
        self._lifeline, self._lifeline_held = os.pipe()

    def start(self) -> None:
        """Fork all nodes. Raises Rejected when a port is taken, before anything is forked."""
        # Also warms this process up: what is imported and loaded here, the children share.
        home = self._network.homes[0]
        genesis = config.read_genesis(home)
        rules = make_rules(genesis, home)
        self._genesis_hash = rules.create_genesis_state().header.hash
        for home in self._network.homes:
            settings = config.read_config(home)
            check_port_free(settings.p2p_host, settings.p2p_port)
            check_port_free(settings.api_host, settings.api_port)
        sys.stdout.flush()
        sys.stderr.flush()
        gc.freeze()  # or each child's first collection looks through all this, and copies its pages
        for home in self._network.homes:
            self.processes.append(self._fork(home))

    def _fork(self, home: Path) -> NodeProcess:
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid:
            os.close(write_end)
            return NodeProcess(home, pid, read_end)
        # The child: no return from here. Only our own pipe stays open.
        code = 1
        try:
            os.close(read_end)
            os.close(self._lifeline_held)
            for process in self.processes:
                os.close(process.pipe)
            # Ctrl-C reaches the whole foreground group; the parent alone decides when to stop.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not the parent's way, until the node has its own
            code = self._run_node(home, lambda url: _report(write_end, url), self._lifeline)
        except AssayError as error:
            print(f"assay: {home.name}: {error}", file=sys.stderr)
            _report(write_end, f"!{error}")
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def wait_ready(self, stop: StopSignals) -> bool:
        """Until every node serves; False when a signal to stop comes before.

        Raises Fault when a node ends before, or none answers in time.
        """
        waiting = {process.pipe: process for process in self.processes}
        while waiting:
            readable, _, _ = select.select([stop.fileno(), *waiting], [], [], START_SECONDS_MAX)
            if stop.wait(0):
                return False
            if not readable:
                names = ", ".join(process.home.name for process in waiting.values())
                raise Fault(f"not ready after {START_SECONDS_MAX} s", field=names, mend="see its log")
            for pipe in readable:
                process = waiting.pop(pipe)
                text = os.read(pipe, 4096).decode()
                if not text.startswith("http"):
                    reason = text.removeprefix("!") or "it ended while starting"
                    raise Fault(reason, field=process.home.name, mend="see its node.log")
                process.ready = text
        return True

    def write_description(self, folder: Path) -> None:
        """localnet.json: endpoints, process ids and funded keys, mode 0600."""
        genesis = config.read_genesis(self._network.homes[0])
        nodes = []
        for process in self.processes:
            settings = config.read_config(process.home)
            key_path = process.home / "validator.key"
            nodes.append(
                {
                    "name": settings.name,
                    "home": str(process.home.resolve()),
                    "api": process.ready,
                    "p2p": f"ws://{settings.p2p_host}:{settings.p2p_port}",
                    "pid": process.pid,
                    "address": "0x" + config.read_key(key_path).address.hex(),
                }
            )
        balances = dict(genesis.accounts)
        document = {
            "chain_id": genesis.chain_id,
            "genesis_hash": "0x" + self._genesis_hash.hex(),
            "nodes": nodes,
            "accounts": [
                {
                    "address": "0x" + key.address.hex(),
                    "private_key": "0x" + key.secret.hex(),
                    "balance": balances[key.address],
                    "issuer": key.address in genesis.issuers,
                }
                for key in self._network.accounts
            ],
        }
        config.write_file(folder / "localnet.json", json.dumps(document, indent=1) + "\n", mode=0o600)

    def reap(self) -> list[NodeProcess]:
        """Children that ended since the last call."""
        ended = []
        for process in self.processes:
            if process.exit_code is None:
                pid, status = os.waitpid(process.pid, os.WNOHANG)
                if pid:
                    process.exit_code = os.waitstatus_to_exitcode(status)
                    ended.append(process)
        return ended

    def stop(self, wait: Callable[[float], None]) -> None:
        """SIGTERM to every child, SIGKILL to those that do not end in time. `wait(seconds)` sleeps."""
        self._signal(signal.SIGTERM)
        for _ in range(STOP_SECONDS_MAX * 20):
            self.reap()
            if all(process.exit_code is not None for process in self.processes):
                break
            wait(0.05)
        else:
            self._signal(signal.SIGKILL)
        for process in self.processes:
            if process.exit_code is None:
                _, status = os.waitpid(process.pid, 0)
                process.exit_code = os.waitstatus_to_exitcode(status)
            os.close(process.pipe)

    def _signal(self, number: signal.Signals) -> None:
        for process in self.processes:
            if process.exit_code is None:
                os.kill(process.pid, number)


def check_port_free(host: str, port: int) -> None:
    """Raises Rejected when somebody listens there already."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Rejected(
                f"port {port} on {host} cannot be used ({error.strerror})",
                field="port",
                mend="stop what listens there, or choose another with --base-port",
            ) from None


def find_base_port(nodes: int) -> int:
    """A port from which on a local network's ports are free now. Raises Fault when there is none.

    Below those that the system gives to outgoing connections: such a one may take a port before its node
    does, or while that is down for a moment.
    """
    chance = random.SystemRandom()
    for _ in range(PORT_TRIES):
        base = chance.randrange(PORT_MIN, PORT_MAX - PORT_STEP * nodes)
        try:
            for i in range(nodes):
                check_port_free("127.0.0.1", base + PORT_STEP * i)
                check_port_free("127.0.0.1", base + PORT_STEP * i + 1)
        except Rejected:
            continue
        return base
    raise Fault("no free ones found", field="ports", mend="stop some of the programs that listen")


def describe(processes: Sequence[NodeProcess], network: Network) -> str:
    """What a person wants to see when the network is up."""
    lines = [f"  {p.home.name:8} {p.ready}  pid {p.pid}" for p in processes]
    lines += ["", "  funded accounts (keys in localnet.json)"]
    lines += [f"    0x{key.address.hex()}" for key in network.accounts[:3]]
    lines.append(f"    and {len(network.accounts) - 3} more")
    return "\n".join(lines)


def _report(pipe: int, text: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # the parent is gone: the lifeline says so too
        os.write(pipe, text.encode()[:4096])
    os.close(pipe)
