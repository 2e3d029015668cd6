"""While a simulated world runs, nobody asks the real one: clocks, chance, sockets and sleep are forbidden.

Each forbidden function is replaced where it is looked up, in its module, by one that raises; and put
back afterwards. `random.Random(seed)` itself stays free: it is what the world draws from.

A task keeps what is raised in it to itself; so the first such call is remembered, and leaving the block
raises it whatever became of it inside.

Invariant: after the `with` block everything is as before, also when it ends by an exception; guards nest.
Leaves out: names that were imported from these modules one by one before (`from time import time`);
`tests/simulation/test_world.py` looks for those in what a run imports. One run at a time in a process.
"""

from __future__ import annotations

import os
import random
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final, NoReturn

CLOCKS: Final = ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep")
DRAWS: Final = (
    *("random", "randint", "randrange", "choice", "choices", "shuffle", "sample", "uniform", "seed"),
    *("getrandbits", "randbytes", "gauss", "expovariate", "SystemRandom"),
)
FORBIDDEN: Final[tuple[tuple[ModuleType, tuple[str, ...]], ...]] = (
    (time, CLOCKS),
    (random, DRAWS),
    (os, ("urandom", "getrandom")),
    (secrets, ("token_bytes", "token_hex", "randbits", "randbelow", "choice")),
    (socket, ("socket", "create_connection", "create_server", "getaddrinfo")),
)


class ForbiddenCallError(BaseException):
    """Code in a simulated world asked the real one. Not an Exception, so that nobody swallows it."""


def _make_refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        error = ForbiddenCallError(
            f"{name} was called inside a simulated world, which gives time and chance itself"
        )
        _calls.append(error)
        raise error

    return refuse


_REFUSALS: Final = [
    (module, name, _make_refusal(f"{module.__name__}.{name}"))
    for module, names in FORBIDDEN
    for name in names
    if hasattr(module, name)  # os.getrandom is Linux's alone
]
_is_on = False
_calls: list[ForbiddenCallError] = []  # while the guard is on


@contextmanager
def forbid_outside() -> Iterator[None]:
    """Until the block ends, every call in FORBIDDEN raises ForbiddenCallError; and then its end does."""
    global _is_on  # noqa: PLW0603 - what it guards is the process's too
    if _is_on:
        yield
        return
    saved = [(module, name, getattr(module, name)) for module, name, _ in _REFUSALS]
    _is_on = True
    _calls.clear()
    try:
        for module, name, refuse in _REFUSALS:
            setattr(module, name, refuse)
        yield
        if _calls:
            raise _calls[0]
    except Exception as error:
        if _calls:
            raise _calls[0] from error
        raise
    finally:
        for module, name, function in saved:
            setattr(module, name, function)
        _is_on = False
