"""Features from elsewhere: what is read, what is refused, and that no word of it is a traceback."""

import numpy as np
import pytest

from fedcof import UserError
from fedcof.data.precomputed import is_precomputed, load_features, shared_features


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 6)):
        np.save(tmp_path / f"{split}_features.npy", generator.standard_normal((count, 5), dtype=np.float32))
        np.save(tmp_path / f"{split}_labels.npy", np.arange(count, dtype=np.int32) % 3)
    return tmp_path


def test_splits_are_mapped_and_named(folder):
    np.save(folder / "train_owners.npy", np.repeat(["ann", "bob"], 10))
    (folder / "classes.txt").write_text("oak\nelm\nash\nfir\n")
    features = load_features(folder)
    assert features.class_names == ("oak", "elm", "ash", "fir")
    assert (features.num_classes, features.feature_dim) == (4, 5)
    assert list(features.owners[[0, -1]]) == ["ann", "bob"]
    assert np.array_equal(features.table("test").features, np.load(folder / "test_features.npy"))
    assert features.table("train").labels.dtype == np.int64
    assert not features.train.features.flags.writeable
    assert isinstance(features.train.features.base, np.memmap)
    with pytest.raises(UserError, match="split 'validation'"):
        features.table("validation")


def test_what_may_be_missing(folder):
    features = shared_features(f"features:{folder}")
    assert features.class_names == ("0", "1", "2")
    assert features.owners is None
    assert shared_features(f"features:{folder}") is features
    assert is_precomputed("features:x")
    assert not is_precomputed("folder:features")


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("train_features", None, "There is no file .*train_features.npy"),
        ("test_labels", None, "There is no file .*test_labels.npy"),
        ("train_features", np.zeros((20, 5)), "float64 .* type float32"),
        ("train_features", np.zeros(20, np.float32), "the shape .samples, dimension"),
        ("test_features", np.zeros((6, 4), np.float32), "5 dimensions and the test features 4"),
        ("train_labels", np.zeros(19, int), "has 20 samples"),
        ("train_labels", np.zeros(20), "whole number"),
        ("test_labels", np.arange(-1, 5), "from -1 to 4"),
        ("train_owners", np.zeros(19, int), "20 training samples"),
        ("train_owners", np.zeros(20), "number or text"),
        ("train_features", np.array([{}], dtype=object), "cannot be read as an array"),
    ],
)
def test_wrong_files_are_named_in_one_sentence(folder, name, array, message):
    path = folder / f"{name}.npy"
    path.unlink(missing_ok=True)
    if array is not None:
        np.save(path, array)
    with pytest.raises(UserError, match=message) as caught:
        load_features(folder)
    assert "\n" not in str(caught.value)


def test_a_label_without_a_name_and_a_file_that_is_no_array(folder):
    (folder / "classes.txt").write_text("oak\nelm\n")
    with pytest.raises(UserError, match="go from 0 to 2, but with 2 classes .* at most 1"):
        load_features(folder)
    (folder / "test_features.npy").write_bytes(b"no array")
    with pytest.raises(UserError, match="cannot be read as an array"):
        load_features(folder)
    with (folder / "test_features.npy").open("wb") as file:
        np.savez(file, a=np.zeros(1))
    with pytest.raises(UserError, match="holds several arrays"):
        load_features(folder)
