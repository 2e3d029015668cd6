"""Where everything lies in the block file: final blocks by height, bodies above them by hash.

Built by one pass over the file and kept up as it grows: 8 bytes per final block (the final block of
height h is entry h - 1) and 16 per finality mark, so that years of blocks stay small in memory.

Invariant: final blocks form one chain by parent hashes, heights rising by one from genesis; a mark
makes its block and all its ancestors final. Leaves out: final blocks by hash (the index has them).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

from consensus import codec, vote
from consensus.block import HEADER_BYTES_MAX, Header, decode_header
from consensus.errors import Rejected
from consensus.vote import Certificate
from node.store.block_file import Damage

ORPHAN_HEIGHTS_KEPT: Final = 64  # bodies beside the final chain that a lagging peer may still ask for
LINKS_MAX: Final = (
    4096  # headers between a final block and the certified one, as one mark stores them; 256 by catching up
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a body lies: its record's offset in bytes, and how it hangs together."""

    offset: int
    height: int
    block_hash: bytes
    parent_hash: bytes


@dataclass(frozen=True, slots=True)
class FinalityMark:
    """A certificate that makes `block_hash` final.

    `links`: the headers from its child to the certified block, empty when it is certified itself.
    """

    block_hash: bytes
    certificate: Certificate
    links: tuple[Header, ...] = ()

    def encode(self) -> bytes:
        links = tuple(header.raw for header in self.links)
        return codec.encode((self.block_hash, vote.encode_certificate(self.certificate), links))


def decode_mark(payload: bytes) -> FinalityMark:
    """The mark that a FINAL record holds. Raises Rejected; signatures are not checked here."""
    bytes_max = 64 + vote.CERTIFICATE_BYTES_MAX + LINKS_MAX * (HEADER_BYTES_MAX + 3)
    value = codec.decode(payload, what="finality mark", bytes_max=bytes_max, items_max=LINKS_MAX + 8)
    block_hash, certificate, links = codec.check_fields(value, 3, "finality mark")
    if type(links) is not tuple:
        raise Rejected("must be an array", field="finality mark.links", code="encoding")
    mark = FinalityMark(
        codec.check_bytes(block_hash, "finality mark.block_hash", length=32),
        vote.decode_certificate(
            codec.check_bytes(certificate, "finality mark.certificate", length_max=vote.CERTIFICATE_BYTES_MAX)
        ),
        tuple(
            decode_header(codec.check_bytes(raw, "finality mark.links", length_max=HEADER_BYTES_MAX))
            for raw in links
        ),
    )
    check_mark(mark)
    return mark


def check_mark(mark: FinalityMark) -> None:
    """Raises Rejected unless the certificate finalizes the block through its links.

    A slip of the disk's is found so; whether a link is a lie (`block.is_link`) was checked before it was stored.
    """
    subject = mark.certificate.subject
    if subject.kind != vote.FINALIZE:
        raise Rejected("is not a finalization", field="finality mark.certificate", code="certificate")
    last = mark.block_hash
    for header in mark.links:
        if last not in (header.parent_hash, header.reveal):  # a tail names its boundary block
            raise Rejected(
                "do not link the block to the certified one", field="finality mark.links", code="links"
            )
        last = header.hash
    if subject.block_hash != last:
        raise Rejected("is for another block", field="finality mark.certificate", code="certificate")


def read_header(payload: bytes) -> Header:
    """The header of an encoded block, without decoding its body. Raises Rejected.

    The canonical form begins with the head of an array of five and of a byte string of 1 or 2 length bytes.
    """
    if len(payload) < 4:
        raise Rejected("is not an encoded block", field="block", code="encoding")
    if payload[:2] == b"\x95\xc4":
        start, length = 3, payload[2]
    elif payload[:2] == b"\x95\xc5":
        start, length = 4, int.from_bytes(payload[2:4], "big")
    else:
        raise Rejected("is not an encoded block", field="block", code="encoding")
    return decode_header(payload[start : start + length])


class Positions:
    """Grows by `add_body` and `add_mark`, in the order of the file."""

    def __init__(self, genesis_hash: bytes) -> None:
        self.final_hash = genesis_hash
        self.bodies: dict[bytes, Place] = {}  # not final: above the final chain, or beside its last stretch
        self._final_offsets = array("Q")
        self._mark_heights = array("Q")
        self._mark_offsets = array("Q")

    @property
    def final_height(self) -> int:
        return len(self._final_offsets)

    def get_offset(self, height: int) -> int | None:
        """Of the final block of this height."""
        return self._final_offsets[height - 1] if 1 <= height <= self.final_height else None

    def get_mark(self, height: int) -> tuple[int, int] | None:
        """(height, offset) of the lowest mark at or above `height`: the nearest finalization."""
        place = bisect_left(self._mark_heights, height)
        if place == len(self._mark_heights):
            return None
        return self._mark_heights[place], self._mark_offsets[place]

    def add_body(self, header: Header, offset: int) -> None:
        """A body was written. One below the kept stretch, or known already, changes nothing."""
        if header.height + ORPHAN_HEIGHTS_KEPT > self.final_height:
            self.bodies.setdefault(header.hash, Place(offset, header.height, header.hash, header.parent_hash))

    def get_branch(self, block_hash: bytes) -> tuple[Place, ...]:
        """The bodies from the child of the last final block to this one, oldest first.

        Raises Rejected, naming the height, where one is missing or belongs to another branch.
        """
        branch: list[Place] = []
        parent_hash = block_hash
        while parent_hash != self.final_hash:
            place = self.bodies.get(parent_hash)
            if place is None or place.height <= self.final_height:
                below = branch[-1].height - 1 if branch else self.final_height + 1
                height = max(below, self.final_height + 1)
                problem = "is missing below a final one" if place is None else "forks from the final chain"
                raise Rejected(problem, field=f"block {height}", code="missing")
            branch.append(place)
            parent_hash = place.parent_hash
        branch.reverse()
        expected = range(self.final_height + 1, self.final_height + 1 + len(branch))
        for place, height in zip(branch, expected, strict=True):
            if place.height != height:
                raise Rejected(f"its height is {place.height}", field=f"block {height}", code="height")
        return tuple(branch)

    def add_mark(self, block_hash: bytes, offset: int) -> tuple[Place, ...]:
        """A mark was written: what became final by it, oldest first. Rejected as `get_branch`, unchanged."""
        branch = self.get_branch(block_hash)
        if not branch:
            return ()
        self._final_offsets.extend(place.offset for place in branch)
        self._mark_heights.append(self.final_height)
        self._mark_offsets.append(offset)
        self.final_hash = block_hash
        for place in branch:
            del self.bodies[place.block_hash]
        if len(self.bodies) > ORPHAN_HEIGHTS_KEPT:
            low = self.final_height - ORPHAN_HEIGHTS_KEPT
            self.bodies = {key: place for key, place in self.bodies.items() if place.height > low}
        return branch


def locate_damage(damage: Damage, positions: Positions) -> int:
    """The height of the block that a damaged record belongs to: its own, or the likeliest where that is lost."""
    if damage.height is not None:
        return damage.height
    if damage.offset == 0:
        return 0  # the identity record
    if damage.payload is not None:
        try:
            return read_header(damage.payload).height
        except Rejected:
            pass  # no body: perhaps a mark
        try:
            block_hash = decode_mark(damage.payload).block_hash
        except Rejected:
            return positions.final_height + 1
        place = positions.bodies.get(block_hash)
        return positions.final_height if place is None else place.height
    return positions.final_height + 1
