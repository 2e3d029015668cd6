"""The proof of the node key: both sides come through, and every forgery fails."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.crypto import PrivateKey
from consensus.errors import Rejected
from node.network.frames import INITIATOR, RESPONDER, Frame, Goodbye, Hello, Proof, Status, Welcome
from node.network.handshake import Handshake, Identity, compute_digest, say_goodbye
from node.network.wire import decode_frame, encode_frame

ALICE = Identity(PrivateKey.from_seed(b"alice"), "test", b"\x01" * 32)
BOB = Identity(PrivateKey.from_seed(b"bob"), "test", b"\x01" * 32, "ws://127.0.0.1:1")
MALLORY = Identity(PrivateKey.from_seed(b"mallory"), "test", b"\x01" * 32)


def make(identity: Identity, role: int, seed: int, expected: Identity | None = None) -> Handshake:
    key = expected.key.public_key if expected else None
    return Handshake(identity, role, random.Random(seed).randbytes, expected_key=key)


def make_pair() -> tuple[Handshake, Handshake]:
    return make(ALICE, INITIATOR, 1, BOB), make(BOB, RESPONDER, 2)


def exchange_hellos(alice: Handshake, bob: Handshake) -> tuple[Proof, Proof]:
    """Up to both proofs: Bob's has reached Alice, Alice's is under way."""
    (hello,) = alice.start()
    answer, bobs_proof = bob.receive(hello)
    assert alice.receive(answer) == ()
    (alices_proof,) = alice.receive(bobs_proof)
    assert isinstance(alices_proof, Proof)
    assert isinstance(bobs_proof, Proof)
    return alices_proof, bobs_proof


def test_both_sides_prove_their_keys() -> None:
    alice, bob = make_pair()
    proof, _ = exchange_hellos(alice, bob)
    assert bob.receive(proof) == ()
    assert alice.is_proven
    assert bob.is_proven
    assert alice.receive(Welcome()) == ()
    assert alice.is_welcome
    assert bob.peer is not None
    assert alice.peer is not None
    assert (bob.peer.node_key, alice.peer.node_key) == (ALICE.key.public_key, BOB.key.public_key)
    assert alice.peer.listen_url == "ws://127.0.0.1:1"


def test_the_responder_says_nothing_first() -> None:
    assert make(BOB, RESPONDER, 2).start() == ()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"version": 2}, "version"),
        ({"chain_id": "other"}, "wrong_chain"),
        ({"genesis_hash": bytes(32)}, "wrong_genesis"),
        ({"role": RESPONDER}, "role"),
        ({"node_key": BOB.key.public_key}, "self"),
        ({"nonce": random.Random(2).randbytes(32)}, "nonce"),
    ],
)
def test_a_hello_that_does_not_fit_is_rejected_with_its_code(change: dict[str, object], code: str) -> None:
    alice, bob = make_pair()
    (hello,) = alice.start()
    assert isinstance(hello, Hello)
    with pytest.raises(Rejected) as caught:
        bob.receive(replace(hello, **change))  # type: ignore[arg-type]
    assert caught.value.code == code
    goodbye = say_goodbye(caught.value)
    assert goodbye.code == code
    assert decode_frame(encode_frame(goodbye)) == goodbye


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"chain_id": "other"},
        {"genesis_hash": bytes(32)},
        {"role": RESPONDER},
        {"node_key": MALLORY.key.public_key},
        {"nonce": bytes(32)},
    ],
)
def test_the_signature_covers_every_field(change: dict[str, object]) -> None:
    alice, bob = make_pair()
    digest = compute_digest(alice.own, bob.own)
    assert compute_digest(replace(alice.own, **change), bob.own) != digest  # type: ignore[arg-type]
    if not {"version", "chain_id", "genesis_hash", "role"} & set(change):
        assert compute_digest(alice.own, replace(bob.own, **change)) != digest  # type: ignore[arg-type]
    assert compute_digest(alice.own, bob.own, b"\x01" * 32) != digest
    assert compute_digest(bob.own, alice.own) != digest


@given(st.integers(0, 63), st.integers(1, 255))
def test_a_changed_signature_fails(place: int, bits: int) -> None:
    alice, bob = make_pair()
    proof, _ = exchange_hellos(alice, bob)
    signature = bytearray(proof.signature)
    signature[place] ^= bits
    with pytest.raises(Rejected, match="does not verify"):
        bob.receive(Proof(bytes(signature)))
    assert not bob.is_proven


def test_a_proof_of_another_connection_fails() -> None:
    alice, bob = make_pair()
    recorded, _ = exchange_hellos(alice, bob)
    again = make(BOB, RESPONDER, 3)  # the same Bob, a fresh nonce
    again.receive(alice.own)
    with pytest.raises(Rejected, match="does not verify"):
        again.receive(recorded)


def test_a_reflected_hello_fails() -> None:
    alice = make(ALICE, INITIATOR, 1)
    (hello,) = alice.start()
    with pytest.raises(Rejected) as caught:
        alice.receive(hello)
    assert caught.value.code == "self"


def test_a_reflected_proof_fails() -> None:
    # Mallory claims Alice's own key's peer role by giving her own signature back.
    alice, bob = make_pair()
    (hello,) = alice.start()
    answer, _ = bob.receive(hello)
    alice.receive(answer)
    own = Proof(ALICE.key.sign(compute_digest(alice.own, bob.own)))
    with pytest.raises(Rejected, match="of the responder does not verify"):
        alice.receive(own)


def test_a_proof_for_one_peer_does_not_pass_with_another() -> None:
    # Mallory answers Alice's dial and relays her proof to Bob, who would take it for Alice's.
    alice, mallory, bob = make(ALICE, INITIATOR, 1), make(MALLORY, RESPONDER, 5), make(BOB, RESPONDER, 2)
    (hello,) = alice.start()
    answer, mallorys_proof = mallory.receive(hello)
    alice.receive(answer)
    (proof,) = alice.receive(mallorys_proof)
    bob.receive(hello)
    with pytest.raises(Rejected, match="does not verify"):
        bob.receive(proof)


def test_a_key_without_its_secret_proves_nothing() -> None:
    bob = make(BOB, RESPONDER, 2)
    forged = replace(make(MALLORY, INITIATOR, 5).own, node_key=ALICE.key.public_key)
    bob.receive(forged)
    with pytest.raises(Rejected, match="of the initiator does not verify"):
        bob.receive(Proof(MALLORY.key.sign(compute_digest(forged, bob.own))))


def test_the_initiator_meets_whom_it_dialled_or_no_one() -> None:
    alice, mallory = make(ALICE, INITIATOR, 1, BOB), make(MALLORY, RESPONDER, 5)
    (hello,) = alice.start()
    answer, _ = mallory.receive(hello)
    with pytest.raises(Rejected) as caught:
        alice.receive(answer)
    assert caught.value.code == "wrong_key"
    assert not alice.is_proven


def test_two_channels_do_not_share_a_proof() -> None:
    alice = Handshake(ALICE, INITIATOR, random.Random(1).randbytes, channel_binding=b"\x01" * 32)
    bob = Handshake(BOB, RESPONDER, random.Random(2).randbytes, channel_binding=b"\x02" * 32)
    (hello,) = alice.start()
    answer, proof = bob.receive(hello)
    alice.receive(answer)
    with pytest.raises(Rejected, match="does not verify"):
        alice.receive(proof)


@pytest.mark.parametrize("frame", [Proof(bytes(64)), Welcome(), Status(0, 0, 0, 0, bytes(32))])
def test_a_frame_out_of_turn_is_rejected(frame: Frame) -> None:
    for side in make_pair():
        with pytest.raises(Rejected) as caught:
            side.receive(frame)
        assert caught.value.code == "unexpected_frame"


def test_a_second_hello_is_rejected() -> None:
    alice, bob = make_pair()
    bob.receive(alice.own)
    with pytest.raises(Rejected, match="does not come here"):
        bob.receive(alice.own)


def test_a_goodbye_carries_its_reason() -> None:
    alice, _ = make_pair()
    with pytest.raises(Rejected, match="dial someone else"):
        alice.receive(Goodbye("full", "dial someone else"))
