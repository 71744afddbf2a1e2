"""What holds of every merge: one client, nobody who moved, the order, factors, odd ranks, many clients."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcof.errors import UserError
from fedcof.merging.merge import MergeOptions, Update
from fedcof.merging.refactoring import refactored
from fedcof.merging.registry import MERGES
from fedcof.merging.spectrum import leading, spectrum
from tests.fedcof.merging.networks import (
    CONVOLUTION,
    HEAD,
    MODULE,
    OTHERS,
    SCALING,
    SHAPES,
    A,
    B,
    deltas_of,
    first_network,
    matrices,
    merge_of,
    product,
    updates_of,
    without_adapters,
)

NAMES = MERGES.names()
CORES = ["mean", "task-arithmetic", "ties", "iso-c", "iso-cts"]
ALL = [(name, {}) for name in NAMES if name != "core-space"] + [("core-space", {"core": core}) for core in CORES]
every_merge = pytest.mark.parametrize(("name", "options"), ALL, ids=[" ".join([n, *o.values()]) for n, o in ALL])


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@every_merge
@pytest.mark.parametrize("first_round", [True, False])
@pytest.mark.parametrize("clients", [1, 3])
def test_clients_that_did_not_move_give_the_start_back(name, options, first_round, clients):
    start = first_network(0, first_round)
    fisher = {key: np.square(array) for key, array in start.items()}
    merge = merge_of(name, start, [Update(start, 3 + client, fisher) for client in range(clients)], **options)
    for factor in (1.0, 2.0):
        merged = merge.merged(factor)
        assert merged.lost in (None, 0.0)
        for key, array in start.items():
            assert np.array_equal(merged.arrays[key], array)


@every_merge
def test_one_client_that_moved_after_one_that_did_not_is_heard(name, options):
    start = first_network(1)
    moved = updates_of(start, 1)[0]
    still = Update(start, moved.samples, moved.fisher)
    merged = merge_of(name, start, [still, moved], **options).merged()
    for matrix, (_, delta) in deltas_of(start, [still, moved]).items():
        found = matrices(merged.arrays)[matrix] - matrices(start)[matrix]
        assert np.sum(found * delta) > 0.5 * np.linalg.norm(found) * np.linalg.norm(delta) > 0


@pytest.mark.parametrize("name", ["iso-c", "iso-cts"])
def test_one_clients_update_is_flattened_and_keeps_its_length(name):
    start = without_adapters(first_network(2))
    update = Update(without_adapters(updates_of(first_network(2), 1)[0].arrays), 5)
    merged = merge_of(name, start, [update]).merged().arrays
    for matrix in (CONVOLUTION, HEAD):
        delta, found = (matrices(arrays)[matrix] - matrices(start)[matrix] for arrays in (update.arrays, merged))
        u, s, vt = np.linalg.svd(delta, full_matrices=False)
        flat = np.linalg.norm(delta) / np.sqrt(len(s)) * u @ vt
        assert relative(found, flat) < 1e-5


@pytest.mark.parametrize(("name", "options"), [case for case in ALL if "iso" not in str(case)])
def test_one_client_is_itself_where_nothing_is_flattened(name, options):
    start = first_network(3)
    update = updates_of(start, 1)[0]
    merged = merge_of(name, start, [update], density=1.0, **options).merged()
    assert not merged.lost or merged.lost < 1e-9
    for matrix, array in matrices(update.arrays).items():
        assert relative(matrices(merged.arrays)[matrix], array) < 1e-5


@every_merge
@settings(max_examples=8)
@given(seed=st.integers(0, 1000), order=st.permutations(range(4)), first_round=st.booleans())
def test_clients_that_are_sorted_again_give_the_same_bits(name, options, seed, order, first_round):
    start = first_network(seed, first_round)
    updates = updates_of(start, 4, seed)
    expected = merge_of(name, start, updates, **options).merged()
    again = [updates[place] for place in order]
    found = merge_of(name, start, [again[order.index(place)] for place in range(4)], **options).merged()
    assert found.lost == expected.lost
    assert found.notes == expected.notes
    for key, array in expected.arrays.items():
        assert array.dtype == np.float32
        assert array.shape == SHAPES[key]
        assert found.arrays[key].tobytes() == array.tobytes()


@pytest.mark.parametrize(("name", "options"), [case for case in ALL if case[0] != "opcm"])
@settings(max_examples=8)
@given(seed=st.integers(0, 1000), order=st.permutations(range(4)), first_round=st.booleans())
def test_no_order_of_adding_changes_more_than_rounding(name, options, seed, order, first_round):
    start = first_network(seed, first_round)
    updates = updates_of(start, 4, seed)
    expected = merge_of(name, start, updates, **options).merged().arrays
    found = merge_of(name, start, [updates[place] for place in order], **options).merged().arrays
    # Factors of equal singular values may turn within their space; what they multiply out to may not.
    for matrix, array in matrices(expected).items():
        assert relative(matrices(found)[matrix], array) < 1e-6
    for key in OTHERS:
        assert relative(found[key], expected[key]) < 1e-6


def test_opcm_depends_on_the_order():
    start = first_network(4)
    updates = updates_of(start, 3)
    forwards, backwards = (merge_of("opcm", start, order).merged().arrays for order in (updates, updates[::-1]))
    assert relative(forwards[HEAD] - start[HEAD], backwards[HEAD] - start[HEAD]) > 0.01


@every_merge
def test_a_factor_multiplies_the_update_and_nothing_is_used_up(name, options):
    start = first_network(5)
    updates = updates_of(start, 4)
    merge = merge_of(name, start, updates[:3], **options)
    once = merge.merged()
    twice, none = merge.merged(2.0).arrays, merge.merged(0.0)
    for key in (CONVOLUTION, HEAD):
        assert relative(twice[key] - start[key], 2 * (once.arrays[key] - start[key])) < 1e-5
        assert np.array_equal(none.arrays[key], start[key])
    assert relative(product(none.arrays), product(start)) < 1e-6
    assert none.lost in (None, 0.0)
    assert merge.merged().arrays[B].tobytes() == once.arrays[B].tobytes()
    merge.add(updates[3])
    late, at_once = merge.merged(), merge_of(name, start, updates, **options).merged()
    assert late.lost == at_once.lost
    assert late.notes == at_once.notes
    for key, array in at_once.arrays.items():
        assert late.arrays[key].tobytes() == array.tobytes()


@every_merge
def test_a_hundred_clients(name, options):
    start = first_network(6)
    merged = merge_of(name, start, updates_of(start, 100), **options).merged()
    assert all(np.isfinite(array).all() for array in merged.arrays.values())
    assert merged.lost is None or 0 < merged.lost < 1
    own = [note for note in merged.notes if "no direction of its own" in note]
    expected = "iso-cts with 100 clients has no direction of its own for 3 of 3 matrices: iso-c there"
    assert own == ([expected] if "iso-cts" in (name, options.get("core")) else [])


def test_what_flattening_leaves_out_is_noted():
    start = first_network(7, first_round=True)
    updates = updates_of(start, 3)
    deltas = deltas_of(start, updates)[MODULE]
    total = sum(update.samples * delta for update, delta in zip(updates, deltas, strict=True))
    values = np.square(np.linalg.svd(total, compute_uv=False))
    merged = merge_of("iso-c", start, updates).merged()
    (note,) = merged.notes
    assert f"{values[8:].sum() / values.sum():.1%} of their squared norm" in note
    assert merged.lost < 1e-9
    assert merge_of("iso-c", start, updates[:1]).merged().notes == ()


@pytest.mark.parametrize("name", ["task-arithmetic", "ties", "iso-c", "iso-cts", "core-space"])
def test_updates_that_cancel_are_not_lengthened(name):
    start = {key: np.zeros_like(array) for key, array in first_network(8).items()}
    start[A] = first_network(8)[A]
    step = updates_of(start, 1)[0].arrays
    step[A] = start[A]
    # Thirds, whose sum is not zero but rounding; iso-cts would keep the two clients' direction against the one's.
    parts = [(1.0, 1), (-1.0, 1)] if name == "iso-cts" else [(1.0, 1), (-1 / 3, 1), (-1 / 3, 2)]
    updates = [
        Update({key: start[key] + np.float64(share) * (array - start[key]) for key, array in step.items()}, samples)
        for share, samples in parts
    ]
    merged = merge_of(name, start, updates, core="iso-c", density=1.0).merged().arrays
    assert np.linalg.norm(product(merged)) < 1e-6 * np.linalg.norm(product(step))
    assert np.linalg.norm(merged[HEAD]) < 1e-6 * np.linalg.norm(step[HEAD])


@pytest.mark.parametrize("name", ["iso-c", "iso-cts", "opcm", "task-arithmetic", "ties"])
def test_updates_of_low_rank_keep_it(name):
    generator = np.random.default_rng(0)
    start = {HEAD: np.zeros((7, 9), np.float32)}
    directions = generator.standard_normal((2, 9))
    updates = [Update({HEAD: generator.standard_normal((7, 2)) @ directions}, 4) for _ in range(2)]
    merged = merge_of(name, start, updates, density=1.0).merged().arrays[HEAD]
    values = np.linalg.svd(merged, compute_uv=False)
    assert values[2] < 1e-5 * values[1] if name != "ties" else values[2] > 1e-3 * values[0]
    if name == "iso-c":
        assert values[1] == pytest.approx(values[0], rel=1e-5)


def test_factors_are_balanced_signed_and_never_dead():
    generator = np.random.default_rng(1)
    a, b = generator.standard_normal((4, 9)), generator.standard_normal((6, 4))
    low = torch.from_numpy(generator.standard_normal((6, 2)) @ generator.standard_normal((2, 9)))
    update = low - torch.from_numpy(SCALING * b @ a)
    new_a, new_b, lost = refactored(a, b, update, SCALING)
    assert torch.allclose(SCALING * new_b @ new_a, low)
    assert lost < 1e-20
    assert torch.allclose((new_b.T @ new_b)[:2, :2], (new_a @ new_a.T)[:2, :2])
    assert all(column[column.abs().argmax()] > 0 for column in new_b.T[:2])
    assert not new_b[:, 2:].any()
    assert torch.equal(new_a[2:], torch.from_numpy(a[2:]))
    kept_a, kept_b, _ = refactored(a, b, torch.zeros(6, 9, dtype=torch.float64), SCALING)
    assert torch.equal(kept_a, torch.from_numpy(a))
    assert torch.equal(kept_b, torch.from_numpy(b))


def test_a_rank_beyond_what_the_matrix_has():
    generator = np.random.default_rng(2)
    a, b = generator.standard_normal((5, 3)), np.zeros((4, 5))
    update = torch.from_numpy(generator.standard_normal((4, 3)))
    new_a, new_b, lost = refactored(a, b, update, 1.0)
    assert (new_a.shape, new_b.shape) == ((5, 3), (4, 5))
    assert torch.allclose(new_b @ new_a, update)
    assert lost < 1e-20


@pytest.mark.parametrize("shape", [(30, 40), (40, 30), (30, 30)])
def test_the_first_triplets_are_those_of_the_whole_decomposition(shape):
    matrix = torch.from_numpy(np.random.default_rng(3).standard_normal(shape))
    few, all_of_them = leading(matrix, 3), spectrum(matrix)
    assert torch.allclose(all_of_them.matrix(), matrix)
    for found, expected in zip(few, all_of_them.first(3), strict=True):
        assert torch.allclose(found, expected, atol=1e-10)


@every_merge
def test_what_cannot_be_merged_is_said(name, options):
    start = first_network(9)
    merge = merge_of(name, start, [], **options)
    with pytest.raises(UserError, match="add at least one"):
        merge.merged()
    good = updates_of(start, 1)[0]
    missing = {key: array for key, array in good.arrays.items() if key != HEAD}
    refused = [
        (Update(missing, 3, good.fisher), "head.weight is missing"),
        (Update({**good.arrays, HEAD: np.zeros((7, 8), np.float32)}, 3, good.fisher), r"head.weight is \(7, 8\)"),
        (Update({**good.arrays, "extra": good.arrays[HEAD]}, 3, good.fisher), "not in what was sent"),
        (Update(good.arrays, 0, good.fisher), "0 samples"),
    ]
    for update, reason in refused:
        with pytest.raises(UserError, match=reason):
            merge.add(update)
    if merge.NEEDS_FISHER:
        with pytest.raises(UserError, match="no Fisher information"):
            merge.add(Update(good.arrays, 3))
        with pytest.raises(UserError, match="below 0"):
            merge.add(Update(good.arrays, 3, good.arrays))
        with pytest.raises(UserError, match="Fisher information head.weight is missing"):
            merge.add(Update(good.arrays, 3, missing))
    with pytest.raises(UserError, match="add at least one"):
        merge.merged()


def test_core_space_wants_adapters_and_a_merge_inside():
    start = first_network(10)
    with pytest.raises(UserError, match="merges adapters"):
        merge_of("core-space", without_adapters(start), [])
    with pytest.raises(UserError, match="choose one of mean, task-arithmetic, ties, iso-c, iso-cts"):
        merge_of("core-space", start, [], core="opcm")
    with pytest.raises(UserError, match=f"{MODULE} has no {B}"):
        merge_of("iso-c", {key: array for key, array in start.items() if key != B}, [])


@pytest.mark.parametrize(
    "options", [{"scale": -1.0}, {"density": 0.0}, {"density": 1.1}, {"adapter_scaling": 0.0}, {"parts": 0}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(UserError, match="but it must be"):
        MergeOptions(**options)
