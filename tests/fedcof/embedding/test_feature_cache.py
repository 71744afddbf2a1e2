"""The feature cache: nothing is embedded twice, and nothing damaged is believed."""

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

from fedcof.embedding import feature_cache
from fedcof.embedding.backbones import load_backbone
from fedcof.embedding.feature_cache import cached_features, clear_cache, list_cache
from fedcof.embedding.feature_table import feature_cache_dir, open_features
from fedcof.errors import UserError
from tests.fedcof.images import (
    NAME,
    NUM_IMAGES,
    SmallMemory,
    counting_backbone,
    make_images,
    plain_loop,
)


def the_entry(cache_dir):
    (entry,) = [path for path in cache_dir.iterdir() if path.is_dir()]
    return entry


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


def encoded_table(*contents):
    cells = [{"bytes": content, "path": None} for content in contents]
    columns = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    return datasets.Dataset.from_dict({"image": cells, "label": list(range(len(cells)))}, columns)


def test_a_mended_decoder_leaves_the_entries_of_ordinary_images_valid():
    """The digests are those that version 1 of the decoder gave."""
    kinds = (b"\x89PNG", b"\xff\xd8\xff\xe1", b"GIF89a", b"BM", b"RIFF....WEBP")
    ordinary = feature_cache._content_digest(encoded_table(*(kind + b" of an image" for kind in kinds)))
    assert ordinary == "cca4ba441709b4ee5f79c5a5c71632a289c7640a85ffcaae00f8a08a435efd66"
    deep = feature_cache._content_digest(encoded_table(b"II*\x00 of an image"))
    assert deep != "7d8c7829b41c705d62053564f0e5cd0353afff2918655576e2f230a1fbd0e531"


def test_an_image_file_that_is_decoded_anew_has_another_entry(backbone, tmp_path, monkeypatch):
    columns = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    for suffix, entries in (("png", 1), ("tif", 2)):
        path = tmp_path / f"image.{suffix}"
        Image.new("L", (32, 32), 90).save(path)
        for decoder in (b"", b"decoder 2"):
            images = datasets.Dataset.from_dict({"image": [str(path)], "label": [0]}, columns)
            with monkeypatch.context() as patch:
                patch.setattr("fedcof.embedding.images.CHANGED", decoder)
                cached_features(backbone, images, tmp_path / suffix)
        assert len(list_cache(tmp_path / suffix)) == entries


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
    open_features.cache_clear()
    with caplog.at_level(logging.WARNING):
        mended = cached_features(backbone, images, tmp_path)
    assert "damaged" in caplog.text
    assert np.array_equal(mended.features, right)
    assert np.array_equal(mended.labels, images["label"])
    assert backbone.module.images == 2 * NUM_IMAGES
    open_features.cache_clear()
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
    backbone = counting_backbone()
    barrier.wait()
    table = cached_features(backbone, make_images(), cache_dir, 2)
    results.put((backbone.module.images, np.array(table.features)))


def test_two_processes_at_once_make_one_entry(backbone, tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=embed_in_a_process, args=(tmp_path, barrier, results)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [results.get() for _ in processes]
    for process in processes:
        process.join()
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
    usage = feature_cache.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda _: usage._replace(free=0))
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
