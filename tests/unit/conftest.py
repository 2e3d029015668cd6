"""Fixtures that several unit tests share; a test file's own of the same name comes first."""

from tests.fakes.served_door import door, server, session  # noqa: F401
