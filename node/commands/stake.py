"""`assay stake`: put money at stake, take it out again, and see where it stands.

The account is that of --key, or with --home of one node its validator.key: then operator and voting key
are one. A local network's folder gives its first funded account, which is good for delegating.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from node.client.endpoints import add_api_arguments, add_send_arguments

if TYPE_CHECKING:
    from consensus.crypto import PrivateKey
    from node.client.node_client import NodeClient
    from node.client.sending import Draft

HELP = "bond, delegate, unbond, withdraw, unjail, rotate the voting key, accuse a liar; status"

ACTIONS = {
    "bond": "put money at stake behind one's own validator; the first time it founds one",
    "delegate": "put money at stake behind somebody else's validator",
    "unbond": "begin to take stake out; it comes free after the unbonding period",
    "withdraw": "take what came free, and one's commission",
    "unjail": "stand for election again after an absence",
    "rotate": "vote with another key from the next set that is fixed",
    "accuse": "bring evidence of a lie, as `assay verify` writes it",
    "status": "one account's validator, delegations and what is leaving",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, words in ACTIONS.items():
        own = actions.add_parser(name, help=words, description=words)
        if name in ("bond", "delegate"):
            own.add_argument("--amount", required=True, type=int, metavar="N", help="in the smallest unit")
        if name == "delegate":
            own.add_argument("--to", required=True, metavar="VALIDATOR", help="its operator's address")
        if name == "bond":
            own.add_argument(
                "--commission", type=int, default=1_000, metavar="BP",
                help="of a new validator: its part of delegators' rewards in basis points (default 1000: 10%%)",
            )  # fmt: skip
        if name in ("bond", "rotate"):
            own.add_argument(
                "--voting-key", metavar="FILE",
                help="the key that is to vote (default: validator.key of --home, else --key)" if name == "bond"
                else "the key that is to vote (default: a new one, made in --home, which its node finds by itself)",
            )  # fmt: skip
        if name == "unbond":
            units = own.add_mutually_exclusive_group(required=True)
            units.add_argument("--amount", type=int, metavar="N", help="in the smallest unit")
            units.add_argument("--all", action="store_true", help="all that is there")
            own.add_argument("--from", dest="validator", metavar="VALIDATOR", help="default: one's own")
        if name == "accuse":
            own.add_argument("file", metavar="FILE", help="JSON with a list of evidence")
        if name == "status":
            own.add_argument("address", nargs="?", metavar="ADDRESS", help="default: that of the key")
        own.add_argument("--key", metavar="FILE", help="the account's private key (hex, mode 600)")
        if name != "status":
            add_send_arguments(own)
        add_api_arguments(own)


def run(args: argparse.Namespace) -> int:
    from consensus.codec import check_int  # imports wait until the command is chosen
    from node.client.endpoints import find_urls
    from node.client.node_client import run_with_client
    from node.client.sending import show_report
    from node.config import parse_duration_ms

    for name, low in (("amount", 1), ("fee", 0), ("nonce", 0), ("commission", 0)):
        if getattr(args, name, None) is not None:
            check_int(getattr(args, name), f"--{name}", low=low)
    if args.action == "status":
        address = _find_address(args)
        document = run_with_client(find_urls(args), lambda client: _get_status(client, address))
        _show_status(document, as_json=args.json)
        return 0
    wait_ms = parse_duration_ms(args.timeout, "--timeout")
    key = _find_key(args)
    reports = run_with_client(
        find_urls(args), lambda client: _act(client, key, args, wait_ms if args.wait else None)
    )
    if args.action == "accuse" and args.json:
        from node.display import print_json

        print_json({"accusations": reports})
        return 0 if all(report["status"] in ("accepted", "final") for report in reports) else 1
    return max(show_report(report, as_json=args.json) for report in reports)


async def _act(
    client: NodeClient, key: PrivateKey, args: argparse.Namespace, wait_ms: int | None
) -> list[dict[str, Any]]:
    from consensus.errors import Rejected
    from node.client.sending import send

    status = await client.get_status()
    if not status.parameters["epoch_blocks"]:
        raise Rejected(
            f'the chain "{status.chain_id}" has one everlasting epoch and no staking',
            mend="use a chain whose genesis sets epoch_blocks (`assay localnet --epoch-blocks N`)",
            code="staking_off",
        )
    drafts = await _make_drafts(client, key, args, status.chain_id)
    return [await send(client, key, draft, wait_ms) for draft in drafts]


async def _make_drafts(
    client: NodeClient, key: PrivateKey, args: argparse.Namespace, chain_id: str
) -> list[Draft]:
    """What the action asks to be signed; only an accusation may be several."""
    from consensus import transaction
    from consensus.ledger import bond, rotation, staking, unbond
    from node.client.sending import Draft

    own, terms = key.address, {"fee": args.fee, "nonce": args.nonce}
    match args.action:
        case "bond":
            payload, size = b"", staking.POSITION_BYTES
            if await _find_validator(client, own) is None:
                voting_key = _find_voting_key(args, key)
                payload = bond.sign_founding(voting_key, chain_id, own, args.commission)
                size = staking.VALIDATOR_BYTES
            return [Draft(own, args.amount, transaction.KIND_BOND, payload, size, **terms)]
        case "delegate":
            to = _read_address(args.to, "--to")
            return [Draft(to, args.amount, transaction.KIND_BOND, b"", staking.POSITION_BYTES, **terms)]
        case "unbond":
            validator = own if args.validator is None else _read_address(args.validator, "--from")
            payload = unbond.encode_units(unbond.ALL if args.all else args.amount)
            return [Draft(validator, 0, transaction.KIND_UNBOND, payload, staking.POSITION_BYTES, **terms)]
        case "withdraw":
            return [Draft(own, 0, transaction.KIND_WITHDRAW, **terms)]
        case "unjail":
            return [Draft(own, 0, transaction.KIND_UNJAIL, **terms)]
        case "rotate":
            voting_key = await _find_new_voting_key(client, args, own)
            payload = rotation.sign_rotation(voting_key, chain_id, own)
            return [Draft(own, 0, transaction.KIND_ROTATE_KEY, payload, staking.POSITION_BYTES, **terms)]
        case _:
            return [
                Draft(operator, 0, transaction.KIND_EVIDENCE, payload, **terms)
                for operator, payload in _read_accusations(args.file)
            ]


def _read_accusations(path: str) -> list[tuple[bytes, bytes]]:
    """(the accused's operator, payload) of a file that `assay verify` wrote."""
    from pathlib import Path

    from consensus.errors import Rejected
    from node.api.json_reading import read_json
    from node.api.kind_forms import read_evidence

    try:
        document = read_json(Path(path).read_bytes())
    except OSError as error:
        raise Rejected(f"cannot be read ({error.strerror})", field=path) from None
    items = document.get("evidence") if type(document) is dict else None
    if type(items) is not list or not items or not all(type(item) is dict for item in items):
        raise Rejected("holds no list of evidence", field=path, mend="give a file of `assay verify`")
    return [
        (_read_address(item.get("operator"), "operator"), read_evidence(item.get("evidence")))
        for item in items
    ]


# --- keys and addresses ----------------------------------------------------------------------------


def _find_key(args: argparse.Namespace) -> PrivateKey:
    from node.client.endpoints import find_key

    return find_key(args.key, args.home)


def _find_voting_key(args: argparse.Namespace, key: PrivateKey) -> PrivateKey:
    from pathlib import Path

    from node.client.endpoints import read_private_key

    if args.voting_key is not None:
        return read_private_key(Path(args.voting_key))
    own = None if args.home is None else Path(args.home) / "validator.key"
    return key if own is None or not own.is_file() else read_private_key(own)


async def _find_new_voting_key(client: NodeClient, args: argparse.Namespace, own: bytes) -> PrivateKey:
    """The key of --voting-key, or one in a node's home: made now, unless an earlier rotation failed."""
    import os
    import sys
    from pathlib import Path

    from consensus import crypto
    from consensus.errors import Rejected
    from node.api.json_reading import read_hex
    from node.client.endpoints import read_private_key
    from node.engine.voting_keys import make_voting_key

    if args.voting_key is not None:
        return read_private_key(Path(args.voting_key))
    if args.home is None or not (Path(args.home) / "node.json").is_file():
        raise Rejected(
            "no key to rotate to",
            field="--voting-key",
            mend="give --home of the validator's node, which then gets a new one, or --voting-key FILE",
        )
    found = await _find_validator(client, own)
    if found is None:
        raise Rejected(
            f"0x{own.hex()} operates no validator",
            field="--key",
            mend="give the operator's",
            code="not_found",
        )
    in_use = read_hex(found["voting_key"], "voting_key", crypto.KEY_BYTES)
    path, key = make_voting_key(Path(args.home), in_use, os.urandom)
    print(f"voting key 0x{key.public_key.hex()}: {path}", file=sys.stderr)
    return key


def _find_address(args: argparse.Namespace) -> bytes:
    return _find_key(args).address if args.address is None else _read_address(args.address, "ADDRESS")


def _read_address(text: Any, name: str) -> bytes:
    from consensus import crypto
    from node.api.json_reading import read_hex

    return read_hex(text, name, crypto.ADDRESS_BYTES)


# --- status ---------------------------------------------------------------------------------------


async def _find_validator(client: NodeClient, address: bytes) -> dict[str, Any] | None:
    from consensus.errors import Rejected

    try:
        return await client.get_json(f"/v1/validators/0x{address.hex()}")
    except Rejected as error:
        if error.code == "not_found":
            return None
        raise


async def _get_status(client: NodeClient, address: bytes) -> dict[str, Any]:
    account = await client.get_json(f"/v1/accounts/0x{address.hex()}")
    validators = await client.get_json("/v1/validators")
    names = ("address", "balance", "stake", "owed", "delegations", "unbonding")
    return {
        **{name: account[name] for name in names},
        "epoch": validators["epoch"],
        "height": validators["height"],
        "boundary_height": validators["boundary_height"],
        "validator": await _find_validator(client, address),
    }


def _show_status(document: dict[str, Any], *, as_json: bool) -> None:
    from node.display import describe_bp, describe_time, print_fields, print_json

    if as_json:
        print_json(document)
        return
    boundary = document["boundary_height"]
    fields = [
        ("account", document["address"]),
        ("balance", document["balance"]),
        ("at stake", document["stake"]),
        ("owed", document["owed"] or None),
        (
            "epoch",
            f"{document['epoch']} until block {boundary}" if boundary else "one, everlasting: no staking",
        ),
        ("as of", f"block {document['height']}"),
    ]
    found = document["validator"]
    if found is not None:
        jailed = found["jailed_until"]
        seat = "none now" if found["index"] is None else f"{found['index']}, votes with {found['stake']}"
        fields += [
            (
                "validator",
                found["status"] if jailed is None else f"jailed, may unjail from epoch {jailed} on",
            ),
            ("seat", seat),
            ("next epoch", found["next_stake"] or "no seat"),
            ("behind it", f"{found['bonded']}, of it its own {found['own_bonded']}"),
            ("commission", describe_bp(found["commission_bp"])),
            ("signed", describe_bp(found["participation_bp"])),
            ("voting key", found["voting_key"]),
        ]
    fields += [
        ("delegation", f"{place['units']} behind {place['validator']}") for place in document["delegations"]
    ]
    for claim in document["unbonding"]:
        out = f"from epoch {claim['release_epoch']} and {describe_time(claim['release_ms'])}"
        fields.append(("leaving", f"{claim['units']}: {'free, withdraw it' if claim['ripe'] else out}"))
    print_fields(fields)
