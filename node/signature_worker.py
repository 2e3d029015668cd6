"""A process that checks signatures and nothing else, forked before any loop or thread exists.

Threads lose to the hand-over of the GIL: beside a busy loop one verifies at half speed. So batches of
(key, digest, signature) cross a socket pair, one byte per item comes back, in order.

    to the worker   count (4 bytes, big-endian), then count x (33 + 32 + 64) bytes
    from it         count bytes, each 1 (holds) or 0

Invariant: the worker outlives no parent. It holds no descriptor but its end of the pair, and the pair's
end of file, which a killed parent leaves as surely as a closing one, ends it. Leaves out: queues, memory and what
happens without a worker; see `node.verification`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from consensus import crypto
from consensus.errors import Fault
from consensus.secp256k1 import Signed

log = logging.getLogger("assay.verification")

COUNT_BYTES: Final = 4
ITEM_BYTES: Final = crypto.KEY_BYTES + crypto.HASH_BYTES + crypto.SIGNATURE_BYTES
ITEMS_MAX: Final = (
    4_096  # of one batch: half a megabyte; the count is not trusted blindly even from our own parent
)
BATCHES_IN_FLIGHT_MAX: Final = 2  # one is being checked, one lies ready; more would make urgent ones wait
READ_BYTES: Final = 65_536
_DESCRIPTORS_MAX: Final = 1 << 20  # Linux's own bound on open files of a process (fs.nr_open)
_DIGEST_AT: Final = crypto.KEY_BYTES
_SIGNATURE_AT: Final = crypto.KEY_BYTES + crypto.HASH_BYTES

Answer = Callable[[list[bool] | None], None]


class SignatureWorker:
    """The parent's handle. `start` forks; `attach` joins a loop; then `submit` while `has_room`.

    `is_alive` turns False for good when the process ends; what it had not answered is then
    answered with None.
    """

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        self.is_alive = True
        self._channel = channel
        self._loop: AbstractEventLoop | None = None
        self._waiting: deque[tuple[int, Answer]] = deque()  # (items, whom to tell), oldest first
        self._unread = bytearray()
        self._unsent = bytearray()

    @classmethod
    def start(cls) -> SignatureWorker:
        """Fork the worker. Call it before any event loop or thread exists: a fork copies their locks.

        Raises Fault where the platform cannot fork or refuses to.
        """
        if not hasattr(os, "fork"):
            raise Fault("this platform cannot fork", field="worker", mend="run without a signature worker")
        ours, its = socket.socketpair()
        try:
            pid = os.fork()
        except OSError as error:
            ours.close()
            its.close()
            raise Fault(f"cannot fork ({error.strerror})", field="worker") from None
        if pid == 0:
            _run_child(its)
        its.close()
        ours.setblocking(False)
        return cls(pid, ours)

    @property
    def has_room(self) -> bool:
        """Whether another batch may be submitted now."""
        return self.is_alive and len(self._waiting) < BATCHES_IN_FLIGHT_MAX

    def attach(self, loop: AbstractEventLoop) -> None:
        """Take answers in this loop's turns."""
        self._loop = loop
        loop.add_reader(self._channel.fileno(), self._on_readable)

    def submit(self, items: Sequence[bytes], answer: Answer) -> None:
        """Send one batch of items (129 bytes each, at most ITEMS_MAX).

        `answer` is called later, never from here, with one bool per item, or None when the worker died.
        """
        assert self._loop is not None, "attach comes before submit"
        assert self.is_alive, "has_room comes before submit"
        assert len(items) <= ITEMS_MAX
        self._waiting.append((len(items), answer))
        blob = b"".join((len(items).to_bytes(COUNT_BYTES, "big"), *items))
        if self._unsent:
            self._unsent += blob
            return
        try:
            sent = self._channel.send(blob)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._loop.call_soon(self._lose)
            return
        if sent < len(blob):
            self._unsent += blob[sent:]
            self._loop.add_writer(self._channel.fileno(), self._on_writable)

    def close(self) -> None:
        """End the worker and wait until it is gone (it ends within one batch, some milliseconds)."""
        self._lose(is_expected=True)
        with contextlib.suppress(ChildProcessError):  # somebody who waits for any child was faster
            os.waitpid(self.pid, 0)

    def _on_writable(self) -> None:
        assert self._loop is not None
        try:
            sent = self._channel.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._lose()
            return
        del self._unsent[:sent]
        if not self._unsent:
            self._loop.remove_writer(self._channel.fileno())

    def _on_readable(self) -> None:
        try:
            data = self._channel.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._lose()
            return
        unread = self._unread
        unread += data
        while self._waiting and len(unread) >= self._waiting[0][0]:
            count, answer = self._waiting.popleft()
            answers = [byte == 1 for byte in unread[:count]]
            del unread[:count]
            answer(answers)

    def _lose(self, *, is_expected: bool = False) -> None:
        if not self.is_alive:
            return
        self.is_alive = False
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._channel.fileno())
            self._loop.remove_writer(self._channel.fileno())
        self._channel.close()
        if not is_expected:
            log.error(
                "the signature worker ended; signatures are checked in this process from now on, which "
                "slows it down; restart the node",
                extra={"pid": self.pid},
            )
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)
        waiting, self._waiting = self._waiting, deque()
        for _, answer in waiting:
            answer(None)


def _run_child(channel: socket.socket) -> None:
    """The child's whole life; never returns."""
    code = 1
    try:
        # The parent decides when to stop: Ctrl-C reaches the whole process group.
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # Any copy of another descriptor would keep a lock, a port or a sibling's pair open.
        own = channel.fileno()
        os.closerange(3, own)
        os.closerange(own + 1, _DESCRIPTORS_MAX)
        channel.setblocking(True)
        serve(channel)
        code = 0
    except OSError:
        code = 0  # the parent went away while it was answered
    finally:
        os._exit(code)  # no cleanup of what belongs to the parent: its buffers, its atexit, its finalizers


def serve(channel: socket.socket) -> None:
    """Answer batches until the other end closes."""
    with channel.makefile("rb") as stream:
        while len(head := stream.read(COUNT_BYTES)) == COUNT_BYTES:
            count = int.from_bytes(head, "big")
            blob = stream.read(count * ITEM_BYTES) if count <= ITEMS_MAX else b""
            if len(blob) != count * ITEM_BYTES:
                return
            channel.sendall(bytes(crypto.verify_batch(split_items(blob))))


def split_items(blob: bytes) -> list[Signed]:
    """The items of a blob of n x ITEM_BYTES."""
    return [
        (
            blob[start : start + _DIGEST_AT],
            blob[start + _DIGEST_AT : start + _SIGNATURE_AT],
            blob[start + _SIGNATURE_AT : start + ITEM_BYTES],
        )
        for start in range(0, len(blob), ITEM_BYTES)
    ]
