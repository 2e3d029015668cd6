"""Mutual proof of the node key, before anything else is said on a connection.

    initiator                       responder
    Hello  ----------------------->
           <-----------------------  Hello, Proof
    Proof  ----------------------->
           <-----------------------  Welcome (or Goodbye)

Each Proof signs a tagged digest of: the signer's role, both nonces, both node keys, chain id, genesis
hash, protocol version and a channel binding (32 zero bytes until TLS brings RFC 9266's exporter).
Invariant: a proof is good for one connection, one side of it and one peer: roles stop reflection, nonces
replay, keys relaying to a third node. Pure but for the injected `random_bytes`; no sockets here.
Source: the shape of SIGMA (Krawczyk 2003) without its key exchange. Leaves out: secrecy; TLS brings it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from consensus import codec, crypto
from consensus.errors import Rejected
from node.network.frames import (
    INITIATOR,
    NONCE_BYTES,
    PROTOCOL_VERSION,
    REASON_LENGTH_MAX,
    RESPONDER,
    Frame,
    Goodbye,
    Hello,
    Proof,
    Welcome,
)

HANDSHAKE_TAG: Final = b"assay/node-handshake/1"
NO_CHANNEL: Final = bytes(32)  # the channel binding of a connection without TLS

RandomBytes = Callable[[int], bytes]
_ROLE_NAMES: Final = ("initiator", "responder")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are on the network. genesis_hash: 32 bytes; listen_url: where to dial us, or ""."""

    key: crypto.PrivateKey
    chain_id: str
    genesis_hash: bytes
    listen_url: str = ""


def compute_digest(hello: Hello, other: Hello, channel_binding: bytes = NO_CHANNEL) -> bytes:
    """What the sender of `hello` signs for the sender of `other`: 32 bytes."""
    body = codec.encode(
        (
            hello.version,
            hello.role,
            hello.nonce,
            hello.node_key,
            other.nonce,
            other.node_key,
            hello.genesis_hash,
            channel_binding,
        )
    )
    return crypto.tagged_digest(HANDSHAKE_TAG, hello.chain_id, body)


def check_hello(own: Hello, other: Hello) -> None:
    """Raises Rejected, with a line that the other side's operator understands, unless we can go on."""
    if other.version != own.version:
        raise Rejected(
            f"speaks protocol version {other.version}, this node {own.version}",
            field="hello.version",
            code="version",
            mend="run the same release",
        )
    if other.chain_id != own.chain_id:
        raise Rejected(
            f'is of chain "{other.chain_id}", this node of "{own.chain_id}"',
            field="hello.chain_id",
            code="wrong_chain",
            mend="dial a node of your own chain",
        )
    if other.genesis_hash != own.genesis_hash:
        raise Rejected(
            f"starts 0x{other.genesis_hash.hex()[:16]}, this node's 0x{own.genesis_hash.hex()[:16]}",
            field="hello.genesis_hash",
            code="wrong_genesis",
            mend="use the same genesis.json",
        )
    if other.node_key == own.node_key:
        raise Rejected("is this node's own", field="hello.node_key", code="self", mend="dial someone else")
    if other.role == own.role:
        raise Rejected("is ours: a reflected hello", field="hello.role", code="role")
    if other.nonce == own.nonce:
        raise Rejected("is ours: a reflected hello", field="hello.nonce", code="nonce")


def say_goodbye(error: Rejected) -> Goodbye:
    """The frame that tells the other side why."""
    text = str(error)
    reason = "".join(c if c.isascii() and c.isprintable() else "?" for c in text)[:REASON_LENGTH_MAX]
    return Goodbye(error.code[:32], reason or "refused")


class Handshake:
    """One side of one handshake: feed it frames, send what it answers, until `is_proven`.

    expected_key: whom the initiator meant to dial (None: anyone). `peer` is the other's hello and may be
    trusted once `is_proven`. After that the responder decides, and sends Welcome (`peers.py`).
    """

    def __init__(
        self,
        identity: Identity,
        role: int,
        random_bytes: RandomBytes,
        *,
        expected_key: bytes | None = None,
        channel_binding: bytes = NO_CHANNEL,
    ) -> None:
        nonce = random_bytes(NONCE_BYTES)
        assert len(nonce) == NONCE_BYTES
        self._identity = identity
        self._expected_key = expected_key
        self._channel_binding = channel_binding
        self.own = Hello(
            PROTOCOL_VERSION,
            identity.chain_id,
            identity.genesis_hash,
            role,
            identity.key.public_key,
            nonce,
            identity.listen_url,
        )
        self.peer: Hello | None = None
        self.is_proven = False
        self.is_welcome = False

    def start(self) -> tuple[Frame, ...]:
        """What this side says first: the initiator its hello, the responder nothing."""
        return (self.own,) if self.own.role == INITIATOR else ()

    def receive(self, frame: Frame) -> tuple[Frame, ...]:
        """Take the other side's next frame; returns what to send. Raises Rejected."""
        match frame:
            case Hello() if self.peer is None:
                return self._take_hello(frame)
            case Proof() if self.peer is not None and not self.is_proven:
                return self._take_proof(frame, self.peer)
            case Welcome() if self.is_proven and self.own.role == INITIATOR and not self.is_welcome:
                self.is_welcome = True
                return ()
            case Goodbye():
                raise Rejected(f"refused us: {frame.reason}", field="peer", code=frame.code)
            case _:
                raise Rejected(
                    f"{type(frame).__name__} does not come here", field="handshake", code="unexpected_frame"
                )

    def _take_hello(self, hello: Hello) -> tuple[Frame, ...]:
        check_hello(self.own, hello)
        if self._expected_key is not None and hello.node_key != self._expected_key:
            raise Rejected(
                f"is 0x{hello.node_key.hex()}, expected 0x{self._expected_key.hex()}",
                field="hello.node_key",
                code="wrong_key",
                mend="correct the peer's url or node_key in node.json",
            )
        self.peer = hello
        return (self.own, self._prove(hello)) if self.own.role == RESPONDER else ()

    def _take_proof(self, proof: Proof, peer: Hello) -> tuple[Frame, ...]:
        digest = compute_digest(peer, self.own, self._channel_binding)
        if not crypto.verify(peer.node_key, digest, proof.signature):
            raise Rejected(
                f"of the {_ROLE_NAMES[peer.role]} does not verify", field="proof.signature", code="signature"
            )
        self.is_proven = True
        return (self._prove(peer),) if self.own.role == INITIATOR else ()

    def _prove(self, peer: Hello) -> Proof:
        return Proof(self._identity.key.sign(compute_digest(self.own, peer, self._channel_binding)))
