"""Whole numbers that lie about as a bell curve does, written in nearly as few bits as their entropy.

A level is what rounding a number of standard deviation s (in steps) plus a known dither u gives. Given u, its
chance is that of a bell curve around u, so both ends derive the same table from (s, u) and no histogram is sent.
The scales s lie on a grid, four to the octave, and u in bins, so a few hundred tables serve all. Real features have
heavier tails than one bell curve: the curve is a mixture of two. The coder is constriction's asymmetric numeral
systems.

The chances are rounded to whole multiples of 2^-20, so that the last bit of a machine's error function does not
matter. No level has a chance near 1: a stream of b bits then holds a bounded number of levels, whatever it claims.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from constriction import stream
from numpy.typing import NDArray

from fedcof.errors import UserError
from fedcof.wire.dither import dither

SCALES_PER_OCTAVE = 4
SMALLEST_SCALE = 0.125
NUM_SCALES = 53  # up to 1024 steps
OFFSET_BINS = 16
# Above this scale the dither no longer moves the chances enough to matter.
LARGEST_SCALE_WITH_OFFSETS = 4.0

# Weight and width (in scales) of the wide part of the curve; the other part makes the variance up to 1.
WIDE_WEIGHT = 0.15
WIDE_WIDTH = 2.0
LARGEST_IN_SCALES = 10
UNIT = 2**20
# The likeliest level's chance is at most 1 less this, so that a level costs at least 1/22 of a bit.
LEAST_DOUBT = 1 / 32
LEVELS_PER_BIT = 23
LEVELS_PER_BLOCK = 2**20
ESCAPE_LIMIT = 2**15 - 1


def scale_index(scales: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Find the nearest scales of the grid.

    Parameters
    ----------
    scales : ndarray, floating point
        Standard deviations, in steps, at least 0.

    Returns
    -------
    ndarray of int64
        Their places in the grid, from 0 to ``NUM_SCALES - 1``.
    """
    octaves = np.log2(np.maximum(scales, SMALLEST_SCALE) / SMALLEST_SCALE)
    places: NDArray[np.int64] = np.clip(np.rint(octaves * SCALES_PER_OCTAVE), 0, NUM_SCALES - 1).astype(np.int64)
    return places


def scale_at(index: int) -> float:
    """Give the scale at a place of the grid, in steps."""
    return float(SMALLEST_SCALE * 2 ** (index / SCALES_PER_OCTAVE))


