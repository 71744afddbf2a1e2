"""Embedding: the numbers of a plain loop, whatever the batches, the device and the precision."""

import pickle
from dataclasses import replace

import datasets
import numpy as np
import pytest
import torch
from torch import nn

from fedcof.embedding import features
from fedcof.embedding.feature_cache import cached_features
from fedcof.embedding.features import extract_features
from fedcof.errors import UserError
from tests.fedcof.images import NUM_IMAGES, SmallMemory, make_images, plain_loop


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_features_equal_a_plain_loops(backbone, batch_size):
    images = make_images()
    seen = []
    found = extract_features(backbone, images, batch_size, progress=seen.append)
    assert found.dtype == torch.float32
    assert sum(seen) == NUM_IMAGES
    torch.testing.assert_close(found, plain_loop(backbone, images), rtol=1e-5, atol=1e-5)


def test_a_selection_gives_its_rows(backbone):
    images = make_images()
    rows = [7, 3, 3, 20]
    whole = extract_features(backbone, images, 4)
    torch.testing.assert_close(
        extract_features(backbone, images.select(rows), 4), whole[rows], rtol=1e-5, atol=1e-5
    )


def test_no_images_give_no_features(backbone, tmp_path):
    empty = make_images().select([])
    assert extract_features(backbone, empty).shape == (0, backbone.feature_dim)
    assert cached_features(backbone, empty, tmp_path).features.shape == (0, backbone.feature_dim)


def test_lower_precision_is_near(backbone):
    images = make_images()
    exact = extract_features(backbone, images, precision="float32")
    near = extract_features(backbone, images, precision="bfloat16")
    assert near.dtype == torch.float32
    assert not torch.equal(near, exact)
    assert (near - exact).abs().max() < 0.05 * exact.abs().max()


def test_a_batch_that_does_not_fit_is_halved_once_and_for_all(backbone):
    images = make_images()
    expected = plain_loop(backbone, images)
    small = replace(backbone, module=SmallMemory(backbone.module, most=2))
    torch.testing.assert_close(extract_features(small, images, 8), expected, rtol=1e-5, atol=1e-5)
    assert small.module.refused == 2
    none = replace(backbone, module=SmallMemory(backbone.module, most=0))
    with pytest.raises(UserError, match="One image does not fit"):
        extract_features(none, images, 8)


def test_batches_can_be_loaded_in_another_process(backbone, tmp_path):
    columns = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    gone = datasets.Dataset.from_dict({"image": [str(tmp_path / "gone.png")], "label": [0]}, columns)
    for images in (make_images(), gone):
        rows = features._batches_of([range(len(images))], 8)
        batches = features._TransformedBatches(backbone.transform, images, rows)
        copy = pickle.loads(pickle.dumps(batches))
        assert len(copy) == len(batches)
        assert str(pickle.loads(pickle.dumps(copy[len(copy) - 1]))) == str(batches[len(batches) - 1])


def test_only_a_device_beside_the_cpu_has_loading_processes(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert features._num_workers(torch.device("cpu"), 1_000_000) == 0
    assert features._num_workers(torch.device("cuda"), 100) == 0
    assert features._num_workers(torch.device("cuda"), 1_000_000) == 3
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert features._num_workers(torch.device("cuda"), 1_000_000) == 0


def test_what_a_user_is_told(backbone):
    images = make_images()
    with pytest.raises(UserError, match="device 'abacus'"):
        extract_features(backbone, images, device="abacus")
    with pytest.raises(UserError, match="Unknown precision 'int8'"):
        extract_features(backbone, images, precision="int8")
    broken = replace(backbone, module=nn.Sequential(backbone.module, nn.Threshold(np.inf, np.nan)))
    with pytest.raises(UserError, match="not finite"):
        extract_features(broken, images)
