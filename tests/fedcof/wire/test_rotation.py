"""The random rotation: orthonormal, fast, the matrix it says it is, and drawn apart from the dither."""

import numpy as np
import pytest
import torch
from scipy.linalg import block_diag, hadamard

from fedcof import class_means
from fedcof.wire.dither import dither
from fedcof.wire.encoding import decode_class_means, encode_class_means
from fedcof.wire.rotation import OWN_STREAM, STREAM_OF_DITHER, Rotation


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


def agreement(version, row, seeds=200, dim=64):
    """Shares of the signs, and of the ranks of the permutation, that agree with a row of the dither, by seed."""
    drawn = []
    for seed in range(seeds):
        rotation, noise = Rotation.drawn(dim, seed, version), dither((row + 1, dim), seed)[row]
        same = (rotation.signs > 0) == (noise > 0)
        rank = np.corrcoef(rotation.permutation.numpy(), noise.numpy())[0, 1]
        drawn.append((float(same.double().mean()), rank))
    return np.array(drawn)


@pytest.mark.parametrize("row", range(4))
def test_signs_and_permutation_know_nothing_of_the_dither(row):
    same, rank = agreement(OWN_STREAM, row).T
    # 12,800 coins, and 200 correlations of 64 pairs: five deviations off.
    assert abs(same.mean() - 0.5) < 5 * 0.5 / 12_800**0.5
    assert abs(rank.mean()) < 5 / 12_800**0.5
    assert same.max() < 0.9
    assert (same == 1).sum() == 0


def test_in_the_first_version_the_signs_were_those_of_the_first_row():
    same, _ = agreement(STREAM_OF_DITHER, 0).T
    assert (same == 1).sum() == 200


def test_what_is_sent_draws_from_a_stream_of_its_own():
    upload = class_means(torch.randn(12, 64), torch.arange(12) % 3)
    for seed in range(5):
        sent = encode_class_means(upload, "int4", seed)
        assert sent["dither"].tolist() == [seed, 64, OWN_STREAM]
        assert decode_class_means(sent).rotation == OWN_STREAM


def test_uploads_of_the_first_version_decode_to_the_last_bit():
    """Written, and decoded, by the code before the second version, of 6 samples of 2 classes in 5 dimensions."""
    sent = {
        "class-ids": np.array([0, 2], dtype=np.uint8),
        "counts": np.array([3, 3], dtype=np.uint8),
        "means": np.array([[136, 41, 176], [43, 250, 80]], dtype=np.uint8),
        "steps": np.array([float.fromhex(x) for x in ("0x1.53e90ap-1", "0x1.e4edf8p-5")], dtype=np.float32),
        "dither": np.array([11, 5], dtype=np.uint32),
    }
    decoded = [
        ("0x1.cf1a7cp+0", "0x1.c5e518p+0", "0x1.26186cp+1", "0x1.1cb762p+1", "0x1.16a018p+1"),
        ("-0x1.2adbc2p-3", "-0x1.73122ap-2", "-0x1.9394dep-2", "-0x1.9e7f3cp-3", "0x1.050df2p-3"),
    ]
    back = decode_class_means(sent)
    assert back.rotation == STREAM_OF_DITHER
    assert back.means.tolist() == [[float.fromhex(x) for x in row] for row in decoded]
    assert decode_class_means(sent, "class-means.int4").means.tolist() == back.means.tolist()
    as_second = decode_class_means({**sent, "dither": np.array([11, 5, OWN_STREAM], dtype=np.uint32)})
    assert not torch.allclose(as_second.means, back.means, atol=0.1)
