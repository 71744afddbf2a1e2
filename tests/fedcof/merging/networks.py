"""Small networks, as they were sent and as clients have trained them."""

import numpy as np

from fedcof.merging.merge import MergeOptions, Update
from fedcof.merging.registry import MERGES

MODULE = "backbone.blocks.0.mlp.fc1"
A, B = MODULE + ".lora_a", MODULE + ".lora_b"
CONVOLUTION, HEAD = "backbone.conv_pw.weight", "head.weight"
OTHERS = ("backbone.conv_dw.weight", "backbone.norm.weight", "head.bias")
SCALING = 2.0
RANK = 8

SHAPES = {
    A: (RANK, 14),
    CONVOLUTION: (8, 10, 1, 1),
    OTHERS[0]: (3, 1, 3, 3),
    OTHERS[1]: (5,),
    B: (12, RANK),
    HEAD: (7, 9),
    OTHERS[2]: (7,),
}


def drawn(generator, size):
    return {name: (size * generator.standard_normal(shape)).astype(np.float32) for name, shape in SHAPES.items()}


def first_network(seed, first_round=False):
    """What is sent; in the first round an adapter's B is zero."""
    start = drawn(np.random.default_rng([seed, 0]), 0.5)
    if first_round:
        start[B] = np.zeros_like(start[B])
    for array in start.values():
        array.setflags(write=False)
    return start


def updates_of(start, clients, seed=0, size=0.1, fisher=True):
    """What so many clients have trained, each with other samples."""
    updates = []
    for client in range(clients):
        generator = np.random.default_rng([seed, 1 + client])
        arrays = {name: start[name] + step for name, step in drawn(generator, size).items()}
        importance = {name: np.square(array) for name, array in drawn(generator, 1.0).items()}
        for array in [*arrays.values(), *importance.values()]:
            array.setflags(write=False)  # As arrays are that come out of a message.
        updates.append(Update(arrays, int(generator.integers(1, 200)), importance if fisher else None))
    return updates


def without_adapters(arrays):
    return {name: array for name, array in arrays.items() if name not in (A, B)}


def merge_of(name, start, updates, **options):
    """A merge that has taken all updates in."""
    merge = MERGES.get(name)(start, MergeOptions(**{"adapter_scaling": SCALING, **options}))
    for update in updates:
        merge.add(update)
    return merge


def product(arrays):
    """What an adapter adds to its weight, as float64."""
    return SCALING * arrays[B].astype(np.float64) @ arrays[A].astype(np.float64)


def matrices(arrays):
    """The matrices that a network stands for, by name, as float64."""
    found = {name: arrays[name].astype(np.float64).reshape(arrays[name].shape[:2]) for name in (CONVOLUTION, HEAD)}
    return {MODULE: product(arrays), **found} if A in arrays else found


def deltas_of(start, updates):
    """Each matrix's updates, client after client."""
    moved = [matrices(update.arrays) for update in updates]
    return {name: [after[name] - before for after in moved] for name, before in matrices(start).items()}


def shares_of(updates):
    samples = np.array([update.samples for update in updates], dtype=np.float64)
    return samples / samples.sum()
