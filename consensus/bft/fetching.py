"""What this node lacks and asks for: certificates by (view, kind), blocks by hash.

Each thing is asked for at once when it is first missed, then again with the RETRY timer, a bounded
number at a time, the longest waiting first.

Invariant: certificates are wanted for the current view's sake only and forgotten with it; blocks only
when a quorum certified them or a descendant: nobody else can make this list grow.
Source: consensus.md, rule 9.
"""

from __future__ import annotations

from typing import Final

from consensus.bft.contract import CertificateRequest, FetchBlock, FetchCertificate

FETCHES_MAX: Final = 16  # at a time: a lagging node asks for half a megabyte at most, at 400 validators
GAP_FETCHES_MAX: Final = 8  # nullifications asked for at once; those that follow come with the answers


class Fetching:
    """Open wants. Methods return the effects to issue."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._certificates: dict[tuple[int, int], tuple[int | None, int]] = {}  # -> hint, attempt
        self._blocks: dict[bytes, tuple[int, int | None, int]] = {}  # -> view, hint, attempt

    def __bool__(self) -> bool:
        return bool(self._certificates or self._blocks)

    def want_certificate(self, view: int, kind: int, hint: int | None) -> FetchCertificate | None:
        """Ask for a certificate, unless it was asked for already or too much is asked for."""
        if (view, kind) in self._certificates or len(self._certificates) >= FETCHES_MAX:
            return None
        self._certificates[view, kind] = (hint, 0)
        return FetchCertificate(CertificateRequest(self._epoch, view, kind), hint, 0)

    def want_block(self, block_hash: bytes, view: int, hint: int | None) -> FetchBlock | None:
        if block_hash in self._blocks:
            return None
        self._blocks[block_hash] = (view, hint, 0)
        return FetchBlock(block_hash, view, hint, 0)

    def settle_certificate(self, view: int, kind: int) -> None:
        self._certificates.pop((view, kind), None)

    def settle_block(self, block_hash: bytes) -> bool:
        """Whether this block was wanted; it no longer is."""
        return self._blocks.pop(block_hash, None) is not None

    def forget_certificates(self) -> None:
        """The view they were wanted for is over."""
        self._certificates.clear()

    def prune(self, final_view: int, final_hash: bytes) -> None:
        """Nothing below the final block is wanted; the ledger fetches its ancestors itself."""
        for block_hash, (view, _, _) in list(self._blocks.items()):
            if view <= final_view and block_hash != final_hash:
                del self._blocks[block_hash]

    def repeat(self) -> list[FetchCertificate | FetchBlock]:
        """Ask again, FETCHES_MAX at most of each; those asked now go to the end of the queue."""
        again: list[FetchCertificate | FetchBlock] = []
        for key in list(self._certificates)[:FETCHES_MAX]:
            hint, attempt = self._certificates.pop(key)
            self._certificates[key] = (hint, attempt + 1)
            again.append(FetchCertificate(CertificateRequest(self._epoch, *key), hint, attempt + 1))
        for block_hash in list(self._blocks)[:FETCHES_MAX]:
            view, hint, attempt = self._blocks.pop(block_hash)
            self._blocks[block_hash] = (view, hint, attempt + 1)
            again.append(FetchBlock(block_hash, view, hint, attempt + 1))
        return again
