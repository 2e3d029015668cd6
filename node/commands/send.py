"""`assay send`: sign a transfer, submit it, and on request wait until it is final.

Nonce, time, expiry and fee come from the node: the account's next nonce (above its waiting ones: two
sends in a row are two transfers), the chain's own clock, the
longest lifetime the chain allows and its smallest fee. The key never leaves this process.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING, Any

from node.endpoints import add_api_arguments

if TYPE_CHECKING:
    from consensus.crypto import PrivateKey
    from node.client import NodeClient

HELP = "send a transfer: sign it, submit it, wait for it"

POLL_S = 0.1  # a tenth of the default block interval


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", required=True, metavar="ADDRESS", help="the receiver (0x and 40 hex digits)")
    parser.add_argument("--amount", required=True, type=int, metavar="N", help="in the smallest unit")
    parser.add_argument(
        "--key", metavar="FILE", help="private key (hex, mode 600); default: --home's first account"
    )
    parser.add_argument("--fee", type=int, metavar="N", help="default: the chain's smallest")
    parser.add_argument("--nonce", type=int, metavar="N", help="default: the account's next")
    parser.add_argument("--wait", action="store_true", help="until it is final, refused or expired")
    parser.add_argument("--timeout", default="30s", metavar="D", help="how long --wait waits (default 30s)")
    add_api_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from consensus import crypto  # imports wait until the command is chosen
    from consensus.codec import check_int
    from node.api.json_reading import read_hex
    from node.client import run_with_client
    from node.config import parse_duration_ms
    from node.display import describe_score, print_fields, print_json
    from node.endpoints import find_key, find_urls

    receiver = read_hex(args.to, "--to", crypto.ADDRESS_BYTES)
    check_int(args.amount, "--amount")
    for name in ("fee", "nonce"):
        if getattr(args, name) is not None:
            check_int(getattr(args, name), f"--{name}")
    timeout_ms = parse_duration_ms(args.timeout, "--timeout")
    key = find_key(args.key, args.home)
    report = run_with_client(find_urls(args), lambda client: _send(client, key, receiver, args, timeout_ms))
    if args.json:
        print_json(report)
    else:
        place = None if report["height"] is None else f"block {report['height']}, index {report['index']}"
        print_fields(
            [
                ("transaction", report["id"]),
                ("status", report["status"]),
                ("place", place),
                ("score", describe_score(report["score"], report["outcome"])),
                ("reason", report["reason"]),
            ]
        )
    # `refused` and `rejected` are answers, and yet not what was asked for.
    return 0 if report["status"] in ("accepted", "pending", "final") else 1


async def _send(
    client: NodeClient, key: PrivateKey, receiver: bytes, args: argparse.Namespace, timeout_ms: int
) -> dict[str, Any]:
    from consensus.transaction import sign_transaction

    status = await client.get_status()
    nonce = args.nonce if args.nonce is not None else (await client.get_account(key.address)).nonce_pending
    parameters = status.parameters
    tx = sign_transaction(
        key,
        status.chain_id,
        nonce=nonce,
        receiver=receiver,
        amount=args.amount,
        fee=args.fee if args.fee is not None else parameters["fee_units_min"],
        timestamp_ms=status.clock_ms,
        expires_ms=status.clock_ms + parameters["lifetime_ms_max"],
    )
    (receipt,) = await client.submit([tx.raw])
    report: dict[str, Any] = {
        "id": "0x" + tx.id.hex(),
        "status": receipt.outcome,
        "height": None,
        "index": None,
        "score": receipt.score,
        "outcome": None,
        "reason": receipt.reason or None,
    }
    if not args.wait or receipt.outcome != "accepted":
        return report
    return await _wait(client, tx.id, report, timeout_ms)


async def _wait(
    client: NodeClient, transaction_id: bytes, report: dict[str, Any], timeout_ms: int
) -> dict[str, Any]:
    from consensus.errors import NotYet

    try:
        async with asyncio.timeout(timeout_ms / 1000):
            while True:
                standing = await client.get_transaction(transaction_id)
                if standing is not None and standing.status != "pending":
                    break
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise NotYet(
            f"is not final after {timeout_ms / 1000:g} s",
            field=report["id"],
            mend=f"ask later with `assay tx {report['id']}`",
        ) from None
    return {
        **report,
        "status": standing.status,
        "height": standing.height,
        "index": standing.index,
        "score": standing.score,
        "outcome": standing.outcome,
        "reason": "; ".join(standing.reasons) or None,
    }
