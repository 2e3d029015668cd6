"""What `assay replay` does around a replay: its arguments, the file, the terminal, the exit code.

Exit code 0 only if no row failed and all nodes agree; 130 when it was interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from consensus import crypto
from consensus.codec import check_int
from consensus.errors import Rejected
from consensus.genesis import Genesis
from consensus.parameters import DAY_MS, Parameters
from ml.dataset import Trace, read_trace
from node import config
from node.client.node_client import check_url
from node.clock import SystemClock
from node.replay.display import Display
from node.replay.http_network import HttpNetwork
from node.replay.session import Replay
from node.replay.settings import ReplayOptions, Watch
from node.replay.summary import describe

INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
RATE_MAX: Final = 1_000_000
DELAY_DAYS_MAX: Final = 3_650

Json = dict[str, Any]
After = Callable[[HttpNetwork, Replay], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a workload goes: nodes, the accounts that fund it, and what is known of the chain beforehand."""

    urls: tuple[str, ...]
    keys: tuple[crypto.PrivateKey, ...]
    parameters: Parameters | None
    reporters: frozenset[bytes] | None
    issuers: frozenset[bytes]  # accounts whose payments are not judged; empty when that is not known


def run_replay(args: argparse.Namespace) -> int:
    check_int(args.rate, "--rate", high=RATE_MAX)
    check_int(args.seed, "--seed", high=2**63 - 1)
    check_int(args.label_delay, "--label-delay", high=DELAY_DAYS_MAX)
    if args.limit is not None:
        check_int(args.limit, "--limit", low=1)
    check_report_path(args.report)
    trace = read_trace([args.workload], read_columns(args.columns), limit=args.limit)
    target = find_target(args.home, args.api, args.key)
    options = ReplayOptions(seed=args.seed, rate_max=args.rate, label_delay_ms=args.label_delay * DAY_MS)
    with Display() as display:
        report = asyncio.run(play(target, trace, options, display.show))
    write_report(report, args.report)
    if args.json:
        print(json.dumps(report))
    else:
        print(describe(report, target.urls))
    return get_exit_code(report)


async def play(
    target: Target, trace: Trace, options: ReplayOptions, watch: Watch, after: After | None = None
) -> Json:
    """Replay, then do what comes `after` while the nodes are still connected. At the first SIGINT or SIGTERM stop in order; at once while nothing was submitted, or at a second."""
    loop = asyncio.get_running_loop()
    async with HttpNetwork(target.urls, target.parameters) as network:
        replay = Replay(
            network, trace, target.keys, options, SystemClock(), watch, target.reporters, target.issuers
        )
        task = asyncio.create_task(replay.run())

        def stop() -> None:
            if replay.stop.is_set() or not replay.outcomes.submitted:
                task.cancel()
            replay.stop.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        try:
            report = await task
            if after is not None:
                await after(network, replay)
            return report
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


def get_exit_code(report: Json) -> int:
    if report["interrupted"]:
        return INTERRUPTED
    return 0 if report["failed"] == 0 and report["nodes_agree"] else 1


def read_columns(text: str) -> dict[str, str]:
    """`t=time,sender=from` as a mapping. Raises Rejected."""
    columns: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        field, equals, name = part.partition("=")
        if not equals or not name or field in columns:
            raise Rejected(
                f'"{part}" is not FIELD=NAME', field="--columns", mend="write it like t=time,sender=from"
            )
        columns[field] = name
    return columns


def find_target(home: str | None, urls: Sequence[str], key: str | None) -> Target:
    """From --home, or from --api and --key. Raises Rejected."""
    if home is None and not urls:
        raise Rejected(
            "no network is given", field="--home", mend="give --home DIR, or --api URL and --key FILE"
        )
    if home is not None and (urls or key is not None):
        raise Rejected("--home and --api exclude each other", field="--home", mend="give one of them")
    if home is not None:
        return read_localnet(Path(home))
    if key is None:
        raise Rejected("is missing", field="--key", mend="name the key file of an account that can fund")
    return Target(tuple(map(check_url, urls)), (config.read_key(Path(key)),), None, None, frozenset())


def read_localnet(folder: Path) -> Target:
    """The network that runs in `folder`, as its localnet.json tells. Raises Rejected."""
    path = folder / "localnet.json"
    mend = f"start it with `assay localnet --home {folder}`"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        urls = tuple(node["api"] for node in document["nodes"])
        homes = [Path(node["home"]) for node in document["nodes"]]
        secrets = [bytes.fromhex(entry["private_key"].removeprefix("0x")) for entry in document["accounts"]]
    except FileNotFoundError:
        raise Rejected("no network is running there", field=str(path), mend=mend) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Rejected(
            f"cannot be read ({type(error).__name__}: {error})", field=str(path), mend=mend
        ) from None
    genesis: Genesis = config.read_genesis(homes[0])
    keys = tuple(map(crypto.PrivateKey.from_bytes, secrets))
    return Target(urls, keys, genesis.parameters, frozenset(genesis.reporters), frozenset(genesis.issuers))


def check_report_path(path: str | None) -> None:
    """Before an hour's work, not after it. Raises Rejected when the report could not be written."""
    if path is not None:
        folder = Path(path).absolute().parent
        if not folder.is_dir() or not os.access(folder, os.W_OK) or Path(path).is_dir():
            raise Rejected("cannot be written there", field=f"--report {path}", mend="choose another place")


def write_report(report: Json, path: str | None) -> None:
    if path is not None:
        config.write_file(Path(path), json.dumps(report, indent=1) + "\n")
        print(f"report written to {path}", file=sys.stderr)
