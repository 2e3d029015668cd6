"""Sending one transaction for a person: sign it, submit it, and on request wait until it is final.

Nonce, time, expiry and fee come from the node: the account's next nonce (above its waiting ones: two
sends in a row are two transactions), the chain's own clock, the longest lifetime the chain allows and the
smallest fee. The key never leaves this process. Leaves out: which key, which node (`endpoints.py`).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from consensus.crypto import PrivateKey
from consensus.errors import NotYet
from consensus.transaction import KIND_TRANSFER, sign_transaction
from node.client.node_client import NodeClient
from node.display import describe_score, print_fields, print_json

POLL_S: Final = 0.1  # a tenth of the default block interval


@dataclass(frozen=True, slots=True)
class Draft:
    """What is to be signed. state_bytes: of the records that it makes, on top of the chain's smallest fee."""

    receiver: bytes
    amount: int
    kind: int = KIND_TRANSFER
    payload: bytes = b""
    state_bytes: int = 0
    fee: int | None = None
    nonce: int | None = None


async def send(client: NodeClient, key: PrivateKey, draft: Draft, wait_ms: int | None) -> dict[str, Any]:
    """Sign and submit; with `wait_ms` also wait. Raises NotYet when it is not final by then."""
    status = await client.get_status()
    nonce = draft.nonce if draft.nonce is not None else (await client.get_account(key.address)).nonce_pending
    parameters = status.parameters
    fee = parameters["fee_units_min"] + draft.state_bytes * parameters["account_byte_fee_units"]
    tx = sign_transaction(
        key,
        status.chain_id,
        kind=draft.kind,
        nonce=nonce,
        receiver=draft.receiver,
        amount=draft.amount,
        fee=fee if draft.fee is None else draft.fee,
        timestamp_ms=status.clock_ms,
        expires_ms=status.clock_ms + parameters["lifetime_ms_max"],
        payload=draft.payload,
    )
    (receipt,) = await client.submit([tx.raw])
    report: dict[str, Any] = {
        "id": "0x" + tx.id.hex(),
        "status": receipt.outcome,
        "code": receipt.code or None,
        "height": None,
        "index": None,
        "score": receipt.score,
        "outcome": None,
        "reason": receipt.reason or None,
    }
    if wait_ms is None or receipt.outcome != "accepted":
        return report
    return await _wait(client, tx.id, report, wait_ms)


async def _wait(
    client: NodeClient, transaction_id: bytes, report: dict[str, Any], wait_ms: int
) -> dict[str, Any]:
    try:
        async with asyncio.timeout(wait_ms / 1000):
            while True:
                standing = await client.get_transaction(transaction_id)
                if standing is not None and standing.status != "pending":
                    break
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise NotYet(
            f"is not final after {wait_ms / 1000:g} s",
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


def show_report(report: dict[str, Any], *, as_json: bool) -> int:
    """Print what became of a transaction; the exit code: refused and rejected are not what was asked for."""
    if as_json:
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
    return 0 if report["status"] in ("accepted", "pending", "final") else 1
