"""`assay model approve`, `retire` and `rollback`: validators decide which models judge, and from when on.

What is left unsaid is filled in from the chain, and printed: the motion that is open about this model, or a
height soon after the notice; the model it replaces; that one's thresholds and weight. All validators must
approve the same motion, so all of it can be said. Rolling back is seating the predecessor that the
history names.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from consensus.errors import Rejected

if TYPE_CHECKING:
    from consensus.crypto import PrivateKey
    from consensus.ledger.motion import Change, Motion
    from node.client.node_client import NodeClient

AHEAD_BLOCKS: Final = 20  # above the notice, where --at is left out: time for the others to approve
DIGEST_DIGITS_MIN: Final = 8  # of a digest that is cut short: a typing error names no other model
FLAG_SCORE_MIN: Final = 5_000  # of a model beside others, where nothing is said
REFUSE_SCORE_MIN: Final = 10_000

Json = dict[str, Any]


def approve(args: argparse.Namespace) -> int:
    return _decide(args)


def retire(args: argparse.Namespace) -> int:
    return _decide(args)


def roll_back(args: argparse.Namespace) -> int:
    return _decide(args)


def _decide(args: argparse.Namespace) -> int:
    from node.client.endpoints import find_urls
    from node.client.node_client import run_with_client
    from node.config import parse_duration_ms
    from node.display import print_fields, print_json

    keys = find_operators(args.key, args.home, every=args.all_validators)
    wait_ms = parse_duration_ms(args.timeout, "--timeout")
    report = run_with_client(find_urls(args), lambda client: _act(client, keys, args, wait_ms))
    if args.json:
        print_json(report)
    else:
        motion = report["motion"]
        place = motion.get("in_place_of")
        limits = (motion.get("flag_score_min"), motion.get("refuse_score_min"))
        print_fields(
            [
                ("motion", f"{motion['change']} {motion['digest']}"),
                ("in place of", place),
                ("thresholds", None if None in limits else f"flag {limits[0]}, refuse {limits[1]}"),
                ("weight", motion.get("weight")),
                ("from block", motion["height"]),
                ("approvals", ", ".join(_describe(one) for one in report["approvals"])),
                ("stake for it", f"{report['approved_stake']} of {report['total_stake']}"),
                (
                    "decided",
                    "yes" if report["decided_height"] else "not yet: more than two thirds are needed",
                ),
            ]
        )
    return 0 if all(one["status"] in ("accepted", "final") for one in report["approvals"]) else 1


def _describe(approval: Json) -> str:
    return f"{approval['status']}{': ' + approval['reason'] if approval['reason'] else ''}"


def find_operators(key_file: str | None, home: str | None, *, every: bool) -> tuple[PrivateKey, ...]:
    """Keys to approve with: of --key, of a node's home, or of all homes of a local network. Raises Rejected."""
    from pathlib import Path

    from node.client.endpoints import find_key, read_private_key
    from node.home import open_network

    if every:
        if home is None or key_file is not None:
            raise Rejected("needs the local network's --home, and no --key", field="--all-validators")
        return tuple(read_private_key(folder / "validator.key") for folder in open_network(Path(home)).homes)
    if key_file is None and home is not None and not (Path(home) / "validator.key").is_file():
        raise Rejected(
            "holds no validator.key",
            field=home,
            mend="give the home of one node, or --all-validators for a local network",
        )
    return (find_key(key_file, home),)


async def _act(
    client: NodeClient, keys: Sequence[PrivateKey], args: argparse.Namespace, wait_ms: int
) -> Json:
    from consensus.ledger import motion as motions
    from consensus.ledger.approval import APPROVAL_BYTES
    from consensus.transaction import KIND_APPROVE_MOTION
    from node.api.model_forms import form_motion
    from node.client.sending import Draft, send

    document = await client.get_json("/v1/models")
    status = await client.get_status()
    first = status.finalized_height + status.parameters["motion_notice_blocks"] + 2
    subject = plan_motion(document, args, first)
    payload = motions.encode_motion(subject)
    approvals = []
    for key in keys:
        draft = Draft(
            key.address, 0, KIND_APPROVE_MOTION, payload, APPROVAL_BYTES, fee=args.fee, nonce=args.nonce
        )
        is_last = key is keys[-1]
        # Without --wait of the last one only: earlier ones are final by then, or say why not.
        approvals.append(await send(client, key, draft, wait_ms if args.wait or is_last else None))
    after = await client.get_json("/v1/models")
    tally = _find_tally(after, subject)
    return {"motion": form_motion(subject), "approvals": approvals, **tally}


