"""The random rotation: orthonormal, fast, and the matrix it says it is."""

import pytest
import torch
from scipy.linalg import block_diag, hadamard

from fedcof.wire.rotation import Rotation


@pytest.mark.parametrize("dim", [1, 2, 3, 13, 50, 64])
def test_it_is_signs_then_a_permutation_then_hadamard_blocks(dim):
    rotation = Rotation.drawn(dim, 7)
    rows = torch.randn(4, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sizes = [1 << power for power in range(10, -1, -1) if dim & (1 << power)]
    matrix = torch.from_numpy(block_diag(*(hadamard(size) / size**0.5 for size in sizes)))
    naive = torch.stack([matrix @ (row * rotation.signs.double())[rotation.permutation] for row in rows])
    torch.testing.assert_close(rotation.apply(rows), naive)
    torch.testing.assert_close(rotation.invert(rotation.apply(rows)), rows)
    torch.testing.assert_close(rotation.apply(rows).norm(dim=1), rows.norm(dim=1))


def test_a_seed_draws_one_rotation_and_spreads_a_spike():
    spike = torch.zeros(1, 1280)
    spike[0, 17] = 1.0
    rotated = Rotation.drawn(1280, 3).apply(spike)
    assert torch.equal(rotated, Rotation.drawn(1280, 3).apply(spike))
    assert not torch.equal(rotated, Rotation.drawn(1280, 4).apply(spike))
    assert rotated.abs().max() <= 1 / 256**0.5 + 1e-6
