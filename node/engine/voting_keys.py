"""The keys that this node may vote with: validator.key, and voting-1.key, voting-2.key, … that it rotated to.

A set of validators is frozen long before its epoch, so the chain says which key votes when: the node looks
for its own keys in the set, at the beginning of each epoch, and reads the home anew then, for a rotation
comes while it runs. One home holds the keys of one validator.

Invariant: one key at most votes in an epoch; the journal and its mark are the home's, for all its keys.
Leaves out: making a rotation known (`commands/stake.py`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from consensus.crypto import PrivateKey
from consensus.errors import Rejected
from consensus.vote import ValidatorSet
from node import config

log = logging.getLogger("assay.node")

_NAME: Final = re.compile(r"voting-([1-9][0-9]{0,8})\.key\Z")


class VotingKeys:
    """first: validator.key, if it is here. read_others: the other ones, whenever it is asked."""

    def __init__(self, first: PrivateKey | None, read_others: Callable[[], Sequence[PrivateKey]]) -> None:
        self._first = first
        self._read_others = read_others
        self._others = tuple(read_others())  # a file that is no key keeps a node from starting

    def find(self, validators: ValidatorSet) -> PrivateKey | None:
        """The key of ours that this set names, or None."""
        try:
            self._others = tuple(self._read_others())
        except (Rejected, OSError) as problem:  # a running node goes on with what it has
            log.error("a voting key cannot be read", extra={"problem": str(problem)})
        own = ([] if self._first is None else [self._first]) + list(self._others)
        return next((key for key in own if validators.get_index(key.public_key) is not None), None)


def list_paths(home: Path) -> list[Path]:
    """The files of keys that were rotated to, oldest first."""
    found = [(int(match[1]), path) for path in home.iterdir() if (match := _NAME.match(path.name))]
    return [path for _, path in sorted(found)]


def read_voting_keys(home: Path) -> list[PrivateKey]:
    """The same, read. Raises Rejected naming the file that holds no key."""
    return [config.read_key(path) for path in list_paths(home)]


def make_voting_key(
    home: Path, in_use: bytes, random_bytes: Callable[[int], bytes]
) -> tuple[Path, PrivateKey]:
    """The key to rotate to: the newest, when nothing was told of it yet, or a new one in a file of mode 0600.

    in_use: the public key that the chain names now.
    """
    paths = list_paths(home)
    if paths:
        newest = config.read_key(paths[-1])
        if newest.public_key != in_use:
            return paths[-1], newest  # an earlier rotation that nobody took
    number = 1 + (int(paths[-1].stem.removeprefix("voting-")) if paths else 0)
    path, key = home / f"voting-{number}.key", PrivateKey.from_seed(random_bytes(32))
    config.write_key(path, key)
    return path, key