def _find_tally(document: Json, subject: Motion) -> Json:
    from consensus.ledger.motion import compute_motion_digest

    name = "0x" + compute_motion_digest(subject).hex()
    past = [entry for era in document["history"] for entry in era["decisions"]]
    found: Json = next((entry for entry in (*document["motions"], *past) if entry["motion"] == name), {})
    return {
        "approved_stake": found.get("approved_stake", 0),
        "total_stake": found.get("total_stake", 0),
        "decided_height": found.get("decided_height"),
    }


# --- what is meant -----------------------------------------------------------------------------------


def plan_motion(document: Json, args: argparse.Namespace, first_height: int) -> Motion:
    """The motion that the arguments mean, on a chain of which /v1/models says `document`. Raises Rejected."""
    from consensus.ledger.motion import Motion

    change = _plan_change(document, args)
    if args.at is not None:
        return Motion(args.at, change)
    open_heights = [
        entry["height"]
        for entry in document["motions"]
        if _read_change(entry) == change and entry["height"] > first_height
    ]
    return Motion(min(open_heights, default=first_height + AHEAD_BLOCKS), change)


def _plan_change(document: Json, args: argparse.Namespace) -> Change:
    from consensus.ledger.motion import RetireModel, SeatModel
    from consensus.ledger.scoring import Thresholds

    if args.action == "retire":
        return RetireModel(_read(find_digest(args.digest, document["models"])))
    if args.action == "rollback":
        present, digest, like = find_predecessor(document)
        place = present["digest"]
    else:
        digest = find_digest(args.digest, document["published"])
        place, like = _find_place(document, args, digest)
    flag, refuse, weight = (
        told if told is not None else like[name]
        for name, told in (
            ("flag_score_min", args.flag),
            ("refuse_score_min", args.refuse),
            ("weight", args.weight),
        )
    )
    return SeatModel(_read(digest), Thresholds(flag, refuse), weight, _read(place) if place else b"")


def _find_place(document: Json, args: argparse.Namespace, digest: str) -> tuple[str | None, Json]:
    """(digest of whom it replaces, or None; whose thresholds and weight it gets where none are said)."""
    seats = document["models"]
    own = next((seat for seat in seats if seat["digest"] == digest), None)
    beside = {"flag_score_min": FLAG_SCORE_MIN, "refuse_score_min": REFUSE_SCORE_MIN, "weight": 1}
    if args.beside:
        return None, own or beside
    if args.in_place_of is not None:
        place = find_digest(args.in_place_of, seats)
        return place, next(seat for seat in seats if seat["digest"] == place)
    judging = [seat for seat in seats if seat["weight"] and seat["digest"] != digest]
    if len(judging) != 1:
        raise Rejected(
            f"{len(judging)} other models judge",
            field="--in-place-of",
            mend="say which one it replaces, or --beside",
        )
    return judging[0]["digest"], judging[0]


def find_predecessor(document: Json) -> tuple[Json, str, Json]:
    """(the seat that judges, digest of the model that it replaced, the seat which that one had)."""
    judging = [seat for seat in document["models"] if seat["weight"]]
    if len(judging) != 1:
        raise Rejected(
            f"{len(judging)} models judge",
            field="rollback",
            mend="seat the one you want with `assay model approve … --in-place-of`",
        )
    present = judging[0]
    history = document["history"]
    for number in range(len(history) - 1, 0, -1):
        for entry in history[number]["decisions"]:
            is_it = entry["outcome"] == "done" and entry["change"] == "seat"
            before = entry.get("in_place_of")
            if is_it and entry["digest"] == present["digest"] and before not in (None, present["digest"]):
                seat = next(seat for seat in history[number - 1]["models"] if seat["digest"] == before)
                return present, before, seat
    raise Rejected(f"{present['digest']} replaced no other", field="rollback", mend="see `assay model list`")


def find_digest(text: str, entries: Sequence[Json]) -> str:
    """The digest that `text` (hex, whole or its beginning) names among these. Raises Rejected."""
    wanted = text.lower().removeprefix("0x")
    known = sorted(
        {entry["digest"] for entry in entries if entry.get("status") not in ("arriving", "unsound")}
    )
    found = [digest for digest in known if digest.removeprefix("0x").startswith(wanted)]
    if len(wanted) < DIGEST_DIGITS_MIN or len(found) != 1:
        problem = "is too short" if len(wanted) < DIGEST_DIGITS_MIN else f"names {len(found)} models"
        raise Rejected(
            problem, field=text, mend=f"use one of: {', '.join(known) or '(none)'}", code="model_unknown"
        )
    return str(found[0])


def _read(digest: str) -> bytes:
    return bytes.fromhex(digest.removeprefix("0x"))


def _read_change(entry: Json) -> Change:
    from consensus.ledger.motion import decode_motion
    from node.api.model_forms import MOTION_FIELDS, read_motion

    return decode_motion(read_motion({name: entry[name] for name in MOTION_FIELDS if name in entry})).change
