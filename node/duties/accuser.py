"""The accuser: brings what this node saw of a lie to the chain, as an ordinary transaction of its validator.

Every honest validator that saw it does so; the first to be final counts, and the others' are rejected for
nothing. Invariant: at most one accusation of a liar is under way from here, and none once it was punished.
What is turned away (no money for the fee, a full mempool) is tried again after RETRY_BLOCKS.
Leaves out: finding lies (the engine), and punishing them (`consensus/ledger/accusation.py`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from consensus.bft.evidence import compute_offence, encode_evidence
from consensus.ledger import epochs, staking
from consensus.ledger.rules import Rules
from consensus.transaction import KIND_EVIDENCE, Transaction
from consensus.vote import Evidence
from node.blocks.chain import Chain
from node.duties.own_account import OwnAccount
from node.mempool.receipts import Outcome, Receipt

log = logging.getLogger("assay.accuser")

WAITING_MAX: Final = 64  # liars at a time; a third of them would have broken the chain
RETRY_BLOCKS: Final = 16  # between two tries: a few seconds


@dataclass(slots=True)
class _Case:
    """A liar, and the last transaction against it, tried when the chain had `height`."""

    evidence: Evidence
    transaction_id: bytes = b""
    height: int = -RETRY_BLOCKS


class Accuser:
    """One node's. account: of its validator; None: an observer, which leaves it to the others."""

    def __init__(
        self,
        rules: Rules,
        chain: Chain,
        account: OwnAccount | None,
    ) -> None:
        self._rules = rules
        self._chain = chain
        self._account = account
        self._cases: dict[tuple[int, int], _Case] = {}  # by epoch and signer

    def on_evidence(self, evidence: Evidence) -> None:
        """A lie was seen: accuse, unless the chain has no stake to punish."""
        if not self._rules.parameters.epoch_blocks or self._account is None:
            return
        epoch, _, signer = compute_offence(evidence)
        if (epoch, signer) not in self._cases and len(self._cases) < WAITING_MAX:
            self._cases[epoch, signer] = _Case(evidence)
            self.retry()

    def retry(self) -> None:
        """Call when blocks became final: drops what is settled, tries again what was lost."""
        account, height = self._account, self._chain.finalized.height
        if account is None:
            return
        for offence, case in list(self._cases.items()):
            operator = self._find_accused(*offence)
            if operator is None:
                del self._cases[offence]
            elif height - case.height >= RETRY_BLOCKS and not account.is_waiting(case.transaction_id):
                payload = encode_evidence(case.evidence)
                case.transaction_id = account.send_next(KIND_EVIDENCE, operator, payload, _tell)
                case.height = height

    def _find_accused(self, epoch: int, signer: int) -> bytes | None:
        """The liar's operator; None once it is punished, or too long ago."""
        records = self._chain.final_view.records
        found = epochs.find_set(records, epoch)
        if found is None or signer >= len(found.operators):
            return None
        operator = found.operators[signer]
        is_punished = staking.get_stake(records, operator).status == staking.TOMBSTONED
        return None if is_punished else operator


def _tell(tx: Transaction, receipt: Receipt) -> None:
    told = {"accused": tx.receiver.hex(), "transaction": tx.id.hex()}
    if receipt.outcome in (Outcome.ACCEPTED, Outcome.KNOWN):
        log.warning("accused a validator that lied", extra=told)
    else:
        log.warning("an accusation was turned away", extra={**told, "reason": receipt.reason})
