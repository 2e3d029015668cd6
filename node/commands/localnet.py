"""`assay localnet`: a network of real processes on this machine, in the foreground."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from node.home import Network
    from node.localnet import LocalNetwork

HELP = "start a local network in the foreground; an existing folder goes on where it stopped"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--home", required=True, metavar="DIR", help="folder of the network's homes")
    parser.add_argument("--nodes", type=int, metavar="N", help="validators of a new network (default 4)")
    parser.add_argument("--base-port", type=int, metavar="PORT", help="first port (default 26600)")
    parser.add_argument("--block-interval", metavar="D", help="empty blocks every 250ms, 1s, 2m (default 1s)")
    parser.add_argument("--fresh", action="store_true", help="remove an existing network in DIR first")
    parser.add_argument("--no-refusals", action="store_true", help="score and flag without refusing")
    parser.add_argument(
        "--model", metavar="FILE", help="the fraud model of a new network (default: the one that ships)"
    )
    parser.add_argument("--stakes", metavar="A,B,…", help="stakes of a new network (default: all equal)")
    parser.add_argument(
        "--modules",
        metavar="A,B",
        help='validation modules of a new network (default fraud; "none" judges nothing)',
    )
    parser.add_argument(
        "--epoch-blocks",
        type=int,
        metavar="N",
        help="let validators of a new network change every N blocks; its clock is then real time (default: never)",
    )
    parser.add_argument(
        "--churn-bp",
        type=int,
        metavar="BP",
        help="with --epoch-blocks: how much stake may come and go in an epoch (default 10000, all of it)",
    )
    parser.add_argument(
        "--leader-election",
        choices=("round_robin", "onion"),
        help="of a new network with --epoch-blocks: leaders in turn (default), or drawn from what validators reveal",
    )
    parser.add_argument(
        "--policy",
        action="append",
        default=[],
        metavar="NAME[=CONFIG]",
        help="let every node run this policy module; CONFIG is a JSON file or key=value,…; may be given several times",
    )
    parser.add_argument(
        "--reporting",
        metavar="WAYS",
        help="who may report fraud in a new network: listed (its funded accounts), validators, registered (with a "
        "bond), or some joined by + (default listed)",
    )
    parser.add_argument(
        "--reports-min",
        type=int,
        metavar="N",
        help="how many reporters of a new network must agree before a report counts (default 1)",
    )
    parser.add_argument(
        "--module-room",
        type=int,
        metavar="BYTES",
        help="of every account's row, for models that come later (default: what the first ones need)",
    )
    parser.add_argument(
        "--admin",
        action="store_true",
        help="open admin calls that break nodes (cut links, set clocks wrong); token in each home's admin.token",
    )


def run(args: argparse.Namespace) -> int:
    import gc
    from pathlib import Path

    folder = Path(args.home)
    gc.disable()  # what is imported here stays: to look through it for garbage over and over is in vain
    try:
        network, local = _start(args, folder)
    finally:
        gc.enable()
    from node import localnet, process

    with process.stop_signals() as stop:
        try:
            if not local.wait_ready(stop):
                raise KeyboardInterrupt
            local.write_description(folder)
            print(f"{len(local.processes)} validators are up, home {folder}\n")
            print(localnet.describe(local.processes, network))
            print("\n  Ctrl-C stops the network; the same command goes on with it", flush=True)
            while not stop.wait(0.2):
                for ended in local.reap():
                    words = f"{ended.home.name} (pid {ended.pid}) ended with code {ended.exit_code}"
                    print(f"{words}; start it again with: assay node --home {ended.home}", flush=True)
        finally:
            local.stop(stop.pause)
            (folder / "localnet.json").unlink(missing_ok=True)
    bad = [process.home.name for process in local.processes if process.exit_code != 0]
    print("stopped" if not bad else f"stopped; ended badly: {', '.join(bad)}", flush=True)
    return 1 if bad else 0


def _start(args: argparse.Namespace, folder: Path) -> tuple[Network, LocalNetwork]:
    """The network in `folder`, new or going on, all its nodes forked."""
    from functools import partial

    from node import config, localnet, process
    from node.policies.plan import parse_policy

    policies = tuple(map(parse_policy, args.policy))
    interval_ms = (
        None
        if args.block_interval is None
        else config.parse_duration_ms(args.block_interval, "--block-interval")
    )
    network = _open_or_create(args, folder, interval_ms)
    (folder / "localnet.json").unlink(missing_ok=True)  # it is there only while the network is up
    local = localnet.LocalNetwork(network, partial(process.run_node, log_to_file=True, policies=policies))
    local.start()
    return network, local


def _open_or_create(args: argparse.Namespace, folder: Path, interval_ms: int | None) -> Network:
    import os
    import shutil
    from pathlib import Path

    from consensus.errors import Rejected
    from consensus.parameters import (
        CLOCK_WALL,
        CLOCK_WORKLOAD,
        LEADER_ROUND_ROBIN,
        REPORTING_LISTED,
        WHOLE_BP,
    )
    from node import admin, home, modules
    from node.clock import SystemClock

    model = None if args.model is None else modules.read_model_file(Path(args.model))
    try:
        stakes = tuple(int(text) for text in args.stakes.split(",")) if args.stakes else ()
    except ValueError:
        raise Rejected("must be integers with commas between", field="--stakes") from None
    if args.fresh and folder.exists():
        if any(folder.iterdir()):
            home.check_removable(folder)
        shutil.rmtree(folder)
    if folder.exists() and any(folder.iterdir()):
        network = home.open_network(folder)
        home.check_stopped(
            folder
        )  # before anything of a running network is touched: its settings, localnet.json
        home.check_same_network(network, args.nodes, stakes, refuses=not args.no_refusals, model=model)
        home.check_same_chain(
            network,
            {
                "--modules": None if args.modules is None else _read_module_names(args.modules),
                "--epoch-blocks": args.epoch_blocks,
                "--churn-bp": args.churn_bp,
                "--leader-election": args.leader_election,
                "--reporting": args.reporting,
                "--reports-min": args.reports_min,
                "--module-room": args.module_room,
            },
        )
        home.set_local_settings(network.homes, args.base_port, interval_ms)
        if args.admin:
            for folder_of_node in network.homes:
                admin.write_token(folder_of_node, os.urandom)
        return network
    plan = home.NetworkPlan(
        nodes=(len(stakes) or 4) if args.nodes is None else args.nodes,
        base_port=26600 if args.base_port is None else args.base_port,
        block_interval_ms=1_000 if interval_ms is None else interval_ms,
        refuses=not args.no_refusals,
        module_names=(modules.FRAUD,) if args.modules is None else _read_module_names(args.modules),
        stakes=stakes,
        model=model,
        admin=args.admin,
        epoch_blocks=args.epoch_blocks or 0,
        churn_bp_max=WHOLE_BP if args.churn_bp is None else args.churn_bp,
        leader_election=args.leader_election or LEADER_ROUND_ROBIN,
        reporting=args.reporting or REPORTING_LISTED,
        reports_min=1 if args.reports_min is None else args.reports_min,
        module_room_bytes=args.module_room or 0,
        clock=CLOCK_WALL if args.epoch_blocks else CLOCK_WORKLOAD,
        timestamp_ms=SystemClock().now_ms() if args.epoch_blocks else 0,
    )
    return home.create_network(folder, plan, os.urandom)


def _read_module_names(text: str) -> tuple[str, ...]:
    from consensus.errors import Rejected

    if text == "none":
        return ()
    names = tuple(text.split(","))
    if "" in names:
        raise Rejected(
            "has an empty name", field="--modules", mend='name modules with commas between, or "none"'
        )
    return names
