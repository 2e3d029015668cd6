"""`assay init`: the home of one node by hand, with a genesis of its own or somebody else's."""

from __future__ import annotations

import argparse

HELP = "make the home of one node by hand; without --genesis it founds a chain of one validator"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--home", required=True, metavar="DIR", help="the folder to make (absent or empty)")
    parser.add_argument("--genesis", metavar="FILE", help="join this chain instead of founding one")
    parser.add_argument("--chain-id", metavar="TEXT", help="name of a new chain (default: random)")
    parser.add_argument("--name", default="node", help="the node's name (default: node)")
    parser.add_argument("--p2p-port", type=int, default=26600, metavar="PORT")
    parser.add_argument("--api-port", type=int, default=26601, metavar="PORT")
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME,URL,NODE_KEY",
        help="a peer to dial, e.g. node1,ws://127.0.0.1:26610,0x02…; may be given several times",
    )
    parser.add_argument("--block-interval", default="1s", metavar="D", help="250ms, 1s, 2m (default 1s)")
    parser.add_argument(
        "--clock",
        choices=("wall", "workload"),
        default="wall",
        help="of a new chain: real time (default) or the time of the replayed transactions",
    )
    parser.add_argument(
        "--epoch-blocks",
        type=int,
        default=0,
        metavar="N",
        help="of a new chain: let its validators change every N blocks (default 0: never)",
    )
    parser.add_argument(
        "--leader-election",
        choices=("round_robin", "onion"),
        default="round_robin",
        help="of a new chain with --epoch-blocks: leaders in turn (default), or drawn from what validators reveal",
    )
    parser.add_argument(
        "--module-room",
        type=int,
        default=0,
        metavar="BYTES",
        help="of a new chain: of every account's row, for models that come later (default: what the first one needs)",
    )
    parser.add_argument("--model", metavar="FILE", help="the fraud model (default: the one that ships)")
    parser.add_argument("--no-refusals", action="store_true", help="score and flag without refusing")


def run(args: argparse.Namespace) -> int:
    import os
    from pathlib import Path

    from consensus.errors import Rejected
    from node import config, home, modules
    from node.clock import SystemClock

    peers = []
    for text in args.peer:
        parts = text.split(",")
        if len(parts) != 3:
            raise Rejected(f'"{text}" is not NAME,URL,NODE_KEY', field="--peer")
        peers.append(config.check_peer(config.PeerConfig(*parts), "--peer"))
    settings = config.NodeConfig(
        name=args.name,
        p2p_port=args.p2p_port,
        api_port=args.api_port,
        peers=tuple(peers),
        block_interval_ms=config.parse_duration_ms(args.block_interval, "--block-interval"),
    )
    made = home.create_home(
        Path(args.home),
        settings,
        genesis_path=None if args.genesis is None else Path(args.genesis),
        chain_id=args.chain_id,
        clock=args.clock,
        refuses=not args.no_refusals,
        model=None if args.model is None else modules.read_model_file(Path(args.model)),
        timestamp_ms=SystemClock().now_ms(),
        random_bytes=os.urandom,
        epoch_blocks=args.epoch_blocks,
        leader_election=args.leader_election,
        module_room_bytes=args.module_room,
    )
    print(f"home       {args.home}")
    print(f"chain      {made.chain_id}  genesis digest 0x{made.digest.hex()}")
    print(f"validators {len(made.validators)}")
    node_key = config.read_key(Path(args.home) / "node.key").public_key
    url = f"ws://{settings.p2p_host}:{settings.p2p_port}"
    print(f"others dial it with: --peer {args.name},{url},0x{node_key.hex()}")
    print(f"start with: assay node --home {args.home}")
    return 0
