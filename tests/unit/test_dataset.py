"""Reading workloads: what is legal is read as it stands, what is not is refused with its place."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.errors import Rejected
from ml.dataset import Trace, parse_columns, read_trace, write_trace

HEADER = "t,sender,receiver,amount,fraud\n"


@pytest.fixture
def write(tmp_path):
    def write_file(text: str | bytes, name: str = "trace.csv"):
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write_file


def test_a_small_file_is_read_into_columns(write):
    trace = read_trace([write(HEADER + "1,ann,bob,500,0\n1,bob,ann,0,1\n7,bob,bob,9,0\n")])
    assert trace.names == ("ann", "bob")
    assert trace.time_ms.tolist() == [1_000, 1_000, 7_000]
    assert trace.sender.tolist() == [0, 1, 1]
    assert trace.receiver.tolist() == [1, 0, 1]
    assert trace.amount.tolist() == [500, 0, 9]
    assert trace.fraud is not None
    assert trace.fraud.tolist() == [0, 1, 0]


def test_labels_are_optional_and_amount_cents_is_an_amount(write):
    trace = read_trace([write("amount_cents,t,receiver,sender\n5,1,b,a\n")])
    assert trace.fraud is None
    assert trace.amount.tolist() == [5]
    assert trace.names == ("a", "b")


def test_columns_can_be_mapped(write):
    path = write("time,from,to,value,bad\n3,1,2,4,1\n")
    trace = read_trace([path], parse_columns("t=time,sender=from,receiver=to,amount=value,label=bad"))
    assert trace.time_ms.tolist() == [3_000]
    assert trace.fraud is not None


def test_gzip_is_known_by_its_content(write):
    path = write(gzip.compress((HEADER + "1,a,b,1,0\n").encode()), "trace.csv")
    assert len(read_trace([path])) == 1


def test_files_are_one_trace_in_order_with_one_namespace(write):
    first = write(HEADER + "1,a,b,1,0\n", "1.csv")
    second = write(HEADER + "2,b,c,1,0\n", "2.csv")
    trace = read_trace([first, second])
    assert trace.names == ("a", "b", "c")
    assert trace.sender.tolist() == [0, 1]
    with pytest.raises(Rejected, match=r"1\.csv, line 2, t.*earlier"):
        read_trace([second, first])


def test_a_limit_stops_reading(write):
    assert len(read_trace([write(HEADER + "1,a,b,1,0\n2,a,b,1,0\n3,a,b,broken,0\n")], limit=2)) == 2


@pytest.mark.parametrize(
    ("times", "milliseconds"),
    [
        ((0, 86_400), [0, 86_400_000]),
        ((1_700_000_000, 1_700_000_001), [1_700_000_000_000, 1_700_000_001_000]),
        ((1_700_000_000_000, 1_700_000_000_001), [1_700_000_000_000, 1_700_000_000_001]),
        ((0, 2_592_000_000), [0, 2_592_000_000]),  # thirty days of milliseconds
    ],
)
def test_seconds_and_milliseconds_are_told_apart(write, times, milliseconds):
    text = HEADER + "".join(f"{t},a,b,1,0\n" for t in times)
    assert read_trace([write(text)]).time_ms.tolist() == milliseconds


def test_the_unit_of_time_can_be_forced(write):
    path = write(HEADER + "5,a,b,1,0\n")
    assert read_trace([path], time_unit="ms").time_ms.tolist() == [5]


GOOD = "1,a,b,1,0\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (HEADER, "no rows"),
        ("t,sender,amount\n1,a,1\n", r"line 1: no column 'receiver'.*--columns receiver=NAME"),
        ("t,t,sender,receiver,amount\n1,1,a,b,1\n", "two columns"),
        (HEADER + "2,a,b,1,0\n1,a,b,1,0\n", r"line 3, t: 1 is earlier than the row before it \(2\).*sort"),
        (HEADER + GOOD + "1,a,b,NaN,0\n", r"line 3, amount: 'NaN' is not a number"),
        (HEADER + "1,a,b,-5,0\n", r"line 2, amount: '-5' is negative"),
        (HEADER + "1,a,b,12.50,0\n", r"line 2, amount: '12.50' is not a whole number.*cents"),
        (HEADER + "1,a,b,1e3,0\n", "not a whole number"),
        (HEADER + "1,a,b,1_000,0\n", "not a whole number"),
        (HEADER + "1,a,b,9007199254740992,0\n", "above the largest allowed"),
        (HEADER + f"1,a,b,{'9' * 400},0\n", "above the largest allowed"),
        (HEADER + f"1,a,b,{'9' * 5000},0\n", "above the largest allowed"),
        (HEADER + "1,a,b,,0\n", "line 2, amount: '' is missing"),
        (HEADER + "nan,a,b,1,0\n", "line 2, t: 'nan' is not a number"),
        (HEADER + "-1,a,b,1,0\n", "line 2, t: '-1' is negative"),
        (HEADER + "1,,b,1,0\n", "line 2, sender: is missing"),
        (HEADER + f"1,a,{'b' * 300},1,0\n", "receiver: is longer"),
        (HEADER + "1,a,b,1,2\n", "line 2, label: '2' is above"),
        (HEADER + "1,a,b,1\n", "line 2: has 4 fields, the header 5"),
        (HEADER + '1,"a,b,1,0\n', "not CSV"),
        (b"\xff\xfe" + HEADER.encode(), "not UTF-8"),
        (gzip.compress((HEADER + GOOD * 500).encode(), mtime=0)[:-9], "cut-short gzip"),
        (b"\x1f\x8bnonsense", "gzip"),
    ],
)
def test_what_is_wrong_is_named_with_file_line_field_and_mend(write, text, message):
    path = write(text)
    with pytest.raises(Rejected, match=message) as caught:
        read_trace([path])
    assert str(path) in str(caught.value)
    assert caught.value.mend
    assert "\n" not in str(caught.value)


def test_a_missing_file_an_unknown_field_and_no_file_are_refused(write, tmp_path):
    with pytest.raises(Rejected, match="no such file"):
        read_trace([tmp_path / "none.csv"])
    with pytest.raises(Rejected, match="cannot be read"):
        read_trace([tmp_path])
    with pytest.raises(Rejected, match="unknown field 'colour'"):
        read_trace([write(HEADER + GOOD)], {"colour": "red"})
    with pytest.raises(Rejected, match="no file"):
        read_trace([])
    with pytest.raises(Rejected, match="maps no column"):
        parse_columns("t")


def test_labels_in_one_file_only_are_refused(write):
    with pytest.raises(Rejected, match="no label column"):
        read_trace([write(HEADER + GOOD, "1.csv"), write("t,sender,receiver,amount\n1,a,b,1\n", "2.csv")])


@given(
    st.lists(
        st.tuples(st.integers(0, 2**47), st.integers(0, 3), st.integers(0, 3), st.integers(0, 2**53 - 1)),
        min_size=1,
        max_size=10,
    ),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read_back(tmp_path_factory, rows, labelled):
    time, sender, receiver, amount = np.array(sorted(rows), dtype=np.int64).T
    fraud = (amount % 2).astype(np.uint8) if labelled else None
    trace = Trace(time, sender, receiver, amount, fraud, ("a", "b,", 'c"', "d d"))
    path = tmp_path_factory.mktemp("trace") / "out.csv.gz"
    write_trace(path, trace)
    again = read_trace([path], time_unit="ms")
    assert again.time_ms.tolist() == time.tolist()
    assert again.amount.tolist() == amount.tolist()
    assert [again.names[i] for i in again.sender] == [trace.names[i] for i in sender]
    assert (again.fraud is None) == (fraud is None)


def test_ratings_become_labels_and_a_constant_stands_for_amounts(write):
    path = write("t,sender,receiver,rating\n1,a,b,-10\n2,a,c,5\n3,b,c,0\n4,c,a,-0\n")
    trace = read_trace([path], parse_columns("label=rating<0,amount=#7"))
    assert trace.fraud is not None
    assert trace.fraud.tolist() == [1, 0, 0, 0]
    assert trace.amount.tolist() == [7, 7, 7, 7]
    broken = write("t,sender,receiver,rating\n1,a,b,--1\n", "broken.csv")
    with pytest.raises(Rejected, match="label"):
        read_trace([broken], parse_columns("label=rating<0,amount=#7"))


def test_kinds_of_fraud_are_read_where_all_files_name_them(write):
    first = write("t,sender,receiver,amount,fraud,pattern\n1,a,b,1,0,clean\n2,a,b,1,1,mule\n", "1.csv")
    trace = read_trace([first])
    assert trace.pattern is not None
    assert [trace.patterns[k] for k in trace.pattern] == ["clean", "mule"]
    without = write(HEADER + "3,a,b,1,0\n", "2.csv")
    assert read_trace([first, without]).pattern is None
    rows = "".join(f"{n},a,b,1,0,kind-{n}\n" for n in range(70))
    many = write("t,sender,receiver,amount,fraud,pattern\n" + rows, "3.csv")
    with pytest.raises(Rejected, match="more than 64 patterns"):
        read_trace([many])
