"""One node as a process: logs, signals, the signature worker, the loop, an orderly end.

Order matters: the worker process is forked before any loop or thread exists. SIGTERM and SIGINT end the
node in order (state checkpoint, goodbye to peers); a Fault ends it at once with code 1, and the journal
and store are such that the next start goes on. Leaves out: what the node does; that is `full_node`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import random
import select
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final

from consensus.errors import AssayError, Fault
from node.admin import open_admin
from node.config import NodeConfig
from node.full_node import FullNode
from node.network.dialer import KnownPeer
from node.network.handshake import Identity
from node.network.links import Links
from node.network.peers import PeerNetwork
from node.network.transport import Handler
from node.node_files import NodeFiles, read_node_files
from node.policies.plan import LoadedPolicy, PolicyPlan, load_policies
from node.signature_worker import SignatureWorker

log = logging.getLogger("assay.process")

_LOG_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class StopSignals:
    """SIGINT and SIGTERM as something to wait for, without a loop."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self.is_set = False

    def fileno(self) -> int:
        """What to select on, beside other descriptors; then ask `wait(0)`."""
        return self._pipe

    def wait(self, seconds: float) -> bool:
        """Whether a signal has come; waits at most this long for one."""
        if not self.is_set:
            self.is_set = bool(select.select([self._pipe], [], [], seconds)[0])
        return self.is_set

    def pause(self, seconds: float) -> None:
        """Let time pass while others end; a second Ctrl-C does not cut it short."""
        select.select([], [], [], seconds)


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Catch SIGINT and SIGTERM for the length of the block."""
    read_end, write_end = os.pipe()

    def note(_number: int, _frame: FrameType | None) -> None:
        os.write(write_end, b".")

    earlier = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield StopSignals(read_end)
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
        os.close(read_end)
        os.close(write_end)


class LogForm(logging.Formatter):
    """Structured logs: `time level logger message key=value …`, or one JSON object a line."""

    def __init__(self, form: str, name: str) -> None:
        super().__init__()
        self._form = form
        self._name = name

    def format(self, record: logging.LogRecord) -> str:
        extra = {key: value for key, value in vars(record).items() if key not in _LOG_FIELDS}
        if self._form == "json":
            document: dict[str, Any] = {
                "time": self.formatTime(record),
                "node": self._name,
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": record.getMessage(),
                **extra,
            }
            if record.exc_info:
                document["traceback"] = self.formatException(record.exc_info)
            return json.dumps(document, default=str)
        pairs = "".join(f" {key}={value}" for key, value in extra.items())
        line = (
            f"{self.formatTime(record)} {self._name} {record.levelname.lower()} "
            f"{record.name.removeprefix('assay.')}: {record.getMessage()}{pairs}"
        )
        return line if not record.exc_info else f"{line}\n{self.formatException(record.exc_info)}"


def start_logging(name: str, form: str, path: Path | None) -> None:
    """Log to `path` (appending), or to stderr when None."""
    handler: logging.Handler = (
        logging.StreamHandler(sys.stderr) if path is None else logging.FileHandler(path, encoding="utf-8")
    )
    handler.setFormatter(LogForm(form, name))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("aiohttp").setLevel(logging.WARNING)
    logging.captureWarnings(True)  # python-ecdsa's, above all: whoever reads the log must see it


def run_node(
    home: Path,
    report_ready: Callable[[str], None],
    lifeline: int | None = None,
    *,
    log_form: str = "text",
    log_to_file: bool = False,
    policies: Sequence[PolicyPlan] = (),
) -> int:
    """Run the node of `home` until a signal; the exit code. Raises AssayError before it is up.

    lifeline: a descriptor to watch; the node stops in order when it reads end of file, for then who
    started it is gone and would never stop it. policies: modules to run after those that node.json names.
    """
    files = read_node_files(home)
    settings = files.settings
    start_logging(settings.name, log_form, home / "node.log" if log_to_file else None)
    worker = SignatureWorker.start() if settings.worker else None
    loaded = load_policies((*settings.policies, *policies))  # after the fork: a module may start threads
    with asyncio.Runner(loop_factory=_LOOP_FACTORY) as runner:
        return runner.run(_serve(files, worker, loaded, report_ready, lifeline))


async def _serve(
    files: NodeFiles,
    worker: SignatureWorker | None,
    policies: Sequence[LoadedPolicy],
    report_ready: Callable[[str], None],
    lifeline: int | None,
) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_abandoned(descriptor: int) -> None:
        loop.remove_reader(descriptor)
        log.warning("who started this node is gone: stopping")
        stop.set()

    if lifeline is not None:
        loop.add_reader(lifeline, on_abandoned, lifeline)
    for number in (signal.SIGTERM, signal.SIGINT):
        # A child of localnet ignores SIGINT: the terminal sends it to the whole group, the parent decides.
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, stop.set)
    admin = open_admin(files.home, files.settings, stop.set)
    rng = random.Random(os.urandom(16))
    node = FullNode(
        files,
        worker=worker,
        rng=rng,
        make_network=partial(_make_network, files.settings, rng, Links() if admin is None else admin.links),
        clock=None if admin is None else admin.clock,
        admin=admin,
        policies=policies,
    )
    quieten_collector()
    try:
        url = await node.start()
        report_ready(url)
        log.info("up", extra={"api": url})
        await node.wait_until(stop)
    finally:
        if node.failed.is_set():  # told before closing meets the same once more
            _log_fault(node.fault)
        await node.close()
    if node.failed.is_set():
        error = node.fault
        if isinstance(error, AssayError):
            raise error
        raise Fault(f"an error of our own: {error!r}", field="node", mend="see the log; report it")
    log.info("stopped")
    return 0


def _log_fault(error: BaseException | None) -> None:
    is_disk = isinstance(error, AssayError) and error.code == "disk"
    # Where in the code a full disk was met helps nobody; of anything else that is what counts.
    log.critical("stopped by a fault: %s", error, exc_info=None if is_disk else error)


def _make_network(
    settings: NodeConfig, rng: random.Random, links: Links, identity: Identity, handler: Handler
) -> PeerNetwork:
    """Sockets, and the peers that node.json names."""
    return PeerNetwork(
        identity,
        handler,
        random_bytes=os.urandom,
        rng=rng,
        known_peers=[
            KnownPeer(peer.name, peer.url, bytes.fromhex(peer.node_key.removeprefix("0x")))
            for peer in settings.peers
        ],
        host=settings.p2p_host,
        port=settings.p2p_port,
        links=links,
    )


def quieten_collector() -> None:
    """Make the cycle collector leave alone what was loaded, and look at the rest less often.

    Nearly everything a node makes is freed by its reference count, while each full collection walks all
    that is pending: with tens of thousands in the mempool a transaction takes 33 to 56 us with Python's
    own thresholds and 23 to 28 us with these.
    """
    gc.collect()
    gc.freeze()
    gc.enable()  # whoever forked this process may have been without
    gc.set_threshold(50_000, 20, 100)


def _find_loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


_LOOP_FACTORY: Final = _find_loop_factory()  # found once, that nodes forked from one parent have it loaded
