"""The three sample policy modules: a sender's limit, a list of addresses, an ONNX model."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.crypto import PrivateKey
from consensus.errors import Rejected
from consensus.transaction import Transaction, sign_transaction
from ml.discovery import list_policies, load_policy
from ml.policies import address_list, onnx_model, sender_limit
from ml.policy import ALLOW, Decision, Opinion, PolicyBatch

KEYS = [PrivateKey.from_seed(bytes([number])) for number in range(6)]
MINUTE_MS = 60_000


def pay(sender: int = 0, receiver: int = 1, amount: int = 5, nonce: int = 0) -> Transaction:
    return sign_transaction(
        KEYS[sender],
        "test",
        nonce=nonce,
        receiver=KEYS[receiver].address,
        amount=amount,
        fee=1,
        timestamp_ms=50_000_000,
        expires_ms=50_000_001,
    )


def make_batch(*transactions: Transaction, clock_ms: int = 0, is_new: bool = True) -> PolicyBatch:
    count = len(transactions)
    score, outcome = np.full(count, 42, dtype=np.int64), np.zeros(count, dtype=np.uint8)
    return PolicyBatch(transactions, score, outcome, clock_ms, is_new)


def test_the_samples_are_installed() -> None:
    assert set(list_policies()) >= {"address-list", "onnx-model", "sender-limit"}


def test_an_unknown_policy_is_named_with_those_there_are() -> None:
    with pytest.raises(Rejected, match=r"policy nothing: is not installed.*sender-limit"):
        load_policy("nothing", {})


def test_what_has_no_judge_is_no_policy() -> None:
    with pytest.raises(Rejected, match="has no `judge`"):
        load_policy("builtins:dict", {})


def test_a_batch_is_also_there_as_columns() -> None:
    columns = make_batch(pay(3, 1, 7), pay(1, 3, 8), pay(2, 2, 9)).to_columns()
    assert columns.sender.tolist() == [0, 1, 2]
    assert columns.receiver.tolist() == [1, 0, 2]
    assert columns.amount.tolist() == [7, 8, 9]


# --- sender-limit -----------------------------------------------------------------------------------


def test_a_sender_has_so_many_transactions_in_a_window_and_then_waits() -> None:
    limit = sender_limit.load({"count": "3", "window": "1m"})
    decisions = [o.decision for o in limit.judge(make_batch(*[pay(nonce=n) for n in range(5)]))]
    assert decisions == [Decision.ALLOW] * 3 + [Decision.REFUSE] * 2
    assert limit.judge(make_batch(pay(sender=1))) == [ALLOW]
    assert limit.judge(make_batch(pay(nonce=9), clock_ms=MINUTE_MS * 9 // 8)) == [ALLOW]


def test_a_sender_has_so_much_money_in_a_window() -> None:
    limit = sender_limit.load({"amount": 100})
    opinions = limit.judge(make_batch(pay(amount=60), pay(amount=60), pay(amount=40)))
    assert [opinion.decision for opinion in opinions] == [Decision.ALLOW, Decision.REFUSE, Decision.ALLOW]
    assert opinions[1].reason == "more than 100 units of this sender within 60 s"


def test_a_second_look_counts_nothing() -> None:
    limit = sender_limit.load({"count": 1})
    batch = make_batch(pay())
    assert limit.judge(batch) == [ALLOW]
    assert limit.judge(make_batch(pay(), is_new=False)) == [ALLOW]


def test_its_memory_is_bounded_and_who_was_silent_longest_is_forgotten() -> None:
    limit = sender_limit.load({"count": 1, "senders": 2})
    limit.judge(make_batch(pay(0), pay(1), pay(2)))
    assert len(limit) == 2
    assert [o.decision for o in limit.judge(make_batch(pay(2), pay(0)))] == [Decision.REFUSE, Decision.ALLOW]


@given(
    clocks=st.lists(st.integers(0, 20 * MINUTE_MS), min_size=1, max_size=60),
    count=st.integers(1, 5),
)
def test_no_window_ever_holds_more_than_the_limit(clocks: list[int], count: int) -> None:
    limit = sender_limit.load({"count": count, "window": "1m"})
    allowed = [
        clock
        for nonce, clock in enumerate(sorted(clocks))
        if limit.judge(make_batch(pay(nonce=nonce), clock_ms=clock)) == [ALLOW]
    ]
    for end in allowed:
        assert sum(end - MINUTE_MS < clock <= end for clock in allowed) <= count


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"count": 0}, "policy sender-limit: count"),
        ({"count": "many"}, "policy sender-limit: count"),
        ({"window": "1 fortnight"}, "is not a length of time"),
        ({"cuont": 5}, "policy sender-limit: cuont: is not a setting"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], words: str) -> None:
    with pytest.raises(Rejected, match=words):
        sender_limit.load(settings)


# --- address-list -----------------------------------------------------------------------------------


def write_list(path: Path, *keys: int, text: str = "") -> None:
    """A list file; each writing has another stamp, as writings of other seconds have."""
    lines = [f"0x{KEYS[key].address.hex()}  # number {key}" for key in keys]
    path.write_text("# ours\n\n" + "\n".join(lines) + "\n" + text)
    write_list.stamp = getattr(write_list, "stamp", 10**9) + 1  # type: ignore[attr-defined]
    os.utime(path, (write_list.stamp, write_list.stamp))  # type: ignore[attr-defined]


def decide(policy: address_list.AddressList, *transactions: Transaction) -> str:
    letters = {Decision.ALLOW: "a", Decision.REFUSE: "r"}
    return "".join(letters[opinion.decision] for opinion in policy.judge(make_batch(*transactions)))


def test_a_denied_address_neither_sends_nor_receives(tmp_path: Path) -> None:
    path = tmp_path / "deny.txt"
    write_list(path, 2)
    policy = address_list.load({"deny": str(path)})
    assert decide(policy, pay(0, 1), pay(2, 1), pay(1, 2)) == "arr"
    assert decide(address_list.load({"deny": str(path), "of": "sender"}), pay(2, 1), pay(1, 2)) == "ra"


def test_with_an_allow_list_only_those_on_it_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "allow.txt"
    write_list(path, 0, 1)
    assert decide(address_list.load({"allow": str(path)}), pay(0, 1), pay(0, 2)) == "ar"


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "deny.txt"
    write_list(path, 2)
    policy = address_list.load({"deny": str(path)})
    assert policy.reload() is False
    write_list(path, 0)
    assert policy.reload() is True
    assert decide(policy, pay(0, 1), pay(2, 1)) == "ra"


def test_a_bad_new_file_keeps_the_old_list_and_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "deny.txt"
    write_list(path, 2)
    policy = address_list.load({"deny": str(path)})
    write_list(path, 0, text="0x1234\n")
    with pytest.raises(Rejected, match=r"deny\.txt:4: '0x1234' is not an address"):
        policy.reload()
    assert policy.reload() is False
    assert decide(policy, pay(0, 1), pay(2, 1)) == "ar"
    path.unlink()
    with pytest.raises(Rejected, match="cannot be read"):
        policy.reload()
    write_list(path, 0)
    assert policy.reload() is True


@pytest.mark.parametrize("settings", [{}, {"deny": "a", "allow": "b"}, {"deny": "absent.txt"}, {"deny": ""}])
def test_a_list_needs_one_file_that_is_there(settings: dict[str, str]) -> None:
    with pytest.raises(Rejected):
        address_list.load(settings)


# --- onnx-model -------------------------------------------------------------------------------------


def write_model(path: Path, scale: float = 1e-3, width: int = 8) -> None:
    """A model whose risk is the amount times `scale`, clipped to [0, 1] below but not above."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = [scale] + [0.0] * (width - 1)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["rows", "weights"], ["risk"])],
        "risk",
        [helper.make_tensor_value_info("rows", kind, [None, width])],
        [helper.make_tensor_value_info("risk", kind, [None, 1])],
        [helper.make_tensor("weights", kind, [width, 1], weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())


def test_an_onnx_model_refuses_and_holds_by_its_risk(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    write_model(tmp_path / "risk.onnx")
    settings = {"model": str(tmp_path / "risk.onnx"), "refuse_at": "0.9", "hold_at": 0.5}
    opinions = onnx_model.load(settings).judge(make_batch(pay(amount=100), pay(amount=600), pay(amount=950)))
    assert opinions == [
        ALLOW,
        Opinion(Decision.HOLD, "risk 0.600 is at least 0.5"),
        Opinion(Decision.REFUSE, "risk 0.950 is at least 0.9"),
    ]


def test_its_features_are_the_documented_columns() -> None:
    rows = onnx_model.compute_features(make_batch(pay(amount=7, nonce=3), clock_ms=50_002_000))
    assert rows.dtype == np.float32
    assert dict(zip(onnx_model.FEATURES, rows[0].tolist(), strict=True)) == {
        "amount": 7,
        "fee": 1,
        "kind": 0,
        "nonce": 3,
        "is_to_self": 0,
        "hour": 13,
        "age_s": 2,
        "score": 42,
    }


@pytest.mark.parametrize("answer", [[0.5], [[0.1, 0.2, 0.7]] * 2, [0.5, float("nan")], [0.5, 1.5], [-0.1, 0]])
def test_an_answer_that_is_no_risk_is_a_failure(answer: object) -> None:
    with pytest.raises(ValueError, match="the model answers"):
        onnx_model.read_risks(answer, 2)


def test_two_columns_of_probabilities_are_read_by_the_last() -> None:
    assert onnx_model.read_risks([[0.9, 0.1], [0.2, 0.8]], 2).tolist() == [0.1, 0.8]


def test_a_file_that_is_no_model_or_of_another_width_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(Rejected, match="is no model that onnxruntime runs"):
        onnx_model.load({"model": str(tmp_path / "bad.onnx")})
    write_model(tmp_path / "wide.onnx", width=9)
    with pytest.raises(Rejected, match="must take one input"):
        onnx_model.load({"model": str(tmp_path / "wide.onnx")})
    with pytest.raises(Rejected, match="does not exist"):
        onnx_model.load({"model": str(tmp_path / "absent.onnx")})


def test_without_onnxruntime_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(Rejected, match=r"assay-node\[onnx\]"):
        onnx_model.load({"model": str(tmp_path / "risk.onnx")})
