"""The onion keeper: a validator's hash onions on a chain that draws its leaders; commits to them and peels them.

An era is a number of epochs, the same for all nodes; each has its onion, whose secret is
HMAC-SHA256(the operator's private key, tag | era | chain). So there is nothing to store, to back up or to
lose: whoever has the key has all onions. A node commits two epochs before an era begins, as a transaction
of its account, and an onion has layers for every block of its era.

Invariant: which layer comes next is read from the state of the block that is built on, never remembered;
an era's onion is committed to once, so that no layer is ever revealed for new twice. A reveal that was
heard in a proposal that failed is repeated in the next, for no other is valid.
Leaves out: what may be revealed (`consensus/ledger/beacon.py`); operators whose key is not here.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from typing import Final

from consensus import crypto
from consensus.ledger import beacon, epochs, staking
from consensus.ledger.beacon import COMMITMENT_EPOCHS, LAYERS_MAX, Onion
from consensus.ledger.rules import Rules
from consensus.ledger.state import View
from consensus.parameters import LEADER_ONION
from consensus.transaction import KIND_COMMIT, Transaction
from node.blocks.chain import Chain
from node.duties.own_account import OwnAccount
from node.mempool.receipts import Outcome, Receipt

log = logging.getLogger("assay.beacon")

SECRET_TAG: Final = b"assay/onion-secret/1"
ERA_BLOCKS: Final = 8_192  # some: a commitment in two hours at a block a second; an onion is made in 10 ms
ERA_EPOCHS_MIN: Final = 2 * COMMITMENT_EPOCHS  # a commitment must count before the next one replaces it
ERAS_SEARCHED: Final = 4  # back from now: who could not commit for longer than that commits anew
RETRY_BLOCKS: Final = 16  # between two tries to commit: a few seconds


class OnionKeeper:
    """One node's. account: of the operator, whose key is that of its onions, too; None: an observer.

    is_behind: whether peers are ahead; what our state lacks then may stand in theirs.
    """

    def __init__(
        self,
        rules: Rules,
        chain: Chain,
        account: OwnAccount | None,
        is_behind: Callable[[], bool],
    ) -> None:
        self._rules = rules
        self._chain = chain
        self._account = account if rules.parameters.leader_election == LEADER_ONION else None
        self._is_behind = is_behind
        self._onions: dict[int, Onion] = {}  # by era; a few hundred kilobytes each
        self._unknown = (b"", 0)  # a tip that is of no onion of ours, and the era in which it was looked for
        self._transaction_id = b""
        self._height = -RETRY_BLOCKS  # of the chain, when it was last tried to commit

    # --- revealing ----------------------------------------------------------------------------------

    def find_reveal(self, view: View, epoch: int) -> bytes:
        """What a block of `epoch` by this validator on `view` reveals; empty for a tail and for nothing."""
        if self._account is None or epochs.is_tail_place(
            view.header, epoch, self._rules.parameters.epoch_blocks
        ):
            return b""
        tip = beacon.get_tip(view.records, self._account.key.address, epoch)
        onion = self._find_onion(tip, epoch) if tip else None
        return b"" if onion is None else onion.find_reveal(tip)

    def _find_onion(self, tip: bytes, epoch: int) -> Onion | None:
        last = self._compute_era(epoch)
        if self._unknown == (tip, last):
            return None
        for era in range(last, max(-1, last - ERAS_SEARCHED), -1):
            onion = self._get_onion(era)
            if onion.is_layer(tip):
                return onion
        self._unknown = (tip, last)
        log.warning("the onion in force is none of this key's: nothing to reveal", extra={"epoch": epoch})
        return None

    # --- committing ---------------------------------------------------------------------------------

    def retry(self) -> None:
        """Call when blocks became final: commits when an era comes near, tries again what was lost."""
        account, height = self._account, self._chain.finalized.height
        if account is None or height - self._height < RETRY_BLOCKS:
            return
        operator = account.key.address
        tip = self._find_due(operator)
        if tip and not self._is_behind() and not account.is_waiting(self._transaction_id):
            payload, state_bytes = beacon.encode_tip(tip), staking.POSITION_BYTES
            self._transaction_id = account.send_next(
                KIND_COMMIT, operator, payload, _tell, state_bytes=state_bytes
            )
            self._height = height

    def _find_due(self, operator: bytes) -> bytes:
        """What is to be committed to now; empty for nothing."""
        records, epoch = self._chain.final_view.records, self._chain.epoch
        sets = epochs.find_set(records, epoch), epochs.find_set(records, epoch + 1)
        if not any(found is not None and operator in found.operators for found in sets):
            return b""  # who has no seat proposes nothing
        onion = self._get_onion(self._compute_era(epoch))
        found = beacon.find_commitment(records, operator)
        is_known = found is not None and (onion.is_layer(found.tip) or onion.is_layer(found.pending))
        return b"" if is_known else onion.tip

    # --- onions -------------------------------------------------------------------------------------

    def _compute_era(self, epoch: int) -> int:
        """The era that a commitment made in this epoch is for."""
        return (epoch + COMMITMENT_EPOCHS) // compute_era_epochs(self._rules.parameters.epoch_blocks)

    def _get_onion(self, era: int) -> Onion:
        onion = self._onions.get(era)
        if onion is None:
            assert self._account is not None  # all who come here have looked
            while len(self._onions) >= ERAS_SEARCHED:
                del self._onions[min(self._onions)]
            blocks = self._rules.parameters.epoch_blocks
            layers = min(LAYERS_MAX, compute_era_epochs(blocks) * blocks)
            secret = compute_secret(self._account.key, self._rules.chain_id, era)
            onion = self._onions[era] = Onion(secret, layers)
        return onion


def _tell(tx: Transaction, receipt: Receipt) -> None:
    told = {"transaction": tx.id.hex()}
    if receipt.outcome in (Outcome.ACCEPTED, Outcome.KNOWN):
        log.info("committed to an onion", extra=told)
    else:
        log.warning("a commitment was turned away", extra={**told, "reason": receipt.reason})


def compute_era_epochs(epoch_blocks: int) -> int:
    """How many epochs one onion lasts."""
    return max(ERA_EPOCHS_MIN, ERA_BLOCKS // epoch_blocks)


def compute_secret(key: crypto.PrivateKey, chain_id: str, era: int) -> bytes:
    """The innermost layer of an era's onion, 32 bytes."""
    text = SECRET_TAG + era.to_bytes(8, "big") + chain_id.encode()
    return hmac.digest(key.secret, text, "sha256")
