"""Records: a map in all respects, with one root for one content."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.errors import Fault
from consensus.ledger.records import EMPTY_ROOT, Records

# Few bytes and one length: many common beginnings.
KEYS = st.lists(st.sampled_from([0, 1, 16, 255]), min_size=3, max_size=3).map(bytes)
STEPS = st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=4)), max_size=40)


def apply(steps: list[tuple[bytes, bytes | None]]) -> tuple[Records, dict[bytes, bytes]]:
    records, model = Records(), {}
    for key, value in steps:
        if value is None:
            records = records.remove(key)
            model.pop(key, None)
        else:
            records = records.put(key, value)
            model[key] = value
    return records, model


@given(STEPS, KEYS)
def test_it_holds_what_a_dict_would_hold(steps: list[tuple[bytes, bytes | None]], key: bytes) -> None:
    records, model = apply(steps)
    assert list(records.walk()) == sorted(model.items())
    assert records.get(key) == model.get(key)
    assert list(records.walk(key[:2])) == [item for item in sorted(model.items()) if item[0][:2] == key[:2]]


@given(STEPS, st.randoms(use_true_random=False))
def test_the_root_depends_on_the_content_alone(
    steps: list[tuple[bytes, bytes | None]], random: object
) -> None:
    records, model = apply(steps)
    items = list(model.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    assert apply(items)[0].root == records.root  # type: ignore[arg-type]


@given(STEPS, STEPS)
def test_different_contents_have_different_roots(
    first: list[tuple[bytes, bytes | None]], second: list[tuple[bytes, bytes | None]]
) -> None:
    (a, model_a), (b, model_b) = apply(first), apply(second)
    assert (a.root == b.root) == (model_a == model_b)


@given(STEPS, KEYS)
def test_a_map_is_not_changed_by_its_successors(steps: list[tuple[bytes, bytes | None]], key: bytes) -> None:
    records, model = apply(steps)
    root = records.root
    records.put(key, b"new").remove(b"\x00\x00\x00")
    assert (records.root, dict(records.walk())) == (root, model)


def test_an_empty_map_has_a_root_of_zeros() -> None:
    assert Records().root == EMPTY_ROOT
    assert Records().put(b"abc", b"").remove(b"abc").root == EMPTY_ROOT


@pytest.mark.parametrize(("first", "second"), [(b"ab", b"abc"), (b"abc", b"ab"), (b"a", b"")])
def test_a_key_that_begins_another_is_a_fault(first: bytes, second: bytes) -> None:
    with pytest.raises(Fault):
        Records().put(first, b"").put(second, b"")


def test_a_key_that_begins_a_branch_is_a_fault() -> None:
    with pytest.raises(Fault):
        Records().put(b"abc", b"").put(b"abd", b"").put(b"ab", b"")