def encode_levels(
    levels: NDArray[np.int64], row_scales: NDArray[np.int64], widths: NDArray[np.int64], dither_seed: int | None
) -> tuple[NDArray[np.uint32], NDArray[np.int16]]:
    """Write levels as a stream.

    Parameters
    ----------
    levels : ndarray of shape (R, d), int64
        What to write, each at most 32,767 in magnitude.
    row_scales : ndarray of shape (R,), int64
        Place of each row's scale in the grid; with the width it is brought back into the grid.
    widths : ndarray of shape (d,), int64
        What to add to it for each coordinate.
    dither_seed : int or None
        Seed of the dither that is in the levels; None for levels without.

    Returns
    -------
    words : ndarray of shape (W,), uint32
        The stream.
    escapes : ndarray of shape (E,), int16
        The levels too large for their tables.

    Raises
    ------
    UserError
        If a level is too large.
    """
    if np.abs(levels).max(initial=0) > ESCAPE_LIMIT:
        raise UserError("The means are too far apart for so small a step: take a larger step or another encoding.")
    coder = stream.stack.AnsCoder()
    escapes = [np.zeros(0, dtype=np.int64)]
    # A stack: what is to be read first is written last.
    for block in reversed(_blocks(*levels.shape)):
        order, runs = _runs(block, row_scales, widths, dither_seed)
        in_order = levels[block].ravel()[order]
        for context, part in reversed(runs):
            reach = _reach(context // OFFSET_BINS)
            symbols = in_order[part] + reach
            escaped = (symbols < 0) | (symbols > 2 * reach)
            escapes.append(in_order[part][escaped])
            symbols[escaped] = 2 * reach + 1
            coder.encode_reverse(symbols.astype(np.int32), _table(context))
    return np.asarray(coder.get_compressed(), dtype=np.uint32), np.concatenate(escapes[::-1]).astype(np.int16)


def decode_levels(
    words: NDArray[np.uint32],
    escapes: NDArray[np.int16],
    row_scales: NDArray[np.int64],
    widths: NDArray[np.int64],
    dither_seed: int | None,
) -> NDArray[np.int16]:
    """Read levels back; the inverse of :func:`encode_levels`.

    Parameters
    ----------
    words : ndarray of shape (W,), uint32
        The stream.
    escapes : ndarray of shape (E,), int16
        The levels that are not in it.
    row_scales, widths, dither_seed
        As they were written.

    Returns
    -------
    ndarray of shape (R, d), int16
        The levels.

    Raises
    ------
    UserError
        If the stream does not hold exactly these levels. No memory is taken for more than it can hold.
    """
    shape = len(row_scales), len(widths)
    check_room(shape[0] * shape[1], words)
    try:
        coder = stream.stack.AnsCoder(np.ascontiguousarray(words, dtype=np.uint32))
    except ValueError as error:
        raise _damaged() from error
    levels = np.empty(shape, dtype=np.int16)
    used = 0
    for block in _blocks(*shape):
        order, runs = _runs(block, row_scales, widths, dither_seed)
        in_order = np.empty(len(order), dtype=np.int16)
        for context, part in runs:
            reach = _reach(context // OFFSET_BINS)
            symbols = coder.decode(_table(context), part.stop - part.start)
            (escaped,) = np.nonzero(symbols == 2 * reach + 1)
            if used + len(escaped) > len(escapes):
                raise _damaged()
            symbols -= reach
            symbols[escaped] = escapes[used : used + len(escaped)]
            used += len(escaped)
            in_order[part] = symbols
        flat = np.empty_like(in_order)
        flat[order] = in_order
        levels[block] = flat.reshape(-1, shape[1])
    # A stream that was cut, changed or read with other tables does not end where the levels do.
    if used != len(escapes) or not coder.is_empty():
        raise _damaged()
    return levels


def check_room(num_levels: int, words: NDArray[np.uint32]) -> None:
    """Refuse a claim of more levels than a stream of this length can hold, before memory is taken for them.

    Parameters
    ----------
    num_levels : int
        Number of levels claimed.
    words : ndarray of shape (W,), uint32
        The stream.

    Raises
    ------
    UserError
        If the stream is too short for them.
    """
    if num_levels > LEVELS_PER_BIT * 32 * (len(words) + 1):
        raise _damaged()


@lru_cache(maxsize=1)
def expected_bits() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute what a level of each scale of the grid costs on average.

    Returns
    -------
    scales : ndarray of shape (NUM_SCALES,), float64
        The grid, in steps.
    bits : ndarray of shape (NUM_SCALES,), float64
        Bits per level, averaged over the dither.
    """
    scales = np.array([scale_at(index) for index in range(NUM_SCALES)])
    bits = np.zeros(NUM_SCALES)
    for index in range(NUM_SCALES):
        bins = range(OFFSET_BINS) if scales[index] <= LARGEST_SCALE_WITH_OFFSETS else [OFFSET_BINS // 2]
        for offset_bin in bins:
            weights = _weights(index * OFFSET_BINS + offset_bin)
            chances = weights / weights.sum()
            bits[index] -= float(chances @ np.log2(chances)) / len(bins)
    return scales, bits


def bits_of_levels(
    levels: NDArray[np.int64], scales: NDArray[np.int64], offsets: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Compute what single levels cost, without writing them.

    Parameters
    ----------
    levels : ndarray of shape (n,), int64
        Levels, from anywhere in an upload.
    scales : ndarray of shape (n,), int64
        Place of each one's scale in the grid.
    offsets : ndarray of shape (n,), float32
        The dither that is in each.

    Returns
    -------
    ndarray of shape (n,), float64
        Bits.
    """
    contexts = scales * OFFSET_BINS + _offset_bins(scales, offsets)
    order, runs = _sorted_by_table(contexts)
    bits = np.empty(len(levels))
    for context, part in runs:
        table, reach = _bits_in_table(context), _reach(context // OFFSET_BINS)
        own = order[part]
        # What is beyond the table takes its last symbol and 16 bits.
        bits[own] = table[np.where(np.abs(levels[own]) <= reach, levels[own] + reach, -1)]
    return bits


def _damaged() -> UserError:
    return UserError("The upload's stream of levels is damaged: send it again.")


def _blocks(num_rows: int, dim: int) -> list[slice]:
    """List the blocks of rows that are sorted by table and written together."""
    size = max(LEVELS_PER_BLOCK // max(dim, 1), 1)
    return [slice(start, min(start + size, num_rows)) for start in range(0, num_rows, size)] if dim else []


def _runs(
    block: slice, row_scales: NDArray[np.int64], widths: NDArray[np.int64], dither_seed: int | None
) -> tuple[NDArray[np.int64], list[tuple[int, slice]]]:
    """Sort a block's levels by the table they are written with: their order, and each table's run in it."""
    scales = np.clip(row_scales[block, None] + widths, 0, NUM_SCALES - 1)
    bins = np.full(scales.shape, OFFSET_BINS // 2)
    if dither_seed is not None:
        offsets = dither((len(scales), len(widths)), dither_seed, first_row=block.start).numpy()
        bins = _offset_bins(scales, offsets)
    return _sorted_by_table((scales * OFFSET_BINS + bins).ravel())


def _offset_bins(scales: NDArray[np.int64], offsets: NDArray[np.float32]) -> NDArray[np.int64]:
    drawn = np.floor((offsets + np.float32(0.5)) * OFFSET_BINS).astype(np.int64)
    return np.where(scales <= scale_index(np.array(LARGEST_SCALE_WITH_OFFSETS)), drawn, OFFSET_BINS // 2)


def _sorted_by_table(contexts: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[tuple[int, slice]]]:
    # numpy sorts numbers of 16 bits by their digits, several times as fast as longer ones.
    order = np.argsort(contexts.astype(np.uint16), kind="stable")
    contexts = contexts[order]
    starts = np.flatnonzero(np.diff(contexts, prepend=-1))
    stops = np.append(starts[1:], len(contexts))
    return order, [(int(contexts[a]), slice(int(a), int(b))) for a, b in zip(starts, stops, strict=True)]


@lru_cache(maxsize=NUM_SCALES)
def _reach(scale: int) -> int:
    """Give the largest magnitude in a scale's tables."""
    return int(np.ceil(LARGEST_IN_SCALES * scale_at(scale))) + 2


@lru_cache(maxsize=NUM_SCALES * OFFSET_BINS)
def _table(context: int) -> stream.model.Categorical:
    """Make the model that a level is written with."""
    return stream.model.Categorical(_weights(context).astype(np.float64), perfect=False)


@lru_cache(maxsize=NUM_SCALES * OFFSET_BINS)
def _bits_in_table(context: int) -> NDArray[np.float64]:
    """Give what each symbol of a table costs, the escape with the level that follows it."""
    weights = _weights(context)
    bits: NDArray[np.float64] = -np.log2(weights / weights.sum())
    bits[-1] += 8 * np.dtype(np.int16).itemsize
    return bits


@lru_cache(maxsize=NUM_SCALES * OFFSET_BINS)
def _weights(context: int) -> NDArray[np.int64]:
    """Give the chances of the levels from -reach to reach, then of the escape, in whole multiples of 2^-20."""
    index, offset_bin = divmod(context, OFFSET_BINS)
    scale, reach = scale_at(index), _reach(index)
    offset = (offset_bin + 0.5) / OFFSET_BINS - 0.5 if scale <= LARGEST_SCALE_WITH_OFFSETS else 0.0
    edges = torch.arange(-reach - 0.5, reach + 1, dtype=torch.float64) - offset
    narrow_width = ((1 - WIDE_WEIGHT * WIDE_WIDTH**2) / (1 - WIDE_WEIGHT)) ** 0.5
    chances = torch.zeros(2 * reach + 1, dtype=torch.float64)
    for weight, width in ((1 - WIDE_WEIGHT, narrow_width), (WIDE_WEIGHT, WIDE_WIDTH)):
        chances += weight * torch.erf(edges / (scale * width * 2**0.5)).diff() / 2
    likeliest = int(chances.argmax())
    excess = max(float(chances[likeliest]) - (1 - LEAST_DOUBT), 0.0)
    chances[likeliest] -= excess
    chances[[likeliest - 1, likeliest + 1]] += excess / 2
    whole = torch.round(chances * UNIT).clamp_(min=1).to(torch.int64).numpy()
    return np.append(whole, 1)
