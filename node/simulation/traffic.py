"""What nodes put on the wire: messages and bytes, by sender and kind, counted at every link.

A copy counts whether it arrives or not; its bytes are those of `encode_message`, without the frame and the
encryption of a real connection. Leaves out: bodies of blocks, which engines do not send.
"""

from __future__ import annotations

from collections import Counter

from consensus.bft.contract import Message
from consensus.bft.messages import encode_message
from node.simulation.timeline import describe_message


class Traffic:
    """`messages` and `bytes` by (sender, kind); kinds as `timeline.describe_message` names them."""

    def __init__(self) -> None:
        self.messages: Counter[tuple[int, str]] = Counter()
        self.bytes: Counter[tuple[int, str]] = Counter()
        self._last: tuple[Message | None, str, int] = (
            None,
            "",
            0,
        )  # of a broadcast all copies follow each other

    def add(self, sender: int, message: Message) -> None:
        """One copy leaves `sender`."""
        known, kind, size = self._last
        if known is not message:
            kind, size = describe_message(message)[0], len(encode_message(message))
            self._last = (message, kind, size)
        self.messages[sender, kind] += 1
        self.bytes[sender, kind] += size

    def sum_by_sender(self, counter: Counter[tuple[int, str]], *kinds: str) -> Counter[int]:
        """What each sender sent of these kinds; of all when none is named."""
        found: Counter[int] = Counter()
        for (sender, kind), count in counter.items():
            if not kinds or kind in kinds:
                found[sender] += count
        return found
