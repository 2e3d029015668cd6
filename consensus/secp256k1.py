"""The two libraries that know the curve secp256k1, behind one small contract.

`Libsecp256k1` is bitcoin-core's library, reached through coincurve's own bindings: about 37 us
a verification. `PythonEcdsa` is the pure-Python fallback, some fifty times slower and open to
timing attacks (CVE-2024-23342), so it signs only with a warning.

Invariant: both accept the same set and sign the same bytes. It holds because `consensus.crypto`
makes every check of form *before* it asks either; call them through it, never directly.
Source: SEC 1 v2 section 4.1 (ECDSA), RFC 6979 (nonces), BIP-62 (low s), BIP-146.
Left out: recovery of public keys, Schnorr signatures, ECDH.
"""

import warnings
from collections.abc import Iterable
from hashlib import sha256
from typing import Any, Final, Protocol

FIELD_PRIME: Final = 2**256 - 2**32 - 977  # p of SEC 2 v2 section 2.4.1
GROUP_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141  # n, ibid.

Signed = tuple[bytes, bytes, bytes]  # (public key of 33 bytes, digest of 32, compact signature of 64)


class Backend(Protocol):
    """What a signature library must do. Inputs have the right form already; none may raise on them."""

    name: str

    def compute_public_key(self, secret: bytes) -> bytes:
        """The compressed key (33 bytes) of a secret (32 bytes, 0 < secret < n)."""
        ...

    def is_on_curve(self, public_key: bytes) -> bool:
        """Whether 33 bytes with prefix 2 or 3 and x < p name a point of the curve."""
        ...

    def sign(self, secret: bytes, digest: bytes) -> bytes:
        """r | s (64 bytes), nonce by RFC 6979 with SHA-256, s at most n/2."""
        ...

    def verify_all(self, items: Iterable[Signed]) -> list[bool]:
        """One answer per item, in order; a key that is no point of the curve answers False."""
        ...


class Libsecp256k1:
    """libsecp256k1 through the cffi module inside coincurve.

    coincurve's public `PublicKey.verify` wants DER, which costs a conversion each way; the three C
    calls below take the compact form as it travels. Structs are allocated per call of `verify_all`
    (70 ns) and never shared: cffi releases the GIL inside a call, so a buffer kept in the
    instance would be overwritten by a second thread.
    """

    name = "libsecp256k1"

    def __init__(self) -> None:
        from coincurve._libsecp256k1 import ffi, lib  # ImportError here is how the fallback gets its turn
        from coincurve.context import GLOBAL_CONTEXT

        self._ffi: Any = ffi
        self._lib: Any = lib
        self._signing_context: Any = GLOBAL_CONTEXT.ctx  # blinded by coincurve against timing attacks
        self._verifying_context: Any = lib.secp256k1_context_static  # verification has no secret to blind
        self._new: Any = ffi.new_allocator(should_clear_after_alloc=False)  # every struct is written first
        self._key_type: Any = ffi.typeof("secp256k1_pubkey *")
        self._signature_type: Any = ffi.typeof("secp256k1_ecdsa_signature *")

    def compute_public_key(self, secret: bytes) -> bytes:
        ffi, lib, context = self._ffi, self._lib, self._signing_context
        key = self._new(self._key_type)
        written = lib.secp256k1_ec_pubkey_create(context, key, secret)
        assert written == 1, "the caller has checked that the secret lies in 1..n-1"
        output, size = ffi.new("unsigned char[33]"), ffi.new("size_t *", 33)
        lib.secp256k1_ec_pubkey_serialize(context, output, size, key, lib.SECP256K1_EC_COMPRESSED)
        return bytes(output)

    def is_on_curve(self, public_key: bytes) -> bool:
        key = self._new(self._key_type)
        parsed = self._lib.secp256k1_ec_pubkey_parse(self._verifying_context, key, public_key, 33)
        return bool(parsed == 1)

    def sign(self, secret: bytes, digest: bytes) -> bytes:
        ffi, lib, context = self._ffi, self._lib, self._signing_context
        signature = self._new(self._signature_type)
        # NULL, NULL: the library's default nonce function, RFC 6979 without extra entropy. It normalises s.
        signed = lib.secp256k1_ecdsa_sign(context, signature, digest, secret, ffi.NULL, ffi.NULL)
        assert signed == 1, "RFC 6979 always yields a nonce for a secret in 1..n-1"
        output = ffi.new("unsigned char[64]")
        lib.secp256k1_ecdsa_signature_serialize_compact(context, output, signature)
        return bytes(output)

    def verify_all(self, items: Iterable[Signed]) -> list[bool]:
        lib, context = self._lib, self._verifying_context
        parse_key, verify = lib.secp256k1_ec_pubkey_parse, lib.secp256k1_ecdsa_verify
        parse_signature = lib.secp256k1_ecdsa_signature_parse_compact
        key, signature = self._new(self._key_type), self._new(self._signature_type)
        return [
            parse_key(context, key, public_key, 33) == 1
            and parse_signature(context, signature, compact) == 1
            and verify(context, signature, digest, key) == 1
            for public_key, digest, compact in items
        ]


