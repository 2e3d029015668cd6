"""consensus.crypto: what is accepted, what is signed, and that both libraries agree on it."""

import copy
import hashlib
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ecdsa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consensus import crypto
from consensus.crypto import PrivateKey
from consensus.errors import Rejected
from consensus.secp256k1 import FIELD_PRIME, GROUP_ORDER, Libsecp256k1, PythonEcdsa

LIBSECP = Libsecp256k1()
FALLBACK = PythonEcdsa()
BACKENDS = pytest.mark.parametrize("backend", [LIBSECP, FALLBACK], ids=lambda backend: backend.name)

KEY = PrivateKey.from_seed(b"alice")
OTHER = PrivateKey.from_seed(b"bob")
DIGEST = crypto.hash_bytes(b"a message")
SIGNATURE = KEY.sign(DIGEST)

digests = st.binary(min_size=32, max_size=32)
secrets = st.integers(1, GROUP_ORDER - 1).map(lambda number: number.to_bytes(32, "big"))
SLOW_ORACLE = settings(max_examples=15)  # python-ecdsa takes milliseconds for each example


def spell(number: int) -> bytes:
    return number.to_bytes(32, "big")


def sign_by_fallback(key: PrivateKey, digest: bytes) -> bytes:
    fallback = PythonEcdsa()
    with pytest.warns(RuntimeWarning, match="CVE-2024-23342"):
        return key.sign(digest, backend=fallback)


def test_coincurve_is_used_where_it_can_be_imported() -> None:
    assert crypto.BACKEND_NAME == "libsecp256k1"


def test_without_coincurve_the_fallback_verifies_in_silence_and_warns_once_when_it_signs() -> None:
    program = f"""
import sys, warnings
sys.modules["coincurve"] = None
from consensus import crypto
assert crypto.BACKEND_NAME == "ecdsa", crypto.BACKEND_NAME
key = crypto.PrivateKey.from_bytes(bytes.fromhex("{KEY.secret.hex()}"))
digest, signature = bytes.fromhex("{DIGEST.hex()}"), bytes.fromhex("{SIGNATURE.hex()}")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert crypto.verify(key.public_key, digest, signature)
    assert not caught
    assert key.sign(digest) == signature
    assert key.sign(digest) == signature
assert [w.category for w in caught] == [RuntimeWarning], caught
assert "CVE-2024-23342" in str(caught[0].message)
assert key.address.hex() == "{KEY.address.hex()}"
"""
    root = Path(crypto.__file__).resolve().parent.parent
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False, timeout=60
    )
    assert run.returncode == 0, run.stderr


@BACKENDS
def test_a_signature_holds_for_its_key_and_digest_only(backend: Libsecp256k1 | PythonEcdsa) -> None:
    assert crypto.verify(KEY.public_key, DIGEST, SIGNATURE, backend=backend)
    assert not crypto.verify(OTHER.public_key, DIGEST, SIGNATURE, backend=backend)
    assert not crypto.verify(KEY.public_key, crypto.hash_bytes(b"another"), SIGNATURE, backend=backend)


@SLOW_ORACLE
@given(secrets, digests)
@example(spell(1), bytes(32))
@example(spell(GROUP_ORDER - 1), b"\xff" * 32)
@example(spell(GROUP_ORDER - 1), spell(GROUP_ORDER))  # RFC 6979 reduces the digest first (bits2octets)
@example(spell(7), spell(GROUP_ORDER + 5))
def test_both_libraries_sign_the_same_bytes_and_accept_them(secret: bytes, digest: bytes) -> None:
    key = PrivateKey.from_bytes(secret)
    signature = key.sign(digest)
    assert signature == sign_by_fallback(key, digest)
    assert FALLBACK.compute_public_key(secret) == key.public_key
    assert crypto.verify(key.public_key, digest, signature, backend=LIBSECP)
    assert crypto.verify(key.public_key, digest, signature, backend=FALLBACK)


@SLOW_ORACLE
@given(st.data())
def test_both_libraries_judge_a_damaged_item_alike(data: st.DataObject) -> None:
    parts = [KEY.public_key, DIGEST, SIGNATURE]
    which = data.draw(st.integers(0, 2))
    place = data.draw(st.integers(0, len(parts[which]) - 1))
    flipped = bytearray(parts[which])
    flipped[place] ^= data.draw(st.integers(1, 255))
    parts[which] = bytes(flipped)
    public_key, digest, signature = parts
    assert not crypto.verify(public_key, digest, signature, backend=LIBSECP)
    assert not crypto.verify(public_key, digest, signature, backend=FALLBACK)
    assert crypto.is_valid_public_key(public_key, backend=LIBSECP) == crypto.is_valid_public_key(
        public_key, backend=FALLBACK
    )


