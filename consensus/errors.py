"""Whose fault an error is: the sender's, nobody's yet, or ours.

Three kinds, after h11's LocalProtocolError and RemoteProtocolError. The kind decides
what happens next, so no caller ever has to read a message to know what to do:

    Rejected   the input is wrong and stays wrong: answer 4xx, score the peer, exit 2
    NotYet     the input may become right: keep it and try again
    Fault      this node is wrong (its code, its disk, its state): stop, loudly

Every message names the field and, where there is one, the mend.
"""


class AssayError(Exception):
    """What all three kinds have in common: one line that a person can act on."""

    def __init__(self, problem: str, *, field: str = "", mend: str = "", code: str = "") -> None:
        self.problem = problem
        self.field = field
        self.mend = mend
        self.code = code or "invalid"
        super().__init__(problem, field, mend, code)

    def __str__(self) -> str:
        place = f"{self.field}: " if self.field else ""
        mend = f"; {self.mend}" if self.mend else ""
        return f"{place}{self.problem}{mend}"


class Rejected(AssayError):
    """The input is wrong for good. `code` is a short stable word for machines (nonce_used)."""


class NotYet(AssayError):
    """The input cannot be judged yet (a parent, a body or a moment is missing)."""


class Fault(AssayError):
    """Our own state or code is wrong: nothing built on it may be signed or served."""
