"""Every merge against its formula, written out in float64, for weights and for adapters."""

from itertools import pairwise

import numpy as np
import pytest

from fedcof.merging.fisher import RIDGE, blocks_of
from fedcof.merging.merge import Update
from tests.fedcof.merging import naive
from tests.fedcof.merging.networks import (
    CONVOLUTION,
    HEAD,
    MODULE,
    OTHERS,
    RANK,
    SCALING,
    A,
    B,
    deltas_of,
    first_network,
    matrices,
    merge_of,
    product,
    shares_of,
    updates_of,
    without_adapters,
)

DENSITY = 0.3
RULES = {
    "task-arithmetic": lambda deltas, shares, rank: naive.task_arithmetic(deltas, shares),
    "ties": lambda deltas, shares, rank: naive.ties(deltas, shares, DENSITY),
    "iso-c": naive.iso_c,
    "iso-cts": naive.iso_cts,
    "opcm": lambda deltas, shares, rank: naive.opcm(deltas),
}


def close(found, expected, tolerance=1e-5):
    assert np.linalg.norm(found - expected) <= tolerance * np.linalg.norm(expected)


def scaled(update, scale, deltas, shares):
    if scale:
        return scale * update
    length = np.linalg.norm(sum(share * delta for share, delta in zip(shares, deltas, strict=True)))
    return update * (length / np.linalg.norm(update))


@pytest.mark.parametrize("scale", [0.0, 0.7])
@pytest.mark.parametrize("first_round", [True, False])
@pytest.mark.parametrize("clients", [1, 2, 3, 5])
@pytest.mark.parametrize("name", RULES)
def test_a_merge_is_its_formula(name, clients, first_round, scale):
    start = first_network(clients, first_round)
    updates = updates_of(start, clients, seed=clients)
    shares, before = shares_of(updates), matrices(start)
    merge = merge_of(name, start, updates, scale=scale, density=DENSITY)
    merged = merge.merged(1.5)
    after = matrices(merged.arrays)
    for matrix, deltas in deltas_of(start, updates).items():
        rank = RANK if matrix == MODULE else None
        update = RULES[name](deltas, shares, rank)
        update = 1.5 * (scaled(update, scale, deltas, shares) if merge.TAKES_SCALE else update)
        total = before[matrix] + update
        kept = naive.truncated(total, RANK) if rank else total
        close(after[matrix] - before[matrix], kept - before[matrix])
        if rank:
            lost = np.linalg.norm(total - kept) ** 2 / np.linalg.norm(update) ** 2
            assert merged.lost == pytest.approx(lost, rel=1e-4, abs=1e-9)
    for other in OTHERS:
        mean = sum(
            share * update.arrays[other].astype(np.float64) for share, update in zip(shares, updates, strict=True)
        )
        close(merged.arrays[other], mean)


def test_the_mean_is_of_the_arrays_that_travel():
    start = first_network(3)
    updates = updates_of(start, 4)
    shares = shares_of(updates)
    merge = merge_of("mean", start, updates, scale=3.0)
    for factor in (1.0, 0.25):
        merged = merge.merged(factor)
        assert merged.lost is None
        for name, before in start.items():
            arrays = [update.arrays[name].astype(np.float64) for update in updates]
            mean = sum(share * array for share, array in zip(shares, arrays, strict=True))
            close(merged.arrays[name], before + factor * (mean - before), 1e-6)
    of_products = sum(s * product(update.arrays) for s, update in zip(shares, updates, strict=True))
    gap = np.linalg.norm(product(merge.merged().arrays) - of_products) / np.linalg.norm(of_products)
    assert gap > 1e-3


@pytest.mark.parametrize("first_round", [True, False])
@pytest.mark.parametrize("scale", [0.0, 0.4])
@pytest.mark.parametrize("core", ["mean", "task-arithmetic", "ties", "iso-c", "iso-cts"])
def test_core_space_merges_in_the_core(core, scale, first_round):
    start = first_network(1, first_round)
    updates = updates_of(start, 2)
    shares, before = shares_of(updates), matrices(start)
    rules = {"mean": lambda deltas, shares, rank: naive.task_arithmetic(deltas, shares) / len(deltas), **RULES}
    factors = [(u.arrays[A].astype(np.float64), u.arrays[B].astype(np.float64)) for u in updates]
    old = (start[A].astype(np.float64), start[B].astype(np.float64))
    expected, cores = naive.core_space(factors, old, SCALING, lambda cores: rules[core](cores, shares, RANK))
    if core != "mean":
        expected = scaled(expected, scale, cores, shares)
    merged = merge_of("core-space", start, updates, core=core, density=DENSITY, scale=scale).merged()
    total = before[MODULE] + expected
    close(product(merged.arrays), naive.truncated(total, RANK))
    rest = [Update(without_adapters(update.arrays), update.samples) for update in updates]
    outside = merge_of(core, without_adapters(start), rest, density=DENSITY, scale=scale).merged().arrays
    for name in (CONVOLUTION, HEAD, *OTHERS):
        close(merged.arrays[name], outside[name], 1e-6)


