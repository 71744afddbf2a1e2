"""Packed arrays: what was packed comes out, and nothing else does, whatever it claims."""

import tracemalloc

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fedcof import UserError
from fedcof.wire.packing import MOST_ARRAYS, TYPES, pack_arrays, unpack_arrays

ANY_ARRAY = st.sampled_from(sorted(TYPES)).flatmap(lambda kind: arrays(kind, array_shapes(min_dims=0, min_side=0)))


def stream(*values):
    return b"".join(map(msgpack.packb, values))


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(max_size=25), ANY_ARRAY, max_size=4))
def test_what_was_packed_comes_out(named):
    back = unpack_arrays(pack_arrays(named))
    assert list(back) == list(named)
    for name, array in named.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        assert back[name].tobytes() == array.tobytes()


def test_any_byte_order_and_layout_is_packed_alike():
    plain = np.arange(6, dtype="<i4").reshape(2, 3)
    for other in (
        plain.astype(">i4"),
        np.asfortranarray(plain),
        np.arange(12, dtype="<i4").reshape(2, 6)[:, ::2] >> 1,
    ):
        assert pack_arrays({"a": other}) == pack_arrays({"a": plain})


def test_an_array_costs_few_bytes_beside_its_numbers():
    assert len(pack_arrays({"coded": np.zeros(3000, np.uint8)})) - 3000 <= 20
    named = {"class-ids": np.zeros(6, np.uint8), "means": np.zeros((6, 1280), np.int8)}
    assert len(pack_arrays(named)) - 6 - 6 * 1280 <= 50


@pytest.mark.parametrize(
    "unfit",
    [
        {"a": np.array(["text"])},
        {"a": np.zeros(2, complex)},
        {"a": np.zeros((1,) * 5)},
        {"x" * 101: np.zeros(1)},
        {str(number): np.zeros(1) for number in range(MOST_ARRAYS + 1)},
    ],
)
def test_what_no_upload_has_is_not_packed(unfit):
    with pytest.raises(UserError, match="cannot be packed"):
        pack_arrays(unfit)


JUNK = [
    b"",
    b"\x93NUMPY",
    stream(2, "a", "|u1", 1, 1, b"a"),
    stream([1]),
    stream({1: 1}),
    stream(1, "a"),
    stream(1, "a", "|u1", 1, 1),
    stream(1, "a", "|u1", 1, 2, b"a"),
    stream(1, "a", "|u1", 1, -1, b""),
    stream(1, "a", "|u1", 2, -1, -1, b"a"),
    stream(1, "a", "|u1", 1, True, b"a"),
    stream(1, "a", "|u1", True, 1, b"a"),
    stream(1, "a", "|u1", 1, 1.0, b"a"),
    stream(1, "a", "|u1", 2, 0, 2**62, b""),
    stream(1, "a", "|u1", -1, b"a"),
    stream(1, "a", "|u1", 5, 1, 1, 1, 1, 1, b"a"),
    stream(1, "a", "|O", 1, 1, b"a"),
    stream(1, "a", "<U4", 1, 1, b"aaaa"),
    stream(1, "a", 7, 1, 1, b"a"),
    stream(1, 7, "|u1", 1, 1, b"a"),
    stream(1, "x" * 200, "|u1", 1, 1, b"a"),
    stream(1, "a", "|u1", 1, 1, "a"),
    stream(1, "a", "|u1", 1, 1, b"a", "a", "|u1", 1, 1, b"a"),
    stream(1, ["a"], "|u1", 1, 1, b"a"),
    stream(1, "a", "|u1", 1, 1, b"a", b"more"),
    stream(1, *(value for number in range(40) for value in (str(number), "|u1", 1, 1, b"a"))),
    msgpack.packb(1) + b"\xa1\xff" + stream("|u1", 1, 1, b"a"),
]


@pytest.mark.parametrize("junk", JUNK)
def test_junk_is_refused_with_a_sentence(junk):
    with pytest.raises(UserError, match=r"packed arrays.*\.$"):
        unpack_arrays(junk)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_arrays_or_a_sentence(junk):
    for content in (junk, msgpack.packb(1) + junk, pack_arrays({"a": np.zeros(3)}) + junk):
        try:
            unpack_arrays(content)
        except UserError as error:
            assert len(str(error)) < 300


@pytest.mark.parametrize(
    "claim",
    [
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\x91" * 100_000,
        b"\x90" * 100_000,
        stream("a", "<f8", 2, 2**31, 2**31, b"a"),
    ],
)
def test_a_claimed_length_takes_no_memory(claim):
    tracemalloc.start()
    with pytest.raises(UserError):
        unpack_arrays(msgpack.packb(1) + claim)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * len(claim) + 500_000
