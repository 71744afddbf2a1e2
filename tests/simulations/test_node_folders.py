"""The nodes' data that deploy-local writes: any class names, nothing outside it, in the order of classes."""

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image

from fedcof.data.class_list import class_names_of, listed_names
from fedcof.data.node_data import load_node_images
from fedcof.data.virtual_clients import client_indices
from fedcof.embedding.images import rgb_images
from fedcof.run.config import RunConfig
from server.app import planned_runs
from server.upload_store import UploadStore
from simulations.deployment import nodes_run_config, write_node_folders
from tests.fedcof.data.test_class_list import ODD
from tests.fedcof.images import png

PLAIN = ["dog", "ant", "cat"]


@pytest.fixture(autouse=True)
def own_caches(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hugging-face"))
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))


def dealt(folder, names, nodes=2):
    """A dataset of two images a class, each of a grey of its own, and its nodes."""
    feature = Features({"image": Image(), "label": ClassLabel(names=names)})
    labels = list(range(len(names))) * 2
    shades = [{"bytes": png(np.full((2, 2), grey, np.uint8)), "path": None} for grey in range(len(labels))]
    for split in ("train", "test"):
        (folder / "data").mkdir(parents=True, exist_ok=True)
        table = Dataset.from_dict({"image": shades, "label": labels}, features=feature)
        table.to_parquet(folder / "data" / f"{split}.parquet")
    config = RunConfig(
        dataset=f"parquet:{folder / 'data'}", partition="iid", num_clients=nodes, feature_cache=False
    )
    before = set(folder.rglob("*"))
    folders = write_node_folders(config, nodes, folder / "run")
    caches = folder / "hugging-face", folder / "cache"
    new = [path for path in set(folder.rglob("*")) - before if not any(map(path.is_relative_to, caches))]
    assert all(path.is_relative_to(folder / "run") for path in new)
    return config, folders, nodes_run_config(config, nodes, folder / "run")


def greys(images):
    return [np.asarray(image)[0, 0, 0] for image in rgb_images(images, range(len(images)))]


@pytest.mark.parametrize("names", [ODD, PLAIN], ids=["odd", "plain"])
def test_every_image_keeps_its_class_whatever_that_is_called(tmp_path, names):
    config, folders, values = dealt(tmp_path, names)
    (_, run) = planned_runs(RunConfig.from_mapping(values))[0]
    agreed = listed_names(run.data.classes)
    assert agreed == class_names_of(values["classes"]) == tuple(names)
    for folder, indices in zip(folders, client_indices(config), strict=True):
        images = load_node_images(str(folder / "images.parquet"), agreed)
        by_class = sorted(indices.tolist(), key=lambda index: (names[index % len(names)], index))
        assert greys(images) == by_class
        assert images["label"] == [index % len(names) for index in by_class]
    test = load_node_images(values["test-data"], agreed)
    assert sorted(greys(test)) == list(range(2 * len(names)))
    assert [grey % len(names) for grey in greys(test)] == test["label"]


def test_kept_uploads_are_found_by_what_the_classes_are_and_not_by_how_they_are_written(tmp_path):
    _, _, values = dealt(tmp_path, ODD)
    written = RunConfig.from_mapping(values)
    ((_, sent),) = planned_runs(written)
    assert sent.data.classes != written.data.classes
    assert UploadStore(tmp_path, sent).folder == UploadStore(tmp_path, written).folder