class PythonEcdsa:
    """python-ecdsa: for machines without coincurve, and the independent oracle in tests.

    Its maintainers place side channels out of scope (CVE-2024-23342): whoever can time this
    process may learn the key it signs with. Verification handles no secret and does not warn.
    """

    name = "ecdsa"

    def __init__(self) -> None:
        import ecdsa

        self._ecdsa: Any = ecdsa
        self._curve: Any = ecdsa.SECP256k1
        self._has_warned = False

    def compute_public_key(self, secret: bytes) -> bytes:
        key = self._ecdsa.SigningKey.from_string(secret, curve=self._curve).verifying_key
        return bytes(key.to_string("compressed"))

    def is_on_curve(self, public_key: bytes) -> bool:
        return self._parse_key(public_key) is not None

    def sign(self, secret: bytes, digest: bytes) -> bytes:
        if not self._has_warned:
            self._has_warned = True  # first, so that a process which turns warnings into errors can go on
            warnings.warn(
                "signing with python-ecdsa, which leaks the private key through timing (CVE-2024-23342); "
                "install coincurve before this key guards anything of value",
                RuntimeWarning,
                stacklevel=3,
            )
        key = self._ecdsa.SigningKey.from_string(secret, curve=self._curve, hashfunc=sha256)
        compact = key.sign_digest_deterministic(
            digest, hashfunc=sha256, sigencode=self._ecdsa.util.sigencode_string_canonize
        )
        return bytes(compact)

    def verify_all(self, items: Iterable[Signed]) -> list[bool]:
        return [self._verify(*item) for item in items]

    def _verify(self, public_key: bytes, digest: bytes, signature: bytes) -> bool:
        key = self._parse_key(public_key)
        if key is None:
            return False
        # SEC 1 section 4.1.4 written out: the library's own verify_digest raises TypeError where R is the
        # point at infinity (step 5), which anyone can bring about with a key and signature made for it.
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        inverse = pow(s, -1, GROUP_ORDER)
        u1, u2 = int.from_bytes(digest, "big") * inverse % GROUP_ORDER, r * inverse % GROUP_ORDER
        point = self._curve.generator.mul_add(u1, key.pubkey.point, u2)
        return bool(point != self._ecdsa.ellipticcurve.INFINITY and point.x() % GROUP_ORDER == r)

    def _parse_key(self, public_key: bytes) -> Any:
        try:
            return self._ecdsa.VerifyingKey.from_string(
                public_key, curve=self._curve, hashfunc=sha256, valid_encodings=("compressed",)
            )
        except self._ecdsa.errors.MalformedPointError:
            return None


def load_backend() -> Backend:
    """libsecp256k1 where coincurve can be imported, else python-ecdsa."""
    try:
        return Libsecp256k1()
    except ImportError:
        return PythonEcdsa()
