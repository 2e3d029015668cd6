"""`assay report`: say that a transfer was fraud, take that back, contradict it, vote about it; who may report.

The account is that of --key, or with --home of one node its validator.key; a local network's folder gives its
first funded account. The transaction reported is looked up at the node, which gives the proofs that the
ledger asks for.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from node.client.endpoints import add_api_arguments, add_send_arguments

if TYPE_CHECKING:
    from consensus.crypto import PrivateKey
    from consensus.transaction import Transaction
    from node.client.node_client import NodeClient
    from node.client.sending import Draft

HELP = "report a fraud, take it back, dispute it, vote, reclaim; register, leave; status and list"

ACTIONS = {
    "file": "report a final transfer as fraud",
    "withdraw": "take one's own report back",
    "dispute": "contradict the reports of a transfer one sent or received, with a deposit",
    "vote": "say as a validator whether a disputed transfer was fraud",
    "reclaim": "take the deposit back when no majority voted in time",
    "register": "become a reporter, with a bond",
    "leave": "stop being a registered reporter; the second time takes the bond out",
    "status": "whether an account may report, and its bond",
    "list": "reported transactions, their disputes and findings",
}
ABOUT = ("file", "withdraw", "dispute", "vote", "reclaim")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, words in ACTIONS.items():
        own = actions.add_parser(name, help=words, description=words)
        if name in ABOUT:
            own.add_argument("id", metavar="TXID", help="of the transfer")
        if name == "vote":
            verdict = own.add_mutually_exclusive_group(required=True)
            verdict.add_argument("--fraud", action="store_true", help="the reports are right")
            verdict.add_argument("--false", dest="mistake", action="store_true", help="they are wrong")
        if name == "status":
            own.add_argument("address", nargs="?", metavar="ADDRESS", help="default: that of the key")
        if name == "list":
            own.add_argument("--disputed", action="store_true", help="only those under dispute")
            own.add_argument("--limit", type=int, default=20, metavar="N", help="at most (default 20)")
            own.add_argument("--after", metavar="PLACE", help="the next page, as the last one names it")
        else:
            own.add_argument("--key", metavar="FILE", help="the account's private key (hex, mode 600)")
        if name not in ("status", "list"):
            add_send_arguments(own)
        add_api_arguments(own)


def run(args: argparse.Namespace) -> int:
    from consensus.codec import check_int  # imports wait until the command is chosen
    from node.client.endpoints import find_key, find_urls
    from node.client.node_client import run_with_client
    from node.client.sending import show_report
    from node.config import parse_duration_ms

    for name, low in (("fee", 0), ("nonce", 0), ("limit", 1)):
        if getattr(args, name, None) is not None:
            check_int(getattr(args, name), f"--{name}", low=low)
    if args.action == "list":
        query = {"limit": str(args.limit), "disputed": "true" if args.disputed else "false"}
        if args.after is not None:
            query["after"] = args.after
        page = run_with_client(find_urls(args), lambda client: client.get_json("/v1/reports", query))
        return _show_list(page, as_json=args.json)
    if args.action == "status":
        address = _find_address(args)
        document = run_with_client(find_urls(args), lambda client: _get_status(client, address))
        return _show_status(document, as_json=args.json)
    wait_ms = parse_duration_ms(args.timeout, "--timeout")
    key = find_key(args.key, args.home)
    sent = run_with_client(
        find_urls(args), lambda client: _act(client, key, args, wait_ms if args.wait else None)
    )
    return show_report(sent, as_json=args.json)


async def _act(
    client: NodeClient, key: PrivateKey, args: argparse.Namespace, wait_ms: int | None
) -> dict[str, Any]:
    from node.client.sending import send

    return await send(client, key, await _make_draft(client, key, args), wait_ms)


async def _make_draft(client: NodeClient, key: PrivateKey, args: argparse.Namespace) -> Draft:
    from consensus import transaction
    from consensus.ledger import cases, dispute
    from consensus.ledger.reporters import REPORTER_BYTES
    from node.client.sending import Draft

    status = await client.get_status()
    terms = {"fee": args.fee, "nonce": args.nonce}
    if args.action == "register":
        bond_units = status.parameters["report_bond_units"]
        return Draft(
            key.address, bond_units, transaction.KIND_REGISTER_REPORTER, b"", REPORTER_BYTES, **terms
        )
    if args.action == "leave":
        return Draft(key.address, 0, transaction.KIND_LEAVE_REPORTER, **terms)
    record = await _get_record(client, args.id, is_proven=args.action == "file")
    reported = _read_reported(record, status.chain_id)
    match args.action:
        case "file":
            kind, payload, amount, size = transaction.KIND_REPORT, _build_report(record, reported), 0, 0
        case "dispute":
            kind, payload = transaction.KIND_DISPUTE_REPORT, cases.encode_about(reported)
            amount, size = status.parameters["dispute_deposit_units"], dispute.DISPUTE_BYTES
        case "vote":
            verdict = dispute.FRAUD if args.fraud else dispute.MISTAKE
            kind, payload, amount, size = (
                transaction.KIND_VOTE_REPORT,
                dispute.encode_vote(reported, verdict),
                0,
                0,
            )
        case action:
            kind = (
                transaction.KIND_WITHDRAW_REPORT if action == "withdraw" else transaction.KIND_RECLAIM_DEPOSIT
            )
            payload, amount, size = cases.encode_about(reported), 0, 0
    return Draft(reported.receiver, amount, kind, payload, size, **terms)


async def _get_record(client: NodeClient, text: str, *, is_proven: bool) -> dict[str, Any]:
    from consensus import crypto
    from node.api.json_reading import read_hex

    transaction_id = read_hex(text, "TXID", crypto.HASH_BYTES)
    query = {"proof": "true"} if is_proven else None
    return await client.get_json(f"/v1/transactions/0x{transaction_id.hex()}", query)


def _read_reported(record: dict[str, Any], chain_id: str) -> Transaction:
    """The transfer that the node tells of; raises Rejected when it is none, or not final."""
    from consensus.errors import Rejected
    from consensus.transaction import KIND_TRANSFER, decode_transaction
    from node.api.transaction_reading import read_transaction

    reported = decode_transaction(read_transaction(record["transaction"], chain_id))
    if reported.kind != KIND_TRANSFER:
        raise Rejected("is no transfer", field="TXID", mend="name a transfer", code="report_kind")
    if record["status"] != "final":
        raise Rejected(f"is {record['status']}, not final", field="TXID", mend="wait until it is final")
    return reported


def _build_report(record: dict[str, Any], reported: Transaction) -> bytes:
    from consensus.errors import NotYet
    from consensus.ledger import report
    from node.api import light_forms
    from node.api.json_reading import read_int

    proof = light_forms.read_object(record["proof"], "proof")
    header = light_forms.read_header(proof["header"])
    anchor_height = read_int(proof, "anchor_height")
    if anchor_height <= header.height:
        raise NotYet(
            "is in the last final block", field="TXID", mend="try again when the next block is final"
        )
    return report.encode_payload(
        report.ReportPayload(
            reported,
            read_int(record, "score"),
            light_forms.read_outcome(record),
            read_int(record, "index"),
            header,
            light_forms.read_siblings(proof["siblings"], "siblings"),
            anchor_height,
            light_forms.read_siblings(proof["history_proof"], "history_proof"),
        )
    )


# --- status and list ----------------------------------------------------------------------------------


def _find_address(args: argparse.Namespace) -> bytes:
    from consensus import crypto
    from node.api.json_reading import read_hex
    from node.client.endpoints import find_key

    if args.address is None:
        return find_key(args.key, args.home).address
    return read_hex(args.address, "ADDRESS", crypto.ADDRESS_BYTES)


async def _get_status(client: NodeClient, address: bytes) -> dict[str, Any]:
    from consensus.errors import Rejected

    status = await client.get_status()
    names = ("reporting", "reports_min", "report_bond_units")
    chain = {name: status.parameters[name] for name in names}
    try:
        return {**await client.get_json(f"/v1/reporters/0x{address.hex()}"), **chain}
    except Rejected as error:
        if error.code != "not_found":
            raise
    unknown = {"status": None, "may_report": False, "bond": 0, "release_ms": None}
    return {"address": "0x" + address.hex(), **unknown, **chain}


def _show_status(document: dict[str, Any], *, as_json: bool) -> int:
    from node.display import describe_time, print_fields, print_json

    if as_json:
        print_json(document)
        return 0
    release_ms = document["release_ms"]
    print_fields(
        [
            ("account", document["address"]),
            ("status", document["status"] or "no reporter"),
            ("may report", "yes" if document["may_report"] else "no"),
            ("bond", document["bond"] or None),
            ("out after", None if release_ms is None else describe_time(release_ms)),
            ("who may here", document["reporting"]),
            ("reports needed", document["reports_min"]),
        ]
    )
    return 0


def _show_list(page: dict[str, Any], *, as_json: bool) -> int:
    from node.display import print_json, print_table

    if as_json:
        print_json(page)
        return 0
    if not page["reports"]:
        print("nothing is reported")
        return 0
    print_table(
        ("transaction", "receiver", "stand", "counts", "finding", "dispute"),
        [
            (
                case["id"],
                case["receiver"],
                case["standing"],
                "no" if case["told_height"] is None else f"since block {case['told_height']}",
                case["finding"],
                _describe_dispute(case["dispute"]),
            )
            for case in page["reports"]
        ],
    )
    if page["after"] is not None:
        print(f"more: --after {page['after']}")
    return 0


def _describe_dispute(dispute: dict[str, Any] | None) -> str:
    if dispute is None:
        return "none"
    votes = dispute["votes"]
    return f"fraud {votes['fraud']}, false {votes['false']} of {votes['total_stake']}"
