"""What is told again when nothing becomes final: bounded in bytes, rotating through what does not fit.

Source: consensus.md, rule 8. The top finalization is always part of it, for it alone may end another's
standstill.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from consensus.bft.contract import CertificateRequest, Message, Proposal
from consensus.vote import Certificate, Vote

RESEND_BYTES_MAX: Final = 131_072  # to each peer, each time; one certificate of 1,024 signers still fits


def estimate_bytes(message: Message) -> int:
    """Roughly the encoded size; never too small by more than a few bytes per signature."""
    match message:
        case Vote():
            return 128
        case Certificate():
            return 64 + 72 * len(message.signatures)
        case Proposal():
            certificates = [*message.nullifications]
            if message.parent_certificate is not None:
                certificates.append(message.parent_certificate)
            return 160 + len(message.payload) + sum(map(estimate_bytes, certificates))
        case CertificateRequest():
            return 32


class Rotation:
    """Remembers where the last selection ended."""

    def __init__(self) -> None:
        self._cursor = 0

    def select(self, messages: Sequence[Message], bytes_max: int = RESEND_BYTES_MAX) -> list[Message]:
        """As many of the messages as fit, going on after those of the last time; at least one."""
        if not messages:
            return []
        start = self._cursor % len(messages)
        chosen: list[Message] = []
        left = bytes_max
        for message in (*messages[start:], *messages[:start]):
            left -= estimate_bytes(message)
            if chosen and left < 0:
                break
            chosen.append(message)
        self._cursor = start + len(chosen)
        return chosen