@given(st.binary(max_size=70), st.binary(max_size=40), st.binary(max_size=70))
@example(b"", b"", b"")
def test_bytes_of_any_length_are_answered_with_false(key: bytes, digest: bytes, signature: bytes) -> None:
    assert crypto.verify(key, digest, signature) is False
    assert crypto.verify_batch([(key, digest, signature)]) == [False]


@BACKENDS
def test_the_high_s_twin_of_a_signature_is_refused(backend: Libsecp256k1 | PythonEcdsa) -> None:
    twin = SIGNATURE[:32] + spell(GROUP_ORDER - int.from_bytes(SIGNATURE[32:], "big"))
    # The oracle holds the twin for a valid signature: it is our own rule that refuses it.
    oracle = ecdsa.VerifyingKey.from_string(KEY.public_key, curve=ecdsa.SECP256k1)
    assert oracle.verify_digest(twin, DIGEST)
    assert not crypto.verify(KEY.public_key, DIGEST, twin, backend=backend)


@BACKENDS
@pytest.mark.parametrize(
    ("r", "s"),
    [(0, 1), (1, 0), (GROUP_ORDER, 1), (GROUP_ORDER + 1, 1), (1, GROUP_ORDER // 2 + 1), (1, GROUP_ORDER)],
)
def test_r_and_s_out_of_range_are_refused(backend: Libsecp256k1 | PythonEcdsa, r: int, s: int) -> None:
    assert not crypto.verify(KEY.public_key, DIGEST, spell(r) + spell(s), backend=backend)


def test_s_of_exactly_half_the_order_is_not_refused_by_form() -> None:
    # Any (r, s, digest) with r = x(k G) belongs to some key: d = (s k - e) / r.
    half = GROUP_ORDER // 2
    point = ecdsa.SECP256k1.generator * 5
    r = point.x() % GROUP_ORDER
    digest_number = int.from_bytes(DIGEST, "big") % GROUP_ORDER
    secret = (half * 5 - digest_number) * pow(r, -1, GROUP_ORDER) % GROUP_ORDER
    key = PrivateKey.from_bytes(spell(secret))
    assert crypto.verify(key.public_key, DIGEST, spell(r) + spell(half), backend=LIBSECP)
    assert crypto.verify(key.public_key, DIGEST, spell(r) + spell(half), backend=FALLBACK)


@BACKENDS
@pytest.mark.parametrize("digest", [DIGEST, bytes(32)], ids=["a digest", "zero"])
def test_a_signature_made_so_that_the_sum_is_no_point_is_refused(
    backend: Libsecp256k1 | PythonEcdsa, digest: bytes
) -> None:
    # Q = d G with r d = -e gives u1 G + u2 Q = infinity (for e = 0: u1 = 0, and a plain wrong answer).
    r = int.from_bytes(SIGNATURE[:32], "big")
    secret = -int.from_bytes(digest, "big") * pow(r, -1, GROUP_ORDER) % GROUP_ORDER or 1
    key = PrivateKey.from_bytes(spell(secret))
    assert not crypto.verify(key.public_key, digest, spell(r) + spell(3), backend=backend)


@BACKENDS
def test_a_key_has_one_spelling_only(backend: Libsecp256k1 | PythonEcdsa) -> None:
    key = KEY.public_key
    uncompressed = ecdsa.VerifyingKey.from_string(key, curve=ecdsa.SECP256k1).to_string("uncompressed")
    hybrid = bytes([6 + uncompressed[-1] % 2]) + uncompressed[1:]
    for other in (uncompressed, uncompressed[1:], hybrid, key[1:], key + b"\0", b"\x04" + key[1:], b""):
        assert not crypto.is_valid_public_key(other, backend=backend)
    assert crypto.is_valid_public_key(key, backend=backend)


@BACKENDS
def test_an_x_beyond_the_field_is_refused_even_where_its_rest_is_on_the_curve(
    backend: Libsecp256k1 | PythonEcdsa,
) -> None:
    assert crypto.is_valid_public_key(b"\x02" + spell(1), backend=backend)  # x = 1 is on the curve
    assert not crypto.is_valid_public_key(b"\x02" + spell(FIELD_PRIME + 1), backend=backend)
    assert not crypto.is_valid_public_key(b"\x02" + spell(5), backend=backend)  # x = 5 is not
    assert not crypto.is_valid_public_key(b"\x02" + spell(0), backend=backend)


@SLOW_ORACLE
@given(st.lists(st.sampled_from(["good", "high s", "short", "other key", "no point"]), max_size=6))
def test_a_batch_answers_as_single_calls_do(kinds: list[str]) -> None:
    items = {
        "good": (KEY.public_key, DIGEST, SIGNATURE),
        "high s": (KEY.public_key, DIGEST, SIGNATURE[:32] + b"\xff" * 32),
        "short": (KEY.public_key, DIGEST, SIGNATURE[:63]),
        "other key": (OTHER.public_key, DIGEST, SIGNATURE),
        "no point": (b"\x02" + spell(5), DIGEST, SIGNATURE),
    }
    batch = [items[kind] for kind in kinds]
    expected = [kind == "good" for kind in kinds]
    for backend in (LIBSECP, FALLBACK):
        assert crypto.verify_batch(batch, backend=backend) == expected
        assert [crypto.verify(*item, backend=backend) for item in batch] == expected


def test_threads_do_not_disturb_each_other() -> None:
    keys = [PrivateKey.from_seed(bytes([number])) for number in range(4)]
    items = [
        [(key.public_key, DIGEST, key.sign(DIGEST)), (key.public_key, DIGEST, SIGNATURE)] for key in keys
    ]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda index: crypto.verify_batch(items[index % 4] * 20), range(40)))
    assert answers == [[True, False] * 20] * 40


