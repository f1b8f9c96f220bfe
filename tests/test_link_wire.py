"""What goes into the wire comes out of it; what was never a message is refused, whatever it is."""

from contextlib import suppress

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from link_peers import openpi_bytes, openpi_message

from vla_bench.link.errors import WireError
from vla_bench.link.wire import OPENPI, TEXT, packed, unpacked
from vla_bench.testing.promises import same

DTYPES = st.one_of(
    hnp.boolean_dtypes(), hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(), hnp.floating_dtypes(sizes=(16, 32, 64))
)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
ARRAYS = DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, SHAPES))


@settings(deadline=None)
@given(array=ARRAYS, text=st.text(max_size=20), number=st.integers(-(2**63), 2**64 - 1))
@pytest.mark.parametrize("marks", [OPENPI, TEXT])
def test_any_array_comes_out_as_it_went_in_to_the_last_bit(marks, array, text: str, number: int) -> None:
    out = unpacked(packed({"array": array, "of": [array, text], "number": number, "nothing": None}, marks))
    assert same(out["array"], array)
    assert same(out["of"][0], array)
    assert out["of"][1] == text
    assert out["number"] == number
    assert out["nothing"] is None


@settings(deadline=None)
@given(array=ARRAYS)
def test_an_independent_reading_of_openpis_format_agrees_in_both_directions(array) -> None:
    message = {"image": array, "scalar": np.float32(0.5), "flag": np.bool_(True), "text": "go"}
    assert packed(message) == openpi_bytes(message)
    theirs = openpi_message(packed(message))
    assert same(np.array(theirs["image"]), array)
    ours = unpacked(openpi_bytes(message))
    assert same(ours["image"], array)
    assert type(ours["scalar"]) is np.float32
    assert ours["scalar"] == np.float32(0.5)
    assert type(ours["flag"]) is np.bool_


def test_an_array_that_is_not_contiguous_travels_by_its_values() -> None:
    image = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    assert same(unpacked(packed({"a": image[::-1, ::-1]}))["a"], np.ascontiguousarray(image[::-1, ::-1]))
    assert same(unpacked(packed({"a": np.asfortranarray(image)}))["a"], image)


def test_an_array_that_arrives_can_be_written_to() -> None:
    unpacked(packed({"a": np.zeros(3)}))["a"][0] = 1.0


@pytest.mark.parametrize(
    "value",
    [np.array([object()]), np.array([{}], object), np.zeros(2, "f4,f4"), np.zeros(2, complex), object(), {1, 2}, 2**70],
)
def test_what_would_need_a_pickle_is_not_packed(value) -> None:
    with pytest.raises(WireError, match="cannot be packed"):
        packed({"a": value})


def marked(**changes) -> bytes:
    array = {"data": bytes(8), "dtype": "<f4", "shape": [2]} | changes
    return msgpack.packb({"a": {b"__ndarray__": True, **{key.encode(): value for key, value in array.items()}}})


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (marked(dtype="O"), "type 'O'"),
        (marked(dtype="|V8"), r"type '\|V8'"),
        (marked(dtype="f4,f4"), "type 'f4,f4'"),
        (marked(dtype="(2,)f4"), r"type '\(2,\)f4'"),
        (marked(dtype="<c8"), "type '<c8'"),
        (marked(dtype="nonsense"), "type 'nonsense'"),
        (marked(dtype=7), "type 7"),
        (marked(shape=[3]), "8 bytes for an array of float32"),
        (marked(shape=[2**62, 2**62]), "8 bytes for an array of float32"),
        (marked(shape=[-1]), r"shape \[-1\]"),
        (marked(shape="2"), "shape '2'"),
        (marked(data="text"), "with str for its data"),
        (msgpack.packb([1, 2]), "is a list"),
        (msgpack.packb({1: 2}), "is no msgpack"),
        (packed({"a": np.zeros(9)})[:-3], "is no msgpack"),
        (packed({"a": 1}) + b"x", "is no msgpack"),
        (b"\x81" * 5000, "is no msgpack"),
        (b"", "is no msgpack"),
        (b"\xc1", "is no msgpack"),
        ("hello", "is text"),
    ],
)
def test_what_is_no_message_is_refused_by_name(data, found: str) -> None:
    with pytest.raises(WireError, match=found):
        unpacked(data)


@settings(deadline=None, max_examples=300)
@given(data=st.binary(max_size=200))
def test_no_bytes_do_anything_but_be_read_or_refused(data: bytes) -> None:
    with suppress(WireError):
        assert isinstance(unpacked(data), dict)


@settings(deadline=None, max_examples=300)
@given(place=st.integers(0, 10_000), value=st.integers(0, 255))
def test_no_flipped_byte_does_anything_but_be_read_or_refused(place: int, value: int) -> None:
    data = bytearray(packed({"image": np.zeros((4, 4, 3), np.uint8), "proprio": np.zeros(8, np.float32), "s": "go"}))
    data[place % len(data)] = value
    with suppress(WireError):
        assert isinstance(unpacked(bytes(data)), dict)
