"""RFC 6962 trees against transparency-dev/merkle's roots, inclusion and consistency vectors."""

import json
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

from consensus import merkle
from consensus.refusal import LogHead, verify_extension
from node.store.tile_tree import TileTree

SharedPath = Callable[[str], Path]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def decode_proof(vector: dict[str, Any]) -> list[bytes]:
    return [b64decode(node) for node in vector["proof"] or []]


def test_roots_of_all_published_sizes(shared_path: SharedPath) -> None:
    document = read(shared_path("vectors/merkle/rfc6962_roots.json"))
    leaves = [bytes.fromhex(leaf) for leaf in document["leaf_inputs_hex"]]
    expected = [bytes.fromhex(root) for root in document["root_hash_by_tree_size_hex"]]
    assert [merkle.compute_root(leaves[:size]) for size in range(len(leaves) + 1)] == expected


def test_inner_nodes_of_the_published_tree(shared_path: SharedPath) -> None:
    document = read(shared_path("vectors/merkle/rfc6962_roots.json"))
    nodes = [merkle.hash_leaf(bytes.fromhex(leaf)) for leaf in document["leaf_inputs_hex"]]
    published = [bytes.fromhex(node) for node in document["node_hashes_level_order_hex"]]
    level = nodes
    while len(level) > 1:
        level = [merkle.hash_node(*level[place : place + 2]) for place in range(0, len(level), 2)]
        nodes = nodes + level
    assert sorted(nodes) == sorted(published)


def test_inclusion_vectors_are_judged_as_they_say(shared_path: SharedPath) -> None:
    files = sorted(shared_path("vectors/merkle/testdata/inclusion").rglob("*.json"))
    assert len(files) == 98
    for file in files:
        vector = read(file)
        is_included = merkle.verify_inclusion(
            b64decode(vector["leafHash"]),
            vector["leafIdx"],
            vector["treeSize"],
            decode_proof(vector),
            b64decode(vector["root"]),
        )
        assert is_included != vector["wantErr"], f"{file.parent.name}/{file.name}: {vector['desc']}"


def test_consistency_vectors_are_judged_as_they_say(shared_path: SharedPath) -> None:
    files = sorted(shared_path("vectors/merkle/testdata/consistency").rglob("*.json"))
    assert len(files) == 98
    for file in files:
        vector = read(file)
        is_consistent = merkle.verify_consistency(
            vector["size1"],
            vector["size2"],
            b64decode(vector["root1"]),
            b64decode(vector["root2"]),
            decode_proof(vector),
        )
        assert is_consistent != vector["wantErr"], f"{file.parent.name}/{file.name}: {vector['desc']}"


def test_refusal_logs_are_judged_as_the_consistency_vectors_say(shared_path: SharedPath) -> None:
    files = sorted(shared_path("vectors/merkle/testdata/consistency").rglob("*.json"))
    for file in files:
        vector = read(file)
        earlier = LogHead(vector["size1"], b64decode(vector["root1"]))
        later = LogHead(vector["size2"], b64decode(vector["root2"]))
        if earlier.count:  # of nothing every log is an extension: there the proof is the empty one
            assert verify_extension(earlier, later, decode_proof(vector)) != vector["wantErr"], file.name


def test_a_log_on_disk_has_the_published_roots_and_proofs_that_hold(shared_path: SharedPath) -> None:
    document = read(shared_path("vectors/merkle/rfc6962_roots.json"))
    leaves = [bytes.fromhex(leaf) for leaf in document["leaf_inputs_hex"]]
    hashes = [merkle.hash_leaf(leaf) for leaf in leaves]
    roots = [bytes.fromhex(root) for root in document["root_hash_by_tree_size_hex"]]
    tree = TileTree(lambda begin, end: hashes[begin:end])
    for leaf_hash in hashes:
        tree.append(leaf_hash)
    assert [tree.root(size) for size in range(len(leaves) + 1)] == roots
    for size in range(1, len(leaves) + 1):
        for index in range(size):
            proof = tree.prove_inclusion(index, size)
            assert merkle.verify_inclusion(hashes[index], index, size, proof, roots[size])
            proof = tree.prove_consistency(index + 1, size)
            assert merkle.verify_consistency(index + 1, size, roots[index + 1], roots[size], proof)
