"""The engine's host: whom it tells what, and that the voice of an ended epoch is not heard any more."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from consensus.bft.contract import CertificateRequest, FetchCertificate
from consensus.vote import FINALIZE, NOTARIZE, Certificate, Subject, Vote
from node.engine.host import EngineHost
from node.network.frames import EngineMessage

VOTE = Vote(Subject(3, NOTARIZE, 2, b"b" * 32), 0, b"s" * 64)
CERTIFICATE = Certificate(Subject(3, FINALIZE, 2, b"b" * 32), ((0, b"s" * 64),))
EVERYBODY = b""


class Line:
    """A network of so many strangers, and configured peers after them, that notes what is sent, and to whom."""

    def __init__(self, peers: int, known: int = 0) -> None:
        self.sent: list[bytes] = []
        names = [*[""] * peers, *["known"] * known]
        self._peers = [
            SimpleNamespace(node_key=bytes((number + 1,)), name=name) for number, name in enumerate(names)
        ]

    def peers(self) -> tuple[Any, ...]:
        return tuple(self._peers)

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


@pytest.mark.parametrize(("strangers", "known"), [(9, 0), (0, 9), (60, 1), (60, 3), (1, 60)])
def test_what_is_for_four_goes_to_four_of_many(strangers: int, known: int) -> None:
    line = Line(strangers, known)
    make_host(line).broadcast(CERTIFICATE, 4)
    assert len(set(line.sent)) == len(line.sent) == 4
    assert EVERYBODY not in line.sent
    assert sum(key[0] > strangers for key in line.sent) >= min(2, known)


def test_a_certificate_is_asked_for_at_a_configured_peer_every_other_time() -> None:
    line = Line(60, 2)
    host = make_host(line)
    request = CertificateRequest(3, 2, NOTARIZE)
    for attempt in range(20):
        host.fetch_certificate(FetchCertificate(request, None, attempt))
    assert all(key[0] > 60 for key in line.sent[::2])
    assert any(key[0] <= 60 for key in line.sent[1::2])
    assert len(set(line.sent[::2])) == 2


@pytest.mark.parametrize("peers", [0, 3])
def test_where_nobody_is_configured_anybody_is_asked_for_a_certificate(peers: int) -> None:
    line = Line(peers)
    make_host(line).fetch_certificate(FetchCertificate(CertificateRequest(3, 2, NOTARIZE), None, 0))
    assert len(line.sent) == min(1, peers)
