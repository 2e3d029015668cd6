"""`assay send`: sign a transfer, submit it, and on request wait until it is final (`node/client/sending.py`)."""

from __future__ import annotations

import argparse

from node.client.endpoints import add_api_arguments, add_send_arguments

HELP = "send a transfer: sign it, submit it, wait for it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", required=True, metavar="ADDRESS", help="the receiver (0x and 40 hex digits)")
    parser.add_argument("--amount", required=True, type=int, metavar="N", help="in the smallest unit")
    parser.add_argument(
        "--key", metavar="FILE", help="private key (hex, mode 600); default: --home's first account"
    )
    add_send_arguments(parser)
    add_api_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from consensus import crypto  # imports wait until the command is chosen
    from consensus.codec import check_int
    from node.api.json_reading import read_hex
    from node.client.endpoints import find_key, find_urls
    from node.client.node_client import run_with_client
    from node.client.sending import Draft, send, show_report
    from node.config import parse_duration_ms

    receiver = read_hex(args.to, "--to", crypto.ADDRESS_BYTES)
    check_int(args.amount, "--amount")
    for name in ("fee", "nonce"):
        if getattr(args, name) is not None:
            check_int(getattr(args, name), f"--{name}")
    timeout_ms = parse_duration_ms(args.timeout, "--timeout")
    key = find_key(args.key, args.home)
    draft = Draft(receiver, args.amount, fee=args.fee, nonce=args.nonce)
    wait_ms = timeout_ms if args.wait else None
    report = run_with_client(find_urls(args), lambda client: send(client, key, draft, wait_ms))
    return show_report(report, as_json=args.json)
