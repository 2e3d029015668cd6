"""How the nouns look in JSON: Transaction, Header, Block, Certificate, Account, Verdict ...

Byte strings are lower-case hex with 0x; integers stay below 2^53, which every JSON reader keeps exact
(the one 64-bit set, the nonce window, is hex too). Field names are those of docs/api.md.
Reading is `transaction_reading`; what a kind has of its own, both ways, `kind_forms`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from consensus import vote
from consensus.block import Header
from consensus.ledger.scoring import OUTCOME_NAMES, Explanation
from consensus.transaction import Transaction
from node.api import door, model_forms, stake_records
from node.api.kind_forms import KIND_NAMES, form_own
from node.policies.attendant import PolicyReport

Json = dict[str, Any]

HEADER_ROOTS: Final = (  # those that stand together; refusal_root stands with its count
    "transactions_root",
    "state_root",
    "history_root",
    "modules_digest",
    "validators_digest",
    "next_validators_digest",
    "certificate_digest",
)

_dumps = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode


def write_json(value: Any) -> bytes:
    """Compact JSON as UTF-8."""
    return _dumps(value).encode()


def to_hex(data: bytes) -> str:
    return "0x" + data.hex()


def form_transaction(tx: Transaction) -> Json:
    form: Json = {
        "id": to_hex(tx.id),
        "kind": KIND_NAMES.get(tx.kind, str(tx.kind)),
        "sender": to_hex(tx.sender),
        "receiver": to_hex(tx.receiver),
        "amount": tx.amount,
        "fee": tx.fee,
        "nonce": tx.nonce,
        "timestamp_ms": tx.timestamp_ms,
        "expires_ms": tx.expires_ms,
        "public_key": to_hex(tx.public_key),
        "signature": to_hex(tx.signature),
    }
    if tx.payload:
        form["payload"] = to_hex(tx.payload)
    return form | form_own(tx.kind, tx.payload)


def form_header(header: Header) -> Json:
    return {
        "epoch": header.epoch,
        "view": header.view,
        "height": header.height,
        "parent_view": header.parent_view,
        "parent_hash": to_hex(header.parent_hash),
        "proposer": to_hex(header.proposer),
        "timestamp_ms": header.timestamp_ms,
        "transaction_count": header.transaction_count,
        **{name: to_hex(getattr(header, name)) for name in HEADER_ROOTS},
        "reveal": to_hex(header.reveal),
        "refusal_count": header.refusal_count,
        "refusal_root": to_hex(header.refusal_root),
    }


def form_certificate(certificate: vote.Certificate | None) -> Json | None:
    if certificate is None:
        return None
    subject = certificate.subject
    return {
        "kind": vote.KIND_NAMES[subject.kind],
        "epoch": subject.epoch,
        "view": subject.view,
        "block_hash": to_hex(subject.block_hash),
        "signatures": [
            {"signer": signer, "signature": to_hex(signature)} for signer, signature in certificate.signatures
        ],
    }


def form_finality(certificate: vote.Certificate | None, headers: Sequence[Header]) -> Json:
    """The certificate, and the headers that lead to the block it names when that is a descendant."""
    form: Json = {"certificate": form_certificate(certificate)}
    if headers:
        form["certificate_headers"] = [
            {"hash": to_hex(header.hash), "header": form_header(header)} for header in headers
        ]
    return form


def form_block(record: door.BlockRecord, *, transactions: bool = True) -> Json:
    """hash, header, final, certificate, and unless left out the transactions with score and outcome."""
    block = record.block
    form: Json = {
        "hash": to_hex(block.hash),
        "header": form_header(block.header),
        "final": record.is_final,
    }
    if transactions:
        form["transactions"] = [
            {**form_transaction(tx), "score": score, "outcome": OUTCOME_NAMES[outcome]}
            for tx, score, outcome in zip(block.transactions, block.scores, block.outcomes, strict=True)
        ]
    form["parent_certificate"] = form_certificate(block.parent_certificate)
    form.update(form_finality(record.certificate, record.headers))
    return form


def form_receipt(receipt: door.Receipt) -> Json:
    return {
        "id": None if receipt.id is None else "0x" + receipt.id.hex(),
        "outcome": receipt.outcome,
        "code": receipt.code or None,
        "reason": receipt.reason or None,
        "score": receipt.score,
        "retry_ms": receipt.retry_ms or None,
    }


def form_record(record: door.TransactionRecord) -> Json:
    return {
        "id": to_hex(record.transaction.id),
        "status": record.status,
        "height": record.height,
        "index": record.index,
        "block_hash": None if record.block_hash is None else to_hex(record.block_hash),
        "score": record.score,
        "outcome": None if record.outcome is None else OUTCOME_NAMES[record.outcome],
        "reasons": list(record.reasons),
        "transaction": form_transaction(record.transaction),
    }


def form_explanation(explanation: Explanation) -> Json:
    """base + the sum of the contributions = margin, exactly."""
    return {
        "score": explanation.score,
        "outcome": OUTCOME_NAMES[explanation.outcome],
        "base": explanation.base,
        "margin": explanation.margin,
        "contributions": [
            {"feature": c.feature, "value": c.value, "contribution": c.contribution, "words": c.words}
            for c in explanation.contributions
        ],
    }


def form_verdict(record: door.VerdictRecord) -> Json:
    return {
        "id": to_hex(record.transaction.id),
        "score": record.score,
        "outcome": OUTCOME_NAMES[record.outcome],
        "height": record.height,
        "modules": [
            {
                "name": verdict.module,
                **form_explanation(verdict.explanation),
                "counterfactuals": None
                if verdict.counterfactuals is None
                else [asdict(change) for change in verdict.counterfactuals],
            }
            for verdict in record.modules
        ],
    }


def form_account(record: door.AccountRecord) -> Json:
    return {
        "address": to_hex(record.address),
        "balance": record.balance,
        "nonce": record.nonce,
        "nonce_pending": record.nonce if record.nonce_pending is None else record.nonce_pending,
        "nonce_window": f"0x{record.nonce_window:016x}",
        "stake": record.stake,
        **form_stakes(record.stakes),
        "height": record.height,
        "modules": [
            {"name": module.module, "row": to_hex(module.row), "values": dict(module.values)}
            for module in record.modules
        ],
    }


def form_stakes(stakes: stake_records.StakeRecord) -> Json:
    return {
        "owed": stakes.owed,
        "delegations": [
            {"validator": to_hex(place.validator), "units": place.units} for place in stakes.delegations
        ],
        "unbonding": [
            {
                "validator": to_hex(claim.validator),
                "epoch": claim.epoch,
                "units": claim.units,
                "release_epoch": claim.release_epoch,
                "release_ms": claim.release_ms,
                "ripe": claim.is_ripe,
            }
            for claim in stakes.unbonding
        ],
    }


def form_transaction_proof(proof: door.TransactionProof) -> Json:
    return {
        "block_hash": to_hex(proof.header.hash),
        "header": form_header(proof.header),
        "index": proof.index,
        "tree_size": proof.tree_size,
        "siblings": [to_hex(sibling) for sibling in proof.siblings],
        "anchor_height": proof.anchor_height,
        "history_proof": [to_hex(node) for node in proof.history_proof],
        **form_finality(proof.certificate, proof.headers),
    }


def form_account_proof(proof: door.AccountProof) -> Json:
    return {
        "block_hash": to_hex(proof.header.hash),
        "header": form_header(proof.header),
        "state_proof": to_hex(proof.proof),
        **form_finality(proof.certificate, proof.headers),
    }


def form_status(status: door.StatusRecord) -> Json:
    final = status.finalized
    return {
        "chain_id": status.chain_id,
        "genesis_hash": to_hex(status.genesis_hash),
        "node": {
            "name": status.node_name,
            "address": to_hex(status.node_address),
            "version": status.version,
        },
        "head": {"height": status.head.height, "hash": to_hex(status.head.hash)},
        "finalized": {
            "height": final.height,
            "hash": to_hex(final.hash),
            "state_root": to_hex(final.state_root),
            "timestamp_ms": final.timestamp_ms,
        },
        "clock_ms": status.clock_ms,
        "view": status.view,
        "epoch": status.epoch,
        "peers": status.peers,
        "syncing": status.syncing,
        "mempool": {"transactions": status.mempool_transactions, "bytes": status.mempool_bytes},
        "model": None if status.model is None else model_forms.form_model(status.model),
        "policies": [_form_policy(report) for report in status.policies],
        "parameters": asdict(status.parameters),
    }


def _form_policy(report: PolicyReport) -> Json:
    return {
        "name": report.label,
        "deadline_ms": report.deadline_ms,
        "on_failure": report.on_failure,
        "stuck": report.is_stuck,
        "transactions": dict(report.decisions),
        "calls": dict(report.calls),
    }


def form_validators(record: stake_records.ValidatorsRecord) -> Json:
    total = record.total_stake
    return {
        "epoch": record.epoch,
        "height": record.height,
        "boundary_height": record.boundary_height,
        "total_stake": total,
        "quorum": record.quorum,
        "next_total_stake": record.next_total_stake,
        "validators": [form_validator(validator, total) for validator in record.validators],
        "more": record.is_cut,
    }


def form_validator(validator: stake_records.ValidatorRecord, total_stake: int) -> Json:
    return {
        "index": validator.index,
        "public_key": to_hex(validator.public_key),
        "address": to_hex(validator.address),
        "stake": validator.stake,
        "share_bp": validator.stake * 10_000 // total_stake,
        "self": validator.is_self,
        "next_stake": validator.next_stake,
        "voting_key": to_hex(validator.voting_key),
        "bonded": validator.bonded,
        "own_bonded": validator.own_bonded,
        "owed": validator.owed,
        "commission_bp": validator.commission_bp,
        "status": validator.status,
        "jailed_until": validator.jailed_until,
        "participation_bp": validator.participation_bp,
    }


def form_peer(peer: door.PeerRecord) -> Json:
    return {
        "name": peer.name,
        "node_key": to_hex(peer.node_key),
        "endpoint": peer.endpoint,
        "direction": peer.direction,
        "connected": peer.is_connected,
        "height": peer.height,
    }


def form_mempool(page: door.MempoolPage) -> Json:
    return {
        "transactions": page.transactions,
        "bytes": page.bytes_total,
        "entries": [{**form_transaction(entry.transaction), "score": entry.score} for entry in page.entries],
    }
