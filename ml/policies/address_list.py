"""A policy from a file: addresses whose transactions this node refuses, or the only ones it takes.

    assay node --policy address-list=deny=blocked.txt            also: allow=ours.txt, of=sender

One address a line (20 bytes in hex, 0x or not); `#` begins a comment. The file is looked at about once a
second and read anew when it changed: no signal, no restart, and what waits in the mempool is judged anew.
Invariant: a list is taken over whole or not at all. A new file that is missing or has a bad line keeps the
old list and is complained of once, with its line. Leaves out: lists on other machines.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from consensus.crypto import ADDRESS_BYTES
from consensus.errors import Rejected
from ml.policy import ALLOW, Opinion, PolicyBatch, refuse
from ml.policy_settings import Settings

NAME: Final = "address-list"
FILE_BYTES_MAX: Final = 64_000_000  # a million addresses with room for comments
PARTS: Final = ("both", "sender", "receiver")

_Stamp = tuple[int, int, int]


class AddressList:
    """A Policy. `allows`: the list names those who may, instead of those who may not."""

    def __init__(self, path: Path, *, allows: bool, of: str) -> None:
        self._path = path
        self._allows = allows
        self._of = of
        self._stamp = _read_stamp(path)
        self._addresses = read_addresses(path)

    def __len__(self) -> int:
        return len(self._addresses)

    def judge(self, batch: PolicyBatch) -> Sequence[Opinion]:
        return [self._judge(tx.sender, tx.receiver) for tx in batch.transactions]

    def _judge(self, sender: bytes, receiver: bytes) -> Opinion:
        for part, address in (("sender", sender), ("receiver", receiver)):
            if self._of in (part, "both") and (address in self._addresses) != self._allows:
                where = "is not on this node's list" if self._allows else "is on this node's list"
                return refuse(f"the {part} 0x{address.hex()} {where}")
        return ALLOW

    def reload(self) -> bool:
        """Whether another list holds now. Raises Rejected once for a changed file that is no list."""
        stamp = _read_stamp(self._path)
        if stamp == self._stamp:
            return False
        self._stamp = stamp  # also of a bad file: it is told once, and read again when it changes again
        addresses = read_addresses(self._path)
        is_other = addresses != self._addresses
        self._addresses = addresses
        return is_other


def read_addresses(path: Path) -> frozenset[bytes]:
    """The addresses in a list file. Raises Rejected that names the line."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        words = getattr(error, "strerror", None) or "it is not UTF-8"
        raise Rejected(f"cannot be read ({words})", field=str(path), mend="name a text file") from None
    if len(data) > FILE_BYTES_MAX:
        raise Rejected(f"is larger than {FILE_BYTES_MAX} bytes", field=str(path))
    addresses = set()
    for number, line in enumerate(text.splitlines(), 1):
        word = line.partition("#")[0].strip()
        if not word:
            continue
        try:
            address = bytes.fromhex(word.removeprefix("0x"))
        except ValueError:
            address = b""
        if len(address) != ADDRESS_BYTES:
            raise Rejected(
                f"{word[:60]!r} is not an address",
                field=f"{path}:{number}",
                mend=f"write {ADDRESS_BYTES} bytes in hex, one address a line",
            )
        addresses.add(address)
    return frozenset(addresses)


def _read_stamp(path: Path) -> _Stamp:
    """What changes when a file is written or replaced; zeros when there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def load(values: Mapping[str, Any]) -> AddressList:
    """Settings: `deny` or `allow` (a file), of ("both", "sender" or "receiver"). Raises Rejected."""
    settings = Settings(NAME, values)
    if ("deny" in values) == ("allow" in values):
        raise Rejected("give either deny=FILE or allow=FILE", field=f"policy {NAME}")
    path = settings.get_path("allow" if "allow" in values else "deny")
    of = settings.get_word("of", "both", PARTS)
    settings.check_all_read()
    return AddressList(path, allows="allow" in values, of=of)