@given(st.binary(max_size=20), st.text(max_size=8), st.binary(max_size=40))
def test_a_tagged_digest_is_what_its_formula_says(tag: bytes, chain_id: str, body: bytes) -> None:
    def sha256(data: bytes) -> bytes:
        return hashlib.sha256(data).digest()

    expected = sha256(sha256(tag) + sha256(chain_id.encode()) + body)
    assert crypto.tagged_digest(tag, chain_id, body) == expected
    assert crypto.tagged_digest(tag, chain_id, body) == expected  # the kept prefix is not changed by use


def test_tag_chain_and_body_cannot_borrow_bytes_from_each_other() -> None:
    parts = [
        (b"ab", "c", b"d"),
        (b"a", "bc", b"d"),
        (b"ab", "cd", b""),
        (b"a", "b", b"cd"),
        (b"", "abcd", b""),
    ]
    assert len({crypto.tagged_digest(*part) for part in parts}) == len(parts)


def test_an_address_is_twenty_bytes_of_the_tagged_key() -> None:
    expected = hashlib.sha256(b"assay/address" + KEY.public_key).digest()[-20:]
    assert KEY.address == crypto.compute_address(KEY.public_key) == expected


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_a_seed_decides_the_key_alone(seed: bytes, other: bytes) -> None:
    assert PrivateKey.from_seed(seed) == PrivateKey.from_seed(seed)
    assert (PrivateKey.from_seed(seed) == PrivateKey.from_seed(other)) == (seed == other)


def test_the_key_of_a_seed_never_changes_between_releases() -> None:
    # Workload accounts are made this way: another key here would change every recorded transaction id.
    assert KEY.secret.hex() == "1b00e27e40b5e06546f48f7f98748cfc5fcc1582d791f8f2984246e78838ccb1"


def test_nothing_printed_of_a_private_key_shows_the_secret() -> None:
    for text in (repr(KEY), str(KEY), f"{KEY}", repr([KEY]), repr({"key": KEY})):
        assert KEY.secret.hex() not in text
        assert repr(KEY.secret) not in text
        assert KEY.address.hex() in text


def test_a_private_key_survives_copying_and_pickling() -> None:
    for twin in (copy.deepcopy(KEY), pickle.loads(pickle.dumps(KEY))):
        assert (twin, twin.address, twin.sign(DIGEST)) == (KEY, KEY.address, SIGNATURE)


@pytest.mark.parametrize(
    ("secret", "problem"),
    [
        (b"", "32 bytes"),
        (b"\x01" * 31, "32 bytes"),
        (b"\x01" * 33, "32 bytes"),
        (bytes(32), "order"),
        (spell(GROUP_ORDER), "order"),
        (b"\xff" * 32, "order"),
    ],
)
def test_a_secret_that_is_no_key_is_rejected_by_name(secret: bytes, problem: str) -> None:
    with pytest.raises(Rejected, match=problem) as caught:
        PrivateKey.from_bytes(secret)
    assert caught.value.field == "private_key"
    assert secret == b"" or secret.hex() not in str(caught.value)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_signing_anything_but_a_digest_is_a_mistake_of_the_caller(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        KEY.sign(bytes(length))
