"""Levels as streams: round trips, near the entropy, and streams that are none."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcof import UserError
from fedcof.wire.dither import dither
from fedcof.wire.entropy_coding import (
    LEVELS_PER_BIT,
    NUM_SCALES,
    OFFSET_BINS,
    _weights,
    decode_levels,
    encode_levels,
    expected_bits,
    scale_at,
    scale_index,
)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(0, 5),
    dim=st.integers(0, 40),
    spread=st.floats(0, 3e4),
    dithered=st.booleans(),
)
def test_levels_come_back_whatever_the_scales_say(seed, rows, dim, spread, dithered):
    generator = np.random.default_rng(seed)
    levels = np.rint(generator.uniform(-spread, spread, (rows, dim))).astype(np.int64)
    scales, widths = generator.integers(-30, 90, rows), generator.integers(-9, 9, dim)
    model = scales, widths, seed if dithered else None
    assert np.array_equal(decode_levels(*encode_levels(levels, *model), *model), levels)


def test_blocks_are_joined_in_order(monkeypatch):
    levels = np.random.default_rng(0).integers(-300, 300, (50, 7))
    model = np.arange(50) % 20, np.zeros(7, dtype=np.int64), 5
    monkeypatch.setattr("fedcof.wire.entropy_coding.LEVELS_PER_BLOCK", 30)
    assert np.array_equal(decode_levels(*encode_levels(levels, *model), *model), levels)


@pytest.mark.parametrize("scale", [0.2, 0.5, 1.0, 4.0, 30.0])
def test_bell_curves_cost_little_more_than_the_entropy_given_the_dither(scale):
    shape = 400, 256
    offsets = dither(shape, 9).numpy().astype(np.float64)
    levels = np.rint(np.random.default_rng(1).normal(0, scale, shape) + offsets)
    root = scale * 2**0.5
    chance = [
        (math.erf((k + 0.5 - u) / root) - math.erf((k - 0.5 - u) / root)) / 2
        for k, u in zip(levels.ravel()[:20000], offsets.ravel()[:20000], strict=True)
    ]
    entropy = -np.log2(chance).mean()
    index = scale_index(np.full(shape[0], scale))
    words, escapes = encode_levels(levels.astype(np.int64), index, np.zeros(shape[1], dtype=np.int64), 9)
    bits = (32 * len(words) + 16 * len(escapes)) / levels.size
    # Off a grid of scales, with dithers in bins, for tails a little heavier than these.
    assert bits < entropy + 0.12
    assert abs(np.interp(np.log2(scale), np.log2(expected_bits()[0]), expected_bits()[1]) - bits) < 0.25


def test_every_table_is_whole_and_leaves_doubt():
    for context in range(0, NUM_SCALES * OFFSET_BINS, 7):
        weights = _weights(context)
        assert (weights >= 1).all()
        assert -np.log2(weights.max() / weights.sum()) > 1 / LEVELS_PER_BIT


def test_scales_are_the_nearest_of_the_grid():
    for scale in (0.0, 0.13, 1.0, 1.7, 900.0, 1e9):
        grid = [abs(math.log(max(scale, 1e-9) / scale_at(index))) for index in range(NUM_SCALES)]
        assert scale_index(np.array(scale)) == int(np.argmin(grid))


def test_damaged_streams_are_refused():
    levels = np.random.default_rng(0).integers(-3, 4, (10, 30))
    model = np.full(10, 12), np.zeros(30, dtype=np.int64), 1
    words, escapes = encode_levels(levels, *model)
    for damaged in (words[:-1], words[1:], np.append(words, np.uint32(0))):
        with pytest.raises(UserError, match="damaged"):
            decode_levels(damaged, escapes, *model)
    with pytest.raises(UserError, match="damaged"):
        decode_levels(words, np.ones(1, dtype=np.int16), *model)
    with pytest.raises(UserError, match="damaged"):
        decode_levels(words, escapes, np.zeros(10**7, dtype=np.int64), model[1], 1)
    with pytest.raises(UserError, match="larger step"):
        encode_levels(levels * 20_000, *model)
