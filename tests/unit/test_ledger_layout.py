"""docs/ledger.md, followed by hand: leaf, roots and block hash from nothing but hashlib and msgpack."""

from hashlib import sha256

import msgpack

from consensus.ledger import records as rec
from tests.ledger_chain import KEYS, STRANGERS, VALIDATORS, Chain


def hash_accounts(rows: list[bytes]) -> bytes:
    level = [sha256(b"\x00" + row).digest() for row in rows]
    for _ in range(6):
        level += [bytes(32)] * (-len(level) % 16)
        nodes = [b"".join(level[at : at + 16]) for at in range(0, len(level), 16)]
        level = [sha256(b"\x01" + node).digest() if any(node) else bytes(32) for node in nodes]
    return level[0]


def hash_records(items: list[tuple[str, bytes]]) -> bytes:
    """`items`: (key in hex digits, value), each key once."""
    if not items:
        return bytes(32)
    if len(items) == 1:
        key = bytes.fromhex(items[0][0])
        return sha256(b"\x00" + bytes([len(key)]) + key + items[0][1]).digest()
    common = 0
    while len({path[common] for path, _ in items}) == 1:
        common += 1
    children = [
        hash_records([item for item in items if item[0][common] == digit]) for digit in "0123456789abcdef"
    ]
    return sha256(b"\x01" + bytes([common]) + items[0][0][:common].encode() + b"".join(children)).digest()


def hash_list(leaves: list[bytes]) -> bytes:
    if not leaves:
        return sha256().digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    half = 1 << ((len(leaves) - 1).bit_length() - 1)
    return sha256(b"\x01" + hash_list(leaves[:half]) + hash_list(leaves[half:])).digest()


def make_row(address: bytes, *numbers: int) -> bytes:
    return address + b"".join(number.to_bytes(8, "big") for number in numbers)


def test_every_root_can_be_recomputed_from_the_documentation() -> None:
    chain = Chain()
    genesis = chain.view.header
    sent = chain.transfer(KEYS[2], STRANGERS[0], amount=50, fee=3)
    first = chain.grow(sent, chain.transfer(KEYS[3], KEYS[2], nonce=2)).block
    chain.grow()
    second = chain.grow(chain.report(1, 0)).block
    rows = [
        make_row(KEYS[0].address, 1_000_000, 0, 0) + bytes(5),
        make_row(KEYS[1].address, 1_000_000 - 1, 1, 1) + bytes(5),
        make_row(KEYS[2].address, 1_000_000 - 53 + 5, 1, 1) + b"\x00\x00\x01\x00\x00",
        make_row(KEYS[3].address, 1_000_000 - 6, 3, 1) + b"\x00\x00\x01\x00\x00",
        make_row(KEYS[4].address, 1_000_000, 0, 0) + bytes(5),
        make_row(KEYS[5].address, 1_000_000, 0, 0) + bytes(5),
        make_row(VALIDATORS[0].address, 5, 0, 0) + bytes(5),
        make_row(VALIDATORS[1].address, 0, 0, 0) + bytes(5),
        make_row(STRANGERS[0].address, 50, 0, 0) + b"\x00\x00\x00\x00\x01",
    ]
    parameters = chain.rules.genesis.parameters
    # One seat, of weight 1, with its rows in slot 0: a tag and four bytes, generation 0.
    digest = b"c" * 32
    modules = msgpack.packb(((("counting", digest, 2_000, 5_000, 1, digest, 4, 0),), ((5, 0),)))
    hashes = [genesis.hash, *(block.hash for block in chain.blocks)]
    open_ms = parameters.report_window_ms + parameters.report_contest_ms + 2 * parameters.dispute_vote_ms
    day = ((sent.timestamp_ms + open_ms) // 86_400_000 + 1).to_bytes(4, "big")
    report = second.transactions[0]
    period = (sent.timestamp_ms // parameters.report_pair_ms).to_bytes(8, "big")
    records = {
        b"\x00\x00": chain.rules.genesis.digest,
        b"\x00\x01": (6_000_000 + 1_000).to_bytes(8, "big") + bytes(16),
        b"\x00\x02": modules,
        b"\x01" + KEYS[0].address: msgpack.packb((0, 0, 0)),
        b"\x01" + KEYS[1].address: msgpack.packb((0, 0, 0)),
        **{b"\x02" + height.to_bytes(8, "big"): hash_list(hashes[:height]) for height in range(4)},
        # The case of the reported transfer, the one report of it, and the period's first of the two accounts.
        b"\x81" + day + sent.id: msgpack.packb(
            (sent.sender, sent.receiver, first.scores[0], 1, report.timestamp_ms, 3, 0, b"\x00\x01\x00\x01")
        ),
        b"\x96" + day + sent.id + b"\x00" + report.sender: report.timestamp_ms.to_bytes(8, "big")
        + (3).to_bytes(8, "big"),
        b"\x99" + period + sent.sender + sent.receiver: sent.id,
        # One everlasting epoch: its set, and the stakes of genesis (too small to stand for election).
        b"\x03" + bytes(8): msgpack.packb(tuple((v.public_key, 500, v.address) for v in VALIDATORS)),
        **{
            b"\x04" + v.address: msgpack.packb((serial, v.public_key, 500, 500, 500, 1_000, 0, 0, 0))
            for serial, v in enumerate(VALIDATORS)
        },
        **{b"\x08" + v.public_key: v.address for v in VALIDATORS},
        b"\x0a\x00": msgpack.packb((2, 0, 0)),
        # The module of genesis is a model without an artifact, and judges from block 1 on.
        b"\x10" + digest: msgpack.packb(("counting", digest, 4, b"", 0, 1)),
        b"\x16" + (1).to_bytes(8, "big"): msgpack.packb((modules, ())),
    }
    assert dict(chain.view.records.walk()) == records
    assert rec.get_kind_namespace(1) == b"\x81"
    records_root = hash_records([(key.hex(), value) for key, value in records.items()])
    root = sha256(
        b"assay/state/1" + msgpack.packb((9, hash_accounts(rows), records_root, 3, hash_list(hashes[:3])))
    ).digest()
    header = second.header
    assert header.state_root == root
    assert header.history_root == hash_list(hashes[:3])
    assert header.modules_digest == sha256(b"assay/modules/2" + modules).digest()
    leaves = [
        tx.id + score.to_bytes(2, "big") + bytes([outcome])
        for tx, score, outcome in zip(first.transactions, first.scores, first.outcomes, strict=True)
    ]
    assert first.header.transactions_root == hash_list(leaves)
    fields = (
        0,
        3,
        3,
        2,
        hashes[2],
        VALIDATORS[0].public_key,
        header.timestamp_ms,
        1,
        header.transactions_root,
        root,
        header.history_root,
        header.modules_digest,
        chain.rules.validators.digest,
        chain.rules.validators.digest,
        header.certificate_digest,
        b"",
        0,
        sha256(b"").digest(),
    )
    assert header.hash == sha256(b"assay/header/1" + msgpack.packb(fields)).digest()
