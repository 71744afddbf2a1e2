"""What a merge holds: a sum however many clients there are, or all of their arrays and nothing more."""

import numpy as np
import pytest
import torch

from fedcof.merging.registry import MERGES
from tests.fedcof.merging.networks import RANK, SHAPES, A, B, first_network, merge_of, updates_of

NUMBERS = {name: int(np.prod(shape)) for name, shape in SHAPES.items()}
IN_MATRICES = sum(number for name, number in NUMBERS.items() if len(SHAPES[name]) == 2 or "pw" in name)
DENSE = SHAPES[B][0] * SHAPES[A][1]


def held(thing, seen):
    """Bytes of all arrays and tensors that can be reached from an object, each once."""
    if id(thing) in seen:
        return 0
    seen[id(thing)] = thing
    if isinstance(thing, (np.ndarray, torch.Tensor)):
        return thing.nbytes
    if isinstance(thing, dict):
        return sum(held(item, seen) for item in thing.values())
    if isinstance(thing, (list, tuple)):
        return sum(held(item, seen) for item in thing)
    return sum(held(item, seen) for item in getattr(thing, "__dict__", {}).values())


def grown(name, clients, **options):
    """Bytes that a merge holds more than one that has taken one client in."""
    start = first_network(0)
    updates = updates_of(start, clients)
    first, last = merge_of(name, start, updates[:1], **options), merge_of(name, start, updates, **options)
    return held(last, {}) - held(first, {})


@pytest.mark.parametrize("name", [name for name in MERGES.names() if MERGES.get(name).STREAMS])
def test_a_merge_that_streams_holds_the_same_for_one_client_and_for_many(name):
    assert grown(name, 12) == 0


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("ties", IN_MATRICES),
        ("iso-cts", IN_MATRICES),
        ("fisher", sum(NUMBERS.values())),
        ("core-space", NUMBERS[A] + NUMBERS[B]),
    ],
)
def test_a_merge_that_does_not_holds_every_clients_arrays_once(name, numbers):
    assert not MERGES.get(name).STREAMS
    assert grown(name, 12) == 11 * 4 * numbers


def test_every_merge_is_one_or_the_other():
    streaming = {name for name in MERGES.names() if MERGES.get(name).STREAMS}
    assert streaming == {"mean", "task-arithmetic", "iso-c", "opcm"}


@pytest.mark.parametrize("name", ["task-arithmetic", "iso-c", "opcm"])
def test_a_streamed_adapter_is_held_as_its_product(name):
    start = {key: array for key, array in first_network(0).items() if key in (A, B)}
    merge = merge_of(name, start, [])
    before = held(merge, {})
    updates = [type(u)({key: u.arrays[key] for key in start}, u.samples) for u in updates_of(first_network(0), 3)]
    for update in updates:
        merge.add(update)
    assert held(merge, {}) - before == 8 * DENSE > 4 * RANK * (SHAPES[A][1] + SHAPES[B][0]) / 2
    merge.merged()
    assert held(merge, {}) - before <= 2 * 8 * DENSE
