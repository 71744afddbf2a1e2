"""Embedding against a plain loop, and a cache that never gives a wrong feature."""

import io
import json
import logging
import multiprocessing
import os
import pickle
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from torch import nn

from fedcof import features
from fedcof.backbones import load_backbone
from fedcof.errors import UserError
from fedcof.features import cached_features, clear_cache, extract_features, feature_cache_dir, list_cache

NAME = "test_resnet"
NUM_IMAGES = 21


class CountingModule(nn.Module):
    """Passes images on and counts them."""

    def __init__(self, module):
        super().__init__()
        self.module, self.images = module, 0

    def forward(self, images):
        self.images += len(images)
        return self.module(images)


@pytest.fixture
def backbone():
    loaded = load_backbone(NAME, 32, "none")
    return replace(loaded, module=CountingModule(loaded.module))


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def make_images(seed=0, num_images=NUM_IMAGES):
    """Grey and coloured images of several sizes, and their labels."""
    generator = np.random.default_rng(seed)
    shapes = [(20 + i, 24, 3) if i % 2 else (24, 20) for i in range(num_images)]
    encoded = [{"bytes": png(generator.integers(0, 256, s, dtype=np.uint8)), "path": None} for s in shapes]
    columns = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    return datasets.Dataset.from_dict({"image": encoded, "label": np.arange(num_images) % 5}, columns)


def plain_loop(backbone, images):
    with torch.inference_mode():
        return torch.cat([backbone.module(backbone.transform(row["image"].convert("RGB"))[None]) for row in images])


def the_entry(cache_dir):
    (entry,) = [path for path in cache_dir.iterdir() if path.is_dir()]
    return entry


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


class SmallMemory(nn.Module):
    def __init__(self, module, most):
        super().__init__()
        self.module, self.most, self.refused = module, most, 0

    def forward(self, images):
        if len(images) > self.most:
            self.refused += 1
            raise torch.OutOfMemoryError
        return self.module(images)


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
        batches = features._TransformedBatches(backbone.transform, images, 8)
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


def test_a_second_call_embeds_nothing(backbone, tmp_path):
    images = make_images()
    first = cached_features(backbone, images, tmp_path, 4)
    assert backbone.module.images == NUM_IMAGES
    again = cached_features(backbone, make_images(), tmp_path, 8, progress=lambda _: pytest.fail("embedded"))
    assert backbone.module.images == NUM_IMAGES
    assert np.array_equal(again.features, first.features)
    assert np.array_equal(again.labels, images["label"])
    assert again.labels.dtype == np.int64
    torch.testing.assert_close(torch.tensor(again.features), plain_loop(backbone, images), rtol=1e-5, atol=1e-5)
    assert not again.features.flags.writeable


def test_other_content_has_another_entry(backbone, tmp_path):
    images = make_images()
    relabelled = images.remove_columns("label").add_column("label", [0] * NUM_IMAGES)
    other_size = replace(load_backbone(NAME, 48, "none"), module=backbone.module)
    variants = [
        (backbone, images, "float32"),
        (backbone, make_images(seed=1), "float32"),
        (backbone, images.select(range(NUM_IMAGES - 1)), "float32"),
        (backbone, images.select(range(NUM_IMAGES)[::-1]), "float32"),
        (backbone, relabelled, "float32"),
        (backbone, images, "bfloat16"),
        (other_size, images, "float32"),
    ]
    for number, (variant, content, precision) in enumerate(variants, start=1):
        cached_features(variant, content, tmp_path, precision=precision)
        assert len(list_cache(tmp_path)) == number


def test_the_key_knows_content_not_how_it_was_stored(backbone, tmp_path):
    images = make_images()
    images.to_parquet(tmp_path / "images.parquet")

    def rows():
        yield from images.cast_column("image", datasets.Image(decode=False))

    stored = datasets.Dataset.from_parquet(str(tmp_path / "images.parquet"), cache_dir=str(tmp_path / "hf"))
    generated = datasets.Dataset.from_generator(rows, features=images.features, cache_dir=str(tmp_path / "hf"))
    parts = datasets.concatenate_datasets([images.select(range(5)), images.select(range(5, NUM_IMAGES))])
    for same in (images, stored, generated, parts, pickle.loads(pickle.dumps(images))):
        cached_features(backbone, same, tmp_path / "cache")
    assert backbone.module.images == NUM_IMAGES


def test_an_image_file_that_changed_is_embedded_again(backbone, tmp_path):
    path = tmp_path / "image.png"
    columns = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})

    def embed(colour):
        Image.new("RGB", (32, 32), colour).save(path)
        os.utime(path, ns=(colour[0], colour[0]))
        images = datasets.Dataset.from_dict({"image": [str(path)], "label": [0]}, columns)
        return cached_features(backbone, images, tmp_path / "cache").features[0]

    assert not np.array_equal(embed((1, 1, 1)), embed((250, 0, 0)))
    path.unlink()
    gone = datasets.Dataset.from_dict({"image": [str(path)], "label": [0]}, columns)
    with pytest.raises(UserError, match="image.png cannot be found"):
        cached_features(backbone, gone, tmp_path / "cache")


def flip_a_feature(entry):
    content = bytearray((entry / "features.npy").read_bytes())
    content[-2] ^= 1
    (entry / "features.npy").write_bytes(content)


