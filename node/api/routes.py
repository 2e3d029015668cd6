"""The table of routes: every call of the API, in the order a reader meets them."""

from __future__ import annotations

from consensus import codec
from node.api import chain, light, telemetry, transactions
from node.api.limits import Limits
from node.api.route import (
    ADDRESS,
    ANCHOR,
    BEFORE,
    BLOCK_HEIGHT,
    BLOCK_KEY,
    EVENTS,
    FINAL_HEIGHT,
    MODEL_DIGEST,
    RECORD_KEY,
    TRANSACTION_ID,
    Handler,
    Parameter,
    Route,
    build_flag,
    build_number,
)

PAGE_ENTRIES_DEFAULT = 20  # a screenful


def build_routes(limits: Limits) -> tuple[Route, ...]:
    """All routes; `limits` bounds the pages."""
    page = build_number(
        "limit",
        "How many at most.",
        low=1,
        high=limits.page_entries_max,
        default=min(PAGE_ENTRIES_DEFAULT, limits.page_entries_max),
    )
    proof = build_flag("proof", "Also a Merkle proof and the certificate that makes it final.")
    return (
        _get("/v1/status", "status", "The node and its chain now", chain.get_status, "Status"),
        Route(
            "POST",
            "/v1/transactions",
            "submit",
            "Submit one transaction or a batch; a receipt for each, in order",
            transactions.submit,
            "Receipts",
            body="Submission",
            accepts_msgpack=True,
        ),
        Route(
            "POST",
            "/v1/score",
            "score",
            "The verdict a transaction (signed or not) would get now; changes nothing",
            transactions.score,
            "Verdict",
            body="Draft",
            accepts_msgpack=True,
        ),
        _get(
            "/v1/transactions/{id}",
            "transaction",
            "Where a transaction stands",
            transactions.get_transaction,
            "TransactionRecord",
            TRANSACTION_ID,
            proof,
            errors=(404,),
        ),
        _get(
            "/v1/transactions/{id}/verdict",
            "explain",
            "The verdict on a transaction with its reasons, exact",
            transactions.explain,
            "Verdict",
            TRANSACTION_ID,
            errors=(404,),
        ),
        _get(
            "/v1/blocks",
            "blocks",
            "Blocks by rising height",
            chain.get_blocks,
            "Blocks",
            build_number(
                "from",
                "The first height; left out: the latest page.",
                low=0,
                high=codec.MONEY_MAX,
                default=None,
            ),
            page,
            build_flag("transactions", "false leaves the transactions out.", default=True),
            errors=(422,),
        ),
        Route(
            "GET",
            "/v1/blocks/{block}",
            "block",
            "One block with transactions, scores and certificate",
            chain.get_block,
            "Block",
            (BLOCK_KEY,),
            answers_msgpack=True,
            errors=(404,),
        ),
        _get(
            "/v1/accounts/{address}",
            "account",
            "An account after the last final block; zeros if never used",
            chain.get_account,
            "Account",
            ADDRESS,
            proof,
        ),
        _get(
            "/v1/accounts/{address}/transactions",
            "account_history",
            "Final transactions of an account, newest first",
            chain.get_account_history,
            "History",
            ADDRESS,
            BEFORE,
            page,
            errors=(422,),
        ),
        _get("/v1/validators", "validators", "Who stakes and votes", chain.get_validators, "Validators"),
        _get(
            "/v1/validators/{address}",
            "validator",
            "The validator that this account operates",
            chain.get_validator,
            "Validator",
            ADDRESS,
            errors=(404,),
        ),
        _get("/v1/genesis", "genesis", "The chain's genesis file", light.get_genesis, "Genesis"),
        _get(
            "/v1/light/updates/{height}",
            "light_update",
            "A final header with its certificate and the sets that it commits to",
            light.get_update,
            "Update",
            FINAL_HEIGHT,
            errors=(404,),
        ),
        _get(
            "/v1/light/history/{block_height}",
            "light_history",
            "That a final block lies below a later one",
            light.get_history,
            "HistoryProof",
            BLOCK_HEIGHT,
            ANCHOR,
            errors=(404,),
        ),
        _get(
            "/v1/light/records/{key}",
            "light_record",
            "A record of the last final state, or that there is none, with its proof",
            light.get_record,
            "RecordProof",
            RECORD_KEY,
        ),
        _get("/v1/peers", "peers", "The node's peers", chain.get_peers, "Peers"),
        _get(
            "/v1/mempool",
            "mempool",
            "What waits, in the order it would be proposed",
            chain.get_mempool,
            "Mempool",
            page,
            errors=(422,),
        ),
        _get(
            "/v1/models",
            "models",
            "The models that judge, those that may, what is being decided, and what was",
            chain.get_models,
            "Models",
        ),
        _get(
            "/v1/models/{digest}/comparison",
            "compare_model",
            "What a model that scores along on this node would have said, beside what the chain said",
            chain.compare_model,
            "Comparison",
            MODEL_DIGEST,
            errors=(404,),
        ),
        _get(
            "/v1/refusals/{id}",
            "refusal",
            "Why this node refused a transaction",
            transactions.get_refusal,
            "Refusal",
            TRANSACTION_ID,
            errors=(404,),
        ),
        _get(
            "/v1/events",
            "events",
            "Server-sent events; resumable by Last-Event-ID",
            telemetry.stream_events,
            telemetry.EVENT_STREAM_TYPE,
            EVENTS,
        ),
        _get("/v1/openapi.json", "openapi", "This document", telemetry.get_document, ""),
        # A probe must be answered however busy its neighbours on the machine are.
        _get("/health", "health", "Liveness and readiness", telemetry.get_health, "Health", is_limited=False),
        _get("/metrics", "metrics", "For Prometheus", telemetry.get_metrics, "text/plain", is_limited=False),
    )


def _get(
    path: str,
    name: str,
    summary: str,
    handler: Handler,
    answer: str,
    *parameters: Parameter,
    errors: tuple[int, ...] = (),
    is_limited: bool = True,
) -> Route:
    return Route(
        "GET", path, name, summary, handler, answer, parameters, errors=errors, is_limited=is_limited
    )
