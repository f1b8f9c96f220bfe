"""Only messages of the schema reach anything that acts; nothing is unpickled."""

import pickle

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_bench_envs.robot.errors import MessageError
from vla_bench_envs.robot.messages import MAX_BYTES, SCHEMA, checked, pack, unpack

ACT = {
    "t": "act", "lease": "l", "seq": 1, "obs_seq": 1, "mode": "delta_pose", "chunk": np.zeros((1, 7), np.float32),
}  # fmt: skip
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=10,
)


@given(st.binary(max_size=64))
def test_garbage_is_refused_and_nothing_else_happens(raw: bytes) -> None:
    try:
        found = unpack(raw)
    except MessageError:
        return
    assert isinstance(found, dict)


@settings(max_examples=200)
@given(
    st.sampled_from(sorted(SCHEMA)), st.dictionaries(st.sampled_from(sorted({*ACT, "op", "role", "token"})), ANYTHING)
)
def test_what_passes_the_check_has_exactly_the_fields_of_its_type_and_finite_numbers(kind, fields) -> None:
    try:
        found = checked({**fields, "t": kind, "strange": 1})
    except MessageError:
        return
    assert set(found) == {"t", *SCHEMA[kind]}
    assert all(np.isfinite(value) for value in found.values() if isinstance(value, int | float))


@pytest.mark.parametrize("dtype", ["|u1", "<i4", "<f4", "<f8"])
def test_an_array_arrives_as_it_was_sent(dtype: str) -> None:
    sent = np.arange(12).reshape(3, 4).astype(dtype)
    found = unpack(pack({"a": sent}))["a"]
    assert found.dtype == sent.dtype
    assert (found == sent).all()


def test_an_action_passes_even_if_it_is_not_finite_because_the_gate_must_see_it() -> None:
    found = checked(unpack(pack(ACT | {"chunk": np.full((1, 7), np.nan)})))
    assert np.isnan(found["chunk"]).all()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("text", r"^the message has the type str; expected binary frames of msgpack: see "),
        (b"\xc1\xff\x00garbage", r"^the message has bytes that are no msgpack \(.*\); expected a msgpack map"),
        (b"\x00" * (MAX_BYTES + 1), rf"^the message has {MAX_BYTES + 1} bytes; expected at most {MAX_BYTES}"),
        (msgpack.packb([1]), r"^the message has a list at its top; expected a map with text keys"),
        (msgpack.packb({1: 2}), r"^the message has bytes that are no msgpack"),
        (msgpack.packb({"a": {"nd": "|O", "shape": [1], "data": b"12345678"}}), r"an array of '\|O'; expected one of"),
        (msgpack.packb({"a": {"nd": "|V8", "shape": [1], "data": b"12345678"}}), r"an array of '\|V8'"),
        (msgpack.packb({"a": {"nd": "<f8", "shape": [2], "data": b"12345678"}}), r"do not fit its shape; expected 16 "),
        (msgpack.packb({"a": {"nd": "<f8", "shape": [-1], "data": b""}}), r"an array of shape \[-1\]"),
        (msgpack.packb({"a": msgpack.ExtType(4, b"x")}), r"no msgpack"),
    ],
)
def test_bytes_that_are_no_message_are_refused(raw, message: str) -> None:
    with pytest.raises(MessageError, match=message):
        unpack(raw)


def test_a_pickle_is_never_run() -> None:
    class Bomb:
        def __reduce__(self):
            return (exec, ("raise SystemExit('unpickled')",))

    with pytest.raises(MessageError, match=r"^the message has "):
        unpack(pickle.dumps(Bomb()))
    with pytest.raises(MessageError, match="an array of object; expected one of"):
        pack({"a": np.array([object()])})


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"t": "reboot"}, r"the type 'reboot'; expected one of hello, hb, cmd, estop, get_obs, act"),
        ({}, r"the type 'None'; expected one of"),
        ({"t": "cmd", "op": "fly"}, r"op='fly' in its 'cmd'; expected one of acquire, release"),
        ({k: v for k, v in ACT.items() if k != "seq"}, r"no 'seq' in its 'act'; expected an integer"),
        (ACT | {"seq": True}, r"seq=True in its 'act'"),
        (ACT | {"seq": -1}, r"seq=-1 in its 'act'"),
        (ACT | {"chunk": [1.0]}, r"chunk=\[1\.0\] in its 'act'; expected an array"),
        (ACT | {"dt_ms": float("nan")}, r"dt_ms=nan in its 'act'"),
        (ACT | {"ttl_ms": float("inf")}, r"ttl_ms=inf in its 'act'"),
        ({"t": "hello", "proto": 1, "client": "x", "role": "king"}, r"role='king' in its 'hello'"),
    ],
)
def test_fields_that_are_wrong_are_named(message: dict, expected: str) -> None:
    with pytest.raises(MessageError, match=f"^the message has {expected}"):
        checked(message)
