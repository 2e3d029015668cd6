"""The engine's host: whom it tells what, and that the voice of an ended epoch is not heard any more."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from consensus.vote import FINALIZE, NOTARIZE, Certificate, Subject, Vote
from node.engine.host import EngineHost
from node.network.frames import EngineMessage

VOTE = Vote(Subject(3, NOTARIZE, 2, b"b" * 32), 0, b"s" * 64)
CERTIFICATE = Certificate(Subject(3, FINALIZE, 2, b"b" * 32), ((0, b"s" * 64),))
EVERYBODY = b""


class Line:
    """A network of so many peers that notes what is sent, and to whom."""

    def __init__(self, peers: int) -> None:
        self.sent: list[bytes] = []
        self._peers = [SimpleNamespace(node_key=bytes((number + 1,))) for number in range(peers)]

    def peers(self) -> list[Any]:
        return self._peers

    def broadcast(self, frame: object) -> None:
        assert isinstance(frame, EngineMessage)
        self.sent.append(EVERYBODY)

    def send(self, peer: bytes, frame: object) -> None:
        assert isinstance(frame, EngineMessage)
        self.sent.append(peer)


def make_host(line: Line) -> EngineHost:
    room: Any = None  # none is asked for what is told others
    network: Any = line
    rng = random.Random(7)
    return EngineHost(room, room, network, room, room, room, room, rng, 3, lambda _: None)


def test_votes_of_an_epoch_that_is_over_are_told_nobody_and_certificates_are() -> None:
    line = Line(3)
    host = make_host(line)
    host.broadcast(VOTE, None)
    host.send(b"\x01", VOTE)
    assert line.sent == [EVERYBODY, b"\x01"]
    host.is_over = True
    host.broadcast(VOTE, None)
    host.send(b"\x01", VOTE)
    assert len(line.sent) == 2
    host.broadcast(CERTIFICATE, None)
    host.send(b"\x02", CERTIFICATE)
    assert line.sent[2:] == [EVERYBODY, b"\x02"]


@pytest.mark.parametrize("peers", [0, 3, 4])
def test_what_is_for_four_is_for_everybody_where_there_are_no_more(peers: int) -> None:
    line = Line(peers)
    make_host(line).broadcast(CERTIFICATE, 4)
    assert line.sent == [EVERYBODY]


def test_what_is_for_four_goes_to_four_of_many() -> None:
    line = Line(9)
    make_host(line).broadcast(CERTIFICATE, 4)
    assert len(set(line.sent)) == len(line.sent) == 4
    assert EVERYBODY not in line.sent
