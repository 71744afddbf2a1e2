"""A node's own images: folders and tables, the classes agreed on, and what is refused."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from fedcof import UserError
from fedcof.data.node_data import class_names_of, load_node_images
from fedcof.data.problem import labels_of, problem_of, split_features
from fedcof.embedding.images import rgb_images
from fedcof.run.config import RunConfig

NAMES = ("ant", "bee", "cat")


def write(folder, names):
    """One 4 x 4 image a name, of a grey that tells which it is."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), number, np.uint8)).save(path)


def greys(images):
    return [np.asarray(image)[0, 0, 0] for image in rgb_images(images, range(len(images)))]


def test_a_folder_is_mapped_to_the_agreed_order(tmp_path):
    write(tmp_path, ["cat/b.png", "cat/a.png", "ant/deep/x.png", "ant/notes.png"])
    (tmp_path / "ant" / "readme.txt").write_text("no image")
    (tmp_path / "loose.png").write_bytes((tmp_path / "cat" / "a.png").read_bytes())
    images = load_node_images(str(tmp_path), NAMES)
    assert images["label"] == [0, 0, 2, 2]
    assert greys(images) == [2, 3, 1, 0]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_is_read_in_its_order(tmp_path, suffix):
    write(tmp_path, ["images/0.png", "images/1.png", "images/2.png"])
    table = pa.table({"path": ["images/2.png", "images/0.png", "images/1.png"], "label": ["cat", "ant", "cat"]})
    path = tmp_path / f"table{suffix}"
    if suffix == ".csv":
        path.write_text("path,label\nimages/2.png,cat\nimages/0.png,ant\nimages/1.png,cat\n")
    else:
        pa.parquet.write_table(table, path)
    images = load_node_images(str(path), NAMES)
    assert images["label"] == [2, 0, 2]
    assert greys(images) == [2, 0, 1]


def test_nothing_is_nothing(tmp_path):
    assert len(load_node_images(str(tmp_path), NAMES)) == 0


def test_a_class_that_was_not_agreed_on_is_named(tmp_path):
    write(tmp_path, ["ant/0.png", "dog/0.png"])
    with pytest.raises(UserError, match="The class 'dog' of .* is not one of the 3 .*ant, bee, cat"):
        load_node_images(str(tmp_path), NAMES)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("nowhere", None, "There are no images at"),
        ("file.txt", "x", "There are no images at"),
        ("table.csv", "file,label\na,b\n", "needs the columns path and label"),
        ("table.parquet", "not parquet", "cannot be read"),
    ],
)
def test_what_is_neither_is_refused(tmp_path, name, content, sentence):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=sentence):
        load_node_images(str(tmp_path / name), NAMES)


def test_classes_are_names_or_a_file(tmp_path):
    (tmp_path / "classes.txt").write_text("ant\nbee, the honey one\n\ncat\n")
    assert class_names_of(str(tmp_path / "classes.txt")) == ("ant", "bee, the honey one", "cat")
    assert class_names_of("ant, bee,cat") == NAMES
    assert class_names_of("ant\nbee, the honey one") == ("ant", "bee, the honey one")
    assert len(class_names_of(",".join(f"class {i}" for i in range(1203)))) == 1203


@pytest.mark.parametrize("classes", ["ant", "ant,bee,ant", ","])
def test_classes_are_at_least_two_and_different(classes):
    with pytest.raises(UserError, match="give at least two"):
        class_names_of(classes)


def test_the_server_knows_the_problem_and_its_own_test_images(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "test", ["bee/0.png", "ant/0.png"])
    tiny = {"backbone": "test_efficientnet", "weights": "none", "image_size": 32, "dataset": "nodes"}
    config = RunConfig(**tiny, classes="ant,bee,cat", test_data=str(tmp_path / "test"))
    assert problem_of(config).class_names == NAMES
    assert labels_of(config, "test").tolist() == [0, 1]
    assert split_features(config, "test").features.shape == (2, 256)
    assert len(labels_of(RunConfig(**tiny, classes="ant,bee,cat"), "test")) == 0


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"dataset": "nodes"}, "set both or neither"),
        ({"classes": "a,b"}, "set both or neither"),
        ({"dataset": "nodes", "classes": "a,b", "method": "oracle"}, "needs all images in one place"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(values, sentence):
    with pytest.raises(UserError, match=sentence):
        RunConfig(**values)
