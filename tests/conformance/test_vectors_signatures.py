"""Signatures against Wycheproof's bitcoin set and noble-curves' RFC 6979 vectors, with both libraries."""

import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from consensus import crypto
from consensus.crypto import PrivateKey
from consensus.errors import Rejected
from consensus.secp256k1 import Libsecp256k1, PythonEcdsa

BACKENDS = [Libsecp256k1(), PythonEcdsa()]
both_backends = pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
Backend = Libsecp256k1 | PythonEcdsa
SharedPath = Callable[[str], Path]

FALLBACK_STRIDE = 16  # python-ecdsa signs in about a millisecond: every 16th of 2,019 vectors is enough there


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def compress(uncompressed: bytes) -> bytes:
    """04 | x | y to the compressed form (SEC 1 section 2.3.3)."""
    assert len(uncompressed) == 65
    assert uncompressed[0] == 4
    return bytes([2 + uncompressed[64] % 2]) + uncompressed[1:33]


def read_der_integer(data: bytes) -> tuple[int, bytes]:
    """One INTEGER of strict DER, and the rest; ValueError for any other form."""
    if len(data) < 3 or data[0] != 0x02 or not 0 < data[1] <= len(data) - 2 or data[1] > 127:
        raise ValueError("no INTEGER of short definite length")
    body, rest = data[2 : 2 + data[1]], data[2 + data[1] :]
    if body[0] & 0x80:
        raise ValueError("negative")
    if len(body) > 1 and body[0] == 0 and not body[1] & 0x80:
        raise ValueError("padded")
    return int.from_bytes(body, "big"), rest


def convert_der(signature: bytes) -> bytes:
    """Strict DER (BIP-66) to r | s; ValueError where the encoding is not DER or a number needs over 32 bytes."""
    if len(signature) < 2 or signature[0] != 0x30 or signature[1] != len(signature) - 2 or signature[1] > 127:
        raise ValueError("no SEQUENCE of short definite length that fills the whole")
    r, rest = read_der_integer(signature[2:])
    s, rest = read_der_integer(rest)
    if rest or max(r, s) >= 2**256:
        raise ValueError("more than two numbers of 32 bytes")
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def accepts(key: bytes, message: bytes, signature: bytes, backend: Backend) -> bool:
    try:
        compact = convert_der(signature)
    except ValueError:
        return False
    return crypto.verify(key, hashlib.sha256(message).digest(), compact, backend=backend)


@both_backends
def test_wycheproof_bitcoin_set_is_judged_as_it_says(backend: Backend, shared_path: SharedPath) -> None:
    document = read(shared_path("vectors/wycheproof/ecdsa_secp256k1_sha256_bitcoin_test.json"))
    judged, wrong = 0, []
    for group in document["testGroups"]:
        key = compress(bytes.fromhex(group["publicKey"]["uncompressed"]))
        for vector in group["tests"]:
            judged += 1
            got = accepts(key, bytes.fromhex(vector["msg"]), bytes.fromhex(vector["sig"]), backend)
            if got != (vector["result"] == "valid"):
                wrong.append((vector["tcId"], vector["comment"], vector["result"]))
    assert wrong == []
    assert judged == document["numberOfTests"] == 463


@both_backends
def test_rfc6979_signatures_are_reproduced_byte_by_byte(backend: Backend, shared_path: SharedPath) -> None:
    vectors = read(shared_path("vectors/secp256k1-noble/ecdsa.json"))["valid"]
    assert len(vectors) == 2019
    if backend.name == "ecdsa":
        vectors = vectors[::FALLBACK_STRIDE]
    wrong = []
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # the fallback's; that it warns is a unit test's matter
        for vector in vectors:
            key = PrivateKey.from_bytes(bytes.fromhex(vector["d"]))
            digest, expected = bytes.fromhex(vector["m"]), bytes.fromhex(vector["signature"])
            signature = key.sign(digest, backend=backend)
            if signature != expected or not crypto.verify(key.public_key, digest, signature, backend=backend):
                wrong.append(vector)
    assert wrong == []


@both_backends
def test_rfc6979_nonces_show_in_r(backend: Backend, shared_path: SharedPath) -> None:
    vectors = read(shared_path("vectors/secp256k1-noble/rfc6979.json"))
    assert len(vectors) == 10
    for vector in vectors:
        # The vector gives the nonce k0; a signature shows x(k0 G), which is the public key of k0.
        nonce_point = PrivateKey.from_bytes(bytes.fromhex(vector["k0"])).public_key
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            digest = hashlib.sha256(vector["message"].encode()).digest()
            signature = PrivateKey.from_bytes(bytes.fromhex(vector["d"])).sign(digest, backend=backend)
        assert signature[:32] == nonce_point[1:], vector["message"]


@both_backends
def test_invalid_keys_and_signatures_are_refused(backend: Backend, shared_path: SharedPath) -> None:
    vectors = read(shared_path("vectors/secp256k1-noble/ecdsa.json"))["invalid"]["verify"]
    assert len(vectors) == 25
    for vector in vectors:
        key, digest = bytes.fromhex(vector["Q"]), bytes.fromhex(vector["m"])
        signature = bytes.fromhex(vector["signature"])
        assert not crypto.verify(key, digest, signature, backend=backend), vector["description"]


def test_secrets_out_of_range_are_rejected(shared_path: SharedPath) -> None:
    vectors = read(shared_path("vectors/secp256k1-noble/ecdsa.json"))["invalid"]["sign"]
    assert len(vectors) == 4
    for vector in vectors:
        with pytest.raises(Rejected, match="private_key"):
            PrivateKey.from_bytes(bytes.fromhex(vector["d"]))
