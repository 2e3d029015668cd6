"""`assay model publish`: bring an artifact to the chain, a few chunks at a time, until it is whole there.

Chunks go in waves that fit an account's nonce window, each wave final before the next; what is there
already is not sent twice, so that an interrupted publication goes on with the same command.
The artifact is loaded here first: what the chain would call unsound is refused before it costs anything.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from consensus.crypto import PrivateKey
    from node.client.node_client import NodeClient, TransactionStanding

WAVE: Final = 16  # chunks under way at once: a quarter of a nonce window, 60 kB
POLL_S: Final = 0.1  # a tenth of the default block interval
HERE: Final = frozenset(("chunk_twice", "model_known"))  # what a chain says of chunks that it has


def publish(args: argparse.Namespace) -> int:
    """Exit code 0 when the model is known and sound on the chain."""
    from pathlib import Path

    from consensus.ledger.publication import cut_artifact
    from ml.discovery import load_module
    from node.client.endpoints import find_key, find_urls
    from node.client.node_client import run_with_client
    from node.config import parse_duration_ms
    from node.display import print_fields, print_json
    from node.modules import read_model_file

    artifact = read_model_file(Path(args.model))
    module = load_module(args.name, artifact)
    payloads = tuple(cut_artifact(args.name, module.digest, artifact))
    wait_ms = parse_duration_ms(args.timeout, "--timeout")
    key = find_key(args.key, args.home)

    async def work(client: NodeClient) -> dict[str, Any]:
        return await _publish(client, key, module.digest, payloads, wait_ms)

    report = run_with_client(find_urls(args), work)
    if args.json:
        print_json(report)
    else:
        print_fields(
            [
                ("digest", report["digest"]),
                ("status", report["status"]),
                ("chunks", f"{report['chunks']}, of them sent now {report['sent']}"),
                ("fees", report["fees"]),
                ("height", report["height"]),
            ]
        )
    return 0 if report["status"] == "sound" else 1


async def _publish(
    client: NodeClient, key: PrivateKey, digest: bytes, payloads: Sequence[bytes], wait_ms: int
) -> dict[str, Any]:
    from consensus.errors import NotYet, Rejected

    found = await find_published(client, digest)
    sent = fees = 0
    try:
        async with asyncio.timeout(wait_ms / 1000):
            if found is None or found["status"] == "arriving":
                for first in range(0, len(payloads), WAVE):
                    spent = await _send_wave(client, key, payloads[first : first + WAVE])
                    sent, fees = sent + len(spent), fees + sum(spent)
                found = await _wait_whole(client, digest)
    except TimeoutError:
        raise NotYet(
            f"is not whole on the chain after {wait_ms / 1000:g} s",
            field="model",
            mend="run the same command again: it goes on where it stopped",
        ) from None
    if found["status"] == "unsound":
        raise Rejected(
            "is unsound on this chain: its nodes make another digest of it, or have no room for its rows",
            field="model",
            mend="train it with the version that the chain runs, and with rows that fit (`assay model list`)",
        )
    return {
        "digest": found["digest"],
        "status": "sound",
        "chunks": len(payloads),
        "sent": sent,
        "fees": fees,
        "height": found["height"],
    }


async def find_published(client: NodeClient, digest: bytes) -> dict[str, Any] | None:
    """What the chain knows of this digest: the model, or the publication that has most of it."""
    document = await client.get_json("/v1/models")
    found = [entry for entry in document["published"] if entry["digest"] == "0x" + digest.hex()]
    sound = [entry for entry in found if entry["status"] in ("genesis", "sound")]
    if sound:
        return {**sound[0], "status": "sound"}
    return max(found, key=lambda entry: int(entry["chunks_here"]), default=None)


async def _send_wave(client: NodeClient, key: PrivateKey, payloads: Sequence[bytes]) -> list[int]:
    """Sends these chunks and waits until they are final; the fees of those that were not there before."""
    from consensus.errors import Rejected
    from consensus.ledger.publication import compute_fee_min
    from consensus.transaction import KIND_PUBLISH_MODEL, sign_transaction

    status = await client.get_status()
    fees_of_chain = (status.parameters["fee_units_min"], status.parameters["artifact_byte_fee_units"])
    nonce = (await client.get_account(key.address)).nonce_pending
    transactions = [
        sign_transaction(
            key,
            status.chain_id,
            kind=KIND_PUBLISH_MODEL,
            nonce=nonce + number,
            receiver=key.address,
            amount=0,
            fee=compute_fee_min(payload, *fees_of_chain),
            timestamp_ms=status.clock_ms,
            expires_ms=status.clock_ms + status.parameters["lifetime_ms_max"],
            payload=payload,
        )
        for number, payload in enumerate(payloads)
    ]
    receipts = await client.submit([tx.raw for tx in transactions])
    waiting = []
    for tx, receipt in zip(transactions, receipts, strict=True):
        if receipt.outcome == "accepted":
            waiting.append(tx)
        elif receipt.code not in HERE:
            raise Rejected(receipt.reason or receipt.code, field="model", code=receipt.code)
    fees = []
    for tx in waiting:
        standing = await _wait_settled(client, tx.id)
        if standing.status == "final":
            fees.append(tx.fee)
        elif not any(reason.split(":")[0] in HERE for reason in standing.reasons):
            raise Rejected("; ".join(standing.reasons) or standing.status, field="model")
    return fees


async def _wait_whole(client: NodeClient, digest: bytes) -> dict[str, Any]:
    while True:
        found = await find_published(client, digest)
        if found is not None and found["status"] != "arriving":
            return found
        await asyncio.sleep(POLL_S)


async def _wait_settled(client: NodeClient, transaction_id: bytes) -> TransactionStanding:
    while True:
        standing = await client.get_transaction(transaction_id)
        if standing is not None and standing.status != "pending":
            return standing
        await asyncio.sleep(POLL_S)