def of_rank_2(arrays):
    return {**arrays, A: arrays[A][:2], B: arrays[B][:, :2]}


@pytest.mark.parametrize("first_round", [True, False])
def test_the_core_is_small_and_loses_nothing(first_round):
    whole = first_network(2, first_round)
    start = of_rank_2(whole)
    updates = [Update(of_rank_2(update.arrays), update.samples) for update in updates_of(whole, 3)]
    cores = []
    merge = merge_of("core-space", start, updates)
    merge._rest.merge_all = lambda name, deltas, rank: cores.extend(deltas) or deltas[0][1]
    merge.merged()
    deltas = deltas_of(start, updates)[MODULE]
    rank = 2 * (3 if first_round else 4)
    for (samples, core), delta, update in zip(cores, deltas, updates, strict=True):
        assert core.shape == (rank, rank) < delta.shape
        assert samples == update.samples
        close(np.linalg.svd(core.numpy(), compute_uv=False), np.linalg.svd(delta, compute_uv=False)[:rank], 1e-10)


@pytest.mark.parametrize("clients", [1, 3])
def test_core_space_with_the_mean_inside_is_the_mean_of_the_products(clients):
    """Clients that share their A and start from nothing have a mean of no higher rank."""
    start = first_network(4, first_round=True)
    updates = [
        Update({**update.arrays, A: start[A]}, update.samples) for update in updates_of(start, clients, seed=4)
    ]
    mean = sum(s * product(update.arrays) for s, update in zip(shares_of(updates), updates, strict=True))
    merged = merge_of("core-space", start, updates).merged()
    close(product(merged.arrays), mean)
    assert merged.lost < 1e-12


@pytest.mark.parametrize("parts", [1, 3])
def test_fisher_solves_the_projected_quadratics(parts):
    start = first_network(5)
    updates = updates_of(start, 3)
    merged = merge_of("fisher", start, updates, parts=parts).merged().arrays

    def vector(arrays):
        return np.concatenate([arrays[name].astype(np.float64).ravel() for name in start])

    ends = np.cumsum([0, *(sum(start[name].size for name in block) for block in blocks_of(start, parts))])
    blocks = [np.arange(*pair) for pair in pairwise(ends)]
    assert len(blocks) == parts
    expected = naive.fisher(
        vector(start),
        [vector(update.arrays) for update in updates],
        [vector(update.fisher) for update in updates],
        shares_of(updates),
        blocks,
        RIDGE,
    )
    close(vector(merged) - vector(start), expected - vector(start))
    halved = merge_of("fisher", start, updates, parts=parts, scale=2.0).merged(0.5).arrays
    close(vector(halved) - vector(start), (expected - vector(start)) / 2)


def test_fisher_without_information_is_the_mean():
    start = first_network(6)
    updates = [
        Update(update.arrays, update.samples, {name: np.zeros_like(array) for name, array in start.items()})
        for update in updates_of(start, 3)
    ]
    fisher, mean = (merge_of(name, start, updates).merged().arrays for name in ("fisher", "mean"))
    for name, array in mean.items():
        close(fisher[name], array, 1e-6)


def test_fisher_takes_the_mean_of_what_nobody_minds():
    start = first_network(8)
    fisher = {name: np.full(array.shape, float(name == HEAD), np.float32) for name, array in start.items()}
    updates = [
        Update({**start, name: update.arrays[name]}, update.samples, fisher)
        for name, update in zip((HEAD, CONVOLUTION), updates_of(start, 2), strict=True)
    ]
    merged = merge_of("fisher", start, updates).merged().arrays
    steps = {name: updates[place].arrays[name] - start[name] for place, name in enumerate((HEAD, CONVOLUTION))}
    # All of the first client's matters, to both; of the second's, nothing does.
    shares = shares_of(updates)
    close(merged[HEAD] - start[HEAD], shares[0] * steps[HEAD])
    close(merged[CONVOLUTION] - start[CONVOLUTION], shares[1] * steps[CONVOLUTION])


def test_fisher_follows_the_client_that_minds():
    start = first_network(7)
    updates = [
        Update(
            update.arrays,
            10,
            {name: np.full(array.shape, 1e6 if client == 1 else 1e-3, np.float32) for name, array in start.items()},
        )
        for client, update in enumerate(updates_of(start, 2))
    ]
    merged = merge_of("fisher", start, updates).merged().arrays
    for name, array in updates[1].arrays.items():
        close(merged[name] - start[name], array - start[name], 1e-3)
