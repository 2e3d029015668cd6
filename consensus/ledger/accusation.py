"""Accusation: evidence that a validator lied, brought by anybody. The liar's stake is slashed, and it is out.

Payload: the evidence (`consensus.bft.evidence`), judged by the set of the epoch that it speaks of;
`receiver`: the accused's operator. A part of what is bonded to the validator and of what has left it since
one epoch before the lie is burned, self-bonded and delegated alike: earlier leavers had no vote in that epoch.

Invariant: a validator is slashed once, for all its lies, and never trusted again: so one offence is
punished once, however many proofs of it there are. The cost does not grow with the number of delegators.
No reward for the reporter: a liar would report itself, and so pay less than the others it lied to.
Source: the tombstone cap of Cosmos SDK's x/slashing. Leaves out: fines for absence (jail alone).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from consensus import crypto, vote
from consensus.bft import evidence
from consensus.errors import NotYet, Rejected
from consensus.ledger import epochs, staking, supply
from consensus.ledger.kind import UsualKind
from consensus.ledger.records import Records
from consensus.parameters import WHOLE_BP, Parameters
from consensus.transaction import KIND_EVIDENCE, Transaction

if TYPE_CHECKING:
    from consensus.ledger.work import Work

_PAYLOADS_KEPT: Final = 64  # evidence is rare, and read by mempool, proposer and judge

decode_evidence = lru_cache(maxsize=_PAYLOADS_KEPT)(evidence.decode_evidence)


@dataclass(frozen=True, slots=True)
class EvidenceKind(UsualKind):
    """By anybody, against the validator of `receiver`."""

    number: int = KIND_EVIDENCE
    name: str = "evidence"

    def check_form(self, tx: Transaction) -> None:
        staking.check_no_amount(tx)
        decode_evidence(tx.payload)

    def check(self, tx: Transaction, work: Work) -> None:
        staking.check_staking(work.parameters)
        found = decode_evidence(tx.payload)
        epoch, _, signer = evidence.compute_offence(found)
        if epoch > work.epoch:
            raise NotYet(
                f"speaks of epoch {epoch}, this is {work.epoch}", field="payload", code="evidence_early"
            )
        epoch_set = epochs.find_set(work.records, epoch)
        if work.epoch - epoch > work.parameters.evidence_epochs or epoch_set is None:
            raise Rejected(
                f"speaks of epoch {epoch}, at most {work.parameters.evidence_epochs} before {work.epoch} count",
                field="payload",
                code="evidence_stale",
            )
        if signer >= len(epoch_set.operators):
            raise Rejected(
                f"{signer} is not in the set of epoch {epoch}", field="payload.signer", code="signer"
            )
        operator = epoch_set.operators[signer]
        if tx.receiver != operator:
            raise Rejected(
                "is not the accused's operator",
                field="receiver",
                mend=f"use 0x{operator.hex()}",
                code="evidence_receiver",
            )
        if staking.get_stake(work.records, operator).status == staking.TOMBSTONED:
            raise Rejected("its validator was punished before", field="receiver", code="evidence_twice")
        vote.check_evidence(found, epoch_set.validators, work.chain_id, crypto.verify)

    def apply(self, tx: Transaction, work: Work) -> None:
        epoch, _, _ = evidence.compute_offence(decode_evidence(tx.payload))
        work.records = slash(work.records, work.parameters, tx.receiver, epoch, work.epoch)


EVIDENCE: Final = EvidenceKind()


def slash(
    records: Records, parameters: Parameters, operator: bytes, offence_epoch: int, epoch: int
) -> Records:
    """Burns the part of all stake behind this validator, and tombstones it."""
    stake = staking.get_stake(records, operator)
    kept = _compute_kept(stake.tokens, parameters)
    burned = stake.tokens - kept
    new = replace(stake, tokens=kept, status=staking.TOMBSTONED, jailed_until=0)
    records = staking.put_stake(records, operator, new, parameters.stake_units_min)
    # The set of epoch k was fixed at the end of k - 2: what left in k - 1 or later still voted in k.
    for leaving in range(max(0, offence_epoch - 1), epoch + 1):
        unbonding = staking.find_unbonding(records, operator, leaving, 0)
        if unbonding is not None:
            kept = _compute_kept(unbonding.tokens, parameters)
            burned += unbonding.tokens - kept
            records = staking.put_unbonding(records, operator, leaving, 0, replace(unbonding, tokens=kept))
    return supply.burn(records, burned)


def _compute_kept(tokens: int, parameters: Parameters) -> int:
    return tokens * (WHOLE_BP - parameters.slash_bp) // WHOLE_BP
