"""Kept partitions: dealt once, told apart by everything they depend on, dealt again when damaged."""

import numpy as np
import pytest

from fedcof.data.partition_cache import kept_partition

LABELS = np.array([0, 1, 0, 1, 2])
PARTS = [np.array([0, 3]), np.array([], dtype=np.int64), np.array([1, 2, 4])]


@pytest.fixture
def keep(tmp_path):
    deals = []

    def run(labels=LABELS, settings="a"):
        def deal():
            deals.append(settings)
            return PARTS

        parts = kept_partition(tmp_path, labels, settings, deal)
        assert [part.tolist() for part in parts] == [part.tolist() for part in PARTS]
        assert all(part.dtype == np.int64 for part in parts)
        return len(deals)

    return run


def test_a_partition_is_dealt_once(keep):
    assert keep() == 1
    assert keep() == 1


def test_other_labels_or_settings_are_dealt_anew(keep):
    assert keep() == 1
    assert keep(settings="b") == 2
    assert keep(labels=LABELS[::-1]) == 3


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:-30], lambda whole: b"", lambda whole: b"PK" + whole[2:40]]
)
def test_a_damaged_one_is_dealt_again(keep, tmp_path, damage):
    keep()
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(damage(path.read_bytes()))
    assert keep() == 2
    assert keep() == 2


def test_one_that_lacks_samples_is_dealt_again(keep, tmp_path):
    keep()
    (path,) = tmp_path.glob("*.npz")
    np.savez(path, samples=np.array([0, 1]), sizes=np.array([2]))
    assert keep() == 2
