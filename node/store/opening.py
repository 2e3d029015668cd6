"""How a block file is read at start: where everything lies, whose chain it is, and what to do with its end.

A torn tail is cut off. Damage with sound records after it is a disk that lost what was durable: the node
does not start. Damage at the very end is either that, or a write that was never synced and of which a power
cut left the length and not the bytes; nobody can tell which from the file. It is cut off too, but only if
it cannot have been needed: a body that this node voted for, or proposed, was durable before its journal
says so, so the journal is asked, and each body that it vouches for above the final chain must be here.
What else may go is a body that nobody was promised, or a finality mark: its finalization is in the journal or
at a quorum of peers, votes stay bound by the journal alone, and its blocks are here or fetched.

Invariant: what is vouched for is never dropped. Source: consensus.md, rule 3 and What must survive a crash.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from consensus import codec
from consensus.errors import Fault, Rejected
from consensus.ledger import epochs
from consensus.ledger.rules import Rules
from node.store.block_file import BODY, IDENTITY, PAYLOAD_BYTES_MAX, BlockFile, Damage, Record, TornTail
from node.store.positions import Positions, decode_mark, locate_damage, read_header

log = logging.getLogger("assay.store")

# A block and its mark, or a batch of caught up ones: what is written between two syncs. Longer damage is no tail.
UNSYNCED_BYTES_MAX: Final = 2 * PAYLOAD_BYTES_MAX

# (epoch, view, hash) of every block whose body this node vouched for, old ones too; None: nobody knows.
ListVouched = Callable[[], Collection[tuple[int, int, bytes]] | None]


def read_block_file(
    file: BlockFile, path: Path, rules: Rules, positions: Positions, list_vouched: ListVouched
) -> None:
    """Fill `positions` in one pass; mend the end of the file, or begin a new one.

    Raises Fault naming what is damaged, Rejected when the file is of another chain.
    """
    damage: Damage | None = None
    for item in file.scan():
        match item:
            case TornTail(offset, bytes_left):
                if damage is None:
                    log.warning("torn tail cut off", extra={"offset": offset, "bytes": bytes_left})
                    file.truncate(offset)
            case Damage():
                damage = damage or item
            case Record():
                if damage is not None:
                    raise _describe(damage, positions, path)
                _take(item, positions, rules, path)
    if damage is not None:
        bytes_left = file.size - damage.offset
        if bytes_left > UNSYNCED_BYTES_MAX or not _is_dispensable(
            positions, file, rules.parameters.epoch_blocks, list_vouched()
        ):
            raise _describe(damage, positions, path)
        log.warning(
            "damaged end cut off: this node vouched for nothing in it",
            extra={"offset": damage.offset, "bytes": bytes_left, "problem": damage.problem},
        )
        file.truncate(damage.offset)
    if file.size == 0:
        file.append(IDENTITY, 0, encode_identity(rules))
    # A process that was killed may have left records that only the system's memory holds: before anything is
    # vouched for on their strength they are durable.
    file.sync()


def _take(record: Record, positions: Positions, rules: Rules, path: Path) -> None:
    try:
        if (record.offset == 0) != (record.type == IDENTITY):
            raise Rejected("the file must begin with one identity record", field=path.name)
        if record.type == IDENTITY:
            check_identity(record.payload, rules, path.parent)
        elif record.type == BODY:
            positions.add_body(read_header(record.payload), record.offset)
        else:
            positions.add_mark(decode_mark(record.payload).block_hash, record.offset)
    except Rejected as problem:
        if problem.code == "chain":
            raise
        raise Fault(
            f"is not what was stored: {problem}", field=f"block {record.height}", mend="run `assay audit`"
        ) from None


def _is_dispensable(
    positions: Positions,
    file: BlockFile,
    epoch_blocks: int,
    vouched: Collection[tuple[int, int, bytes]] | None,
) -> bool:
    """Whether all that this node vouched for is among what was read."""
    if vouched is None:
        return False
    offset = positions.get_offset(positions.final_height)
    # Of the views up to the last final block's, all that is needed is final, and so was read; the same of
    # an epoch that is over, with the tails above its boundary.
    final_view = -1 if offset is None else read_header(file.read(offset).payload).view
    final_epoch = epochs.compute_epoch(positions.final_height, epoch_blocks)
    epoch = epochs.compute_epoch(positions.final_height + 1, epoch_blocks)
    return all(
        block_hash in positions.bodies
        for *place, block_hash in vouched
        if place[0] >= epoch and place > [final_epoch, final_view]
    )


def _describe(damage: Damage, positions: Positions, path: Path) -> Fault:
    return Fault(
        f"{damage.problem} (byte {damage.offset} of {path.name})",
        field=f"block {locate_damage(damage, positions)}",
        mend=f"restore {path.name} from a copy, or move it away: peers send the chain again",
    )


def encode_identity(rules: Rules) -> bytes:
    """The payload of the record that says whose chain a block file holds."""
    return codec.encode((rules.genesis.chain_id, rules.genesis.digest))


def check_identity(payload: bytes, rules: Rules, home: Path) -> None:
    """Raises Rejected (code "chain") when the block file is of another chain."""
    if payload == encode_identity(rules):
        return
    value = codec.decode(payload, what="identity", bytes_max=1024)
    chain_id, digest = codec.check_fields(value, 2, "identity")
    raise Rejected(
        f"holds chain {chain_id} with genesis digest 0x{bytes(digest).hex()}, "
        f"genesis.json says {rules.genesis.chain_id} with 0x{rules.genesis.digest.hex()}",
        field=str(home),
        mend="use the genesis.json it was made with, or another --home",
        code="chain",
    )