def flip_a_label(entry):
    content = bytearray((entry / "labels.npy").read_bytes())
    content[-8] ^= 1
    (entry / "labels.npy").write_bytes(content)


def truncate(entry):
    with (entry / "features.npy").open("r+b") as file:
        file.truncate(200)


def empty_description(entry):
    (entry / "meta.json").write_text("")


def odd_description(entry):
    (entry / "meta.json").write_text("[1]")


def other_shape(entry):
    description = json.loads((entry / "meta.json").read_text())
    (entry / "meta.json").write_text(json.dumps({**description, "shape": [1, 1]}))


def lose_features(entry):
    (entry / "features.npy").unlink()


def lose_description(entry):
    (entry / "meta.json").unlink()


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_feature,
        flip_a_label,
        truncate,
        empty_description,
        odd_description,
        other_shape,
        lose_features,
        lose_description,
    ],
)
def test_a_damaged_entry_is_computed_again(backbone, tmp_path, caplog, damage):
    images = make_images()
    right = np.array(cached_features(backbone, images, tmp_path).features)
    damage(the_entry(tmp_path))
    features._verified_entry.cache_clear()
    with caplog.at_level(logging.WARNING):
        mended = cached_features(backbone, images, tmp_path)
    assert "damaged" in caplog.text
    assert np.array_equal(mended.features, right)
    assert np.array_equal(mended.labels, images["label"])
    assert backbone.module.images == 2 * NUM_IMAGES
    features._verified_entry.cache_clear()
    cached_features(backbone, images, tmp_path)
    assert backbone.module.images == 2 * NUM_IMAGES


def test_a_half_written_folder_is_not_believed(backbone, tmp_path):
    images = make_images()
    right = np.array(cached_features(backbone, images, tmp_path).features)
    entry = the_entry(tmp_path)
    entry.rename(f"{entry}.unfinished")
    np.save(tmp_path / f"{entry.name}.unfinished" / "features.npy", np.zeros_like(right))
    assert [(found.key, found.complete) for found in list_cache(tmp_path)] == [(entry.name, False)]
    assert np.array_equal(cached_features(backbone, images, tmp_path).features, right)
    assert [(found.key, found.complete) for found in list_cache(tmp_path)] == [(entry.name, True)]


def test_an_embedding_that_fails_leaves_nothing(backbone, tmp_path):
    broken = replace(backbone, module=SmallMemory(backbone.module, most=0))
    with pytest.raises(UserError):
        cached_features(broken, make_images(), tmp_path)
    assert list_cache(tmp_path) == []


def embed_in_a_process(cache_dir, barrier, results):
    counting = CountingModule(load_backbone(NAME, 32, "none").module)
    backbone = replace(load_backbone(NAME, 32, "none"), module=counting)
    barrier.wait()
    table = cached_features(backbone, make_images(), cache_dir, 2)
    results.put((counting.images, np.array(table.features)))


def test_two_processes_at_once_make_one_entry(backbone, tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=embed_in_a_process, args=(tmp_path, barrier, results)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    assert sorted(images for images, _ in found) == [0, NUM_IMAGES]
    expected = cached_features(backbone, make_images(), tmp_path).features
    assert backbone.module.images == 0
    assert all(np.array_equal(table, expected) for _, table in found)
    assert [entry.complete for entry in list_cache(tmp_path)] == [True]


def test_listing_and_clearing(backbone, tmp_path):
    assert list_cache(tmp_path / "nowhere") == []
    assert clear_cache(tmp_path / "nowhere") == 0
    cached_features(backbone, make_images(), tmp_path)
    (tmp_path / "left.unfinished").mkdir()
    entry, left = list_cache(tmp_path)
    if not entry.complete:
        entry, left = left, entry
    assert (entry.backbone, entry.num_images, entry.feature_dim) == (NAME, NUM_IMAGES, backbone.feature_dim)
    assert (left.key, left.complete, left.num_bytes) == ("left", False, 0)
    assert entry.num_bytes > NUM_IMAGES * backbone.feature_dim * 4
    assert clear_cache(tmp_path) == entry.num_bytes
    assert list_cache(tmp_path) == []
    cached_features(backbone, make_images(), tmp_path)
    assert backbone.module.images == 2 * NUM_IMAGES


def test_clearing_leaves_what_is_being_written(tmp_path):
    (tmp_path / "entry.unfinished").mkdir()
    with FileLock(tmp_path / "entry.lock"):
        assert clear_cache(tmp_path) == 0
    assert (tmp_path / "entry.unfinished").is_dir()


def test_a_cache_that_cannot_be_written(backbone, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written .* set FEDCOF_CACHE"):
        cached_features(backbone, make_images(), tmp_path / "file" / "cache")
    usage = features.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(features.shutil, "disk_usage", lambda _: usage._replace(free=0))
    with pytest.raises(UserError, match="do not fit on its disk"):
        cached_features(backbone, make_images(), tmp_path)
    assert list_cache(tmp_path) == []


def test_the_folder_of_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path))
    assert feature_cache_dir() == tmp_path / "features"
    monkeypatch.setenv("FEDCOF_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert feature_cache_dir() == tmp_path / "fedcof" / "features"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert feature_cache_dir() == Path.home() / ".cache" / "fedcof" / "features"
