"""Cells: each sample in one for good, none too small, none that lacks a sample; what answers can tell apart."""

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.cells import NOT_SENT, cells_of
from clients.node_state import NodeState
from clients.refusal import Refusal


def names(numbers):
    return [hashlib.sha256(bytes([number])).hexdigest() for number in numbers]


def cells_by_number(numbers, digests):
    """The samples that are sent together."""
    together = {}
    for number, digest in zip(numbers, digests, strict=True):
        if number != NOT_SENT:
            together.setdefault(number, set()).add(digest)
    return [frozenset(cell) for _, cell in sorted(together.items())]


@given(size=st.integers(0, 60), smallest=st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_every_class_is_divided_once_into_cells_large_enough(tmp_path_factory, size, smallest):
    state = NodeState(tmp_path_factory.mktemp("state"))
    digests = names(range(size))
    numbers = cells_of(["a"] * size, digests, smallest, state)
    cells = cells_by_number(numbers, digests)
    assert len(cells) == size // smallest
    assert all(smallest <= len(cell) < 2 * smallest for cell in cells)
    assert sum(map(len, cells)) == (size if size >= smallest else 0)
    shuffled = np.random.default_rng(size).permutation(size)
    again = cells_of(["a"] * size, [digests[i] for i in shuffled], smallest, state)
    assert np.array_equal(again, numbers[shuffled])


def test_another_node_divides_otherwise(tmp_path):
    numbers = [cells_of(["a"] * 40, names(range(40)), 5, NodeState(tmp_path / name)) for name in "xy"]
    assert not np.array_equal(*numbers)


@given(steps=st.lists(st.sets(st.integers(0, 40)), min_size=1, max_size=6), smallest=st.integers(2, 6))
@settings(max_examples=60, deadline=None)
def test_no_history_of_changes_lets_fewer_samples_be_told_apart(tmp_path_factory, steps, smallest):
    """Whatever was there when, two samples of one cell are in all answers together, or in none."""
    state = NodeState(tmp_path_factory.mktemp("state"))
    seen = []
    for step in steps:
        digests = names(sorted(step))
        numbers = cells_of(["a"] * len(digests), digests, smallest, state)
        seen.append({digest for digest, number in zip(digests, numbers, strict=True) if number != NOT_SENT})
    rows = {digest: tuple(digest in answer for answer in seen) for digest in set().union(*seen)}
    for answers in set(rows.values()):
        assert sum(row == answers for row in rows.values()) >= smallest


def test_unions_of_cells_of_any_number_of_groups_tell_no_cell_apart_any_finer(tmp_path):
    """The rank of all that can be asked for is the number of cells: no single sample is a combination of it."""
    digests, state = names(range(47)), NodeState(tmp_path)
    numbers = cells_of(["a"] * 47, digests, 5, state)
    asked = [numbers % groups == group for groups in range(1, 13) for group in range(groups)]
    system = np.array([row.astype(float) for row in asked if row.any()])
    assert np.linalg.matrix_rank(system) == 9
    for sample in range(47):
        target = np.zeros(47)
        target[sample] = 1
        solved = np.linalg.lstsq(system.T, target, rcond=None)[0]
        assert np.linalg.norm(system.T @ solved - target) > 0.5


def test_a_cell_that_lacks_a_sample_is_not_sent_until_it_is_back(tmp_path):
    state, digests = NodeState(tmp_path), names(range(20))
    numbers = cells_of(["a"] * 20, digests, 5, state)
    without = cells_of(["a"] * 19, digests[1:], 5, state)
    gone = [i for i in range(20) if numbers[i] == numbers[0]]
    assert all(without[i - 1] == NOT_SENT for i in gone if i)
    assert sum(without == NOT_SENT) == len(gone) - 1
    assert np.array_equal(cells_of(["a"] * 20, digests, 5, state), numbers)


def test_new_samples_wait_until_they_are_enough(tmp_path):
    state = NodeState(tmp_path)
    cells_of(["a"] * 10, names(range(10)), 5, state)
    for size, sent in ((14, 10), (15, 15)):
        numbers = cells_of(["a"] * size, names(range(size)), 5, state)
        assert (numbers != NOT_SENT).sum() == sent


def test_equal_samples_are_counted(tmp_path):
    numbers = cells_of(["a"] * 6 + ["b"] * 6, names([0] * 12), 3, NodeState(tmp_path))
    assert sorted(numbers) == [0] * 6 + [1] * 6


def test_a_larger_size_sends_cells_together(tmp_path):
    state, digests = NodeState(tmp_path), names(range(30))
    small = cells_by_number(cells_of(["a"] * 30, digests, 5, state), digests)
    large = cells_by_number(cells_of(["a"] * 30, digests, 12, state), digests)
    assert all(len(cell) >= 12 for cell in large)
    assert all(sum(part <= cell for cell in large) == 1 for part in small)


def test_a_damaged_record_is_refused_and_not_made_anew(tmp_path):
    state = NodeState(tmp_path)
    cells_of(["a"] * 10, names(range(10)), 5, state)
    (tmp_path / "cells.json").write_text("{")
    with pytest.raises(Refusal, match="damaged"):
        cells_of(["a"] * 10, names(range(10)), 5, state)
    assert (tmp_path / "cells.json").read_text() == "{"


def test_two_processes_divide_once(tmp_path):
    state = NodeState(tmp_path)
    first, second = (cells_of(["a"] * 30, names(range(30)), 5, NodeState(tmp_path)) for _ in range(2))
    assert np.array_equal(first, second)
    assert len(set(itertools.chain.from_iterable(state.read("cells.json")["a"]))) == 30
