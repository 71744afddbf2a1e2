"""Features from elsewhere: what is read, what is refused, and that no word of it is a traceback."""

import numpy as np
import pytest

from fedcof import UserError
from fedcof.data.class_list import classes_text
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
        ("train_labels", np.zeros(19, int), "features have 20 samples"),
        ("train_labels", np.full(20, 0.5), "no whole number"),
        ("train_labels", np.zeros(20, complex), "one whole number, text or truth value"),
        ("test_labels", np.arange(-1, 5), "test_labels.npy there is the label -1"),
        ("test_labels", np.arange(1, 7), "the class '3', which the train split lacks"),
        ("test_labels", np.array(["a"] * 6), "the class 'a', which .* are numbers there and texts in"),
        ("train_owners", np.zeros(19, int), "20 training samples"),
        ("train_owners", np.zeros(20, complex), "number, text or truth value"),
        ("train_owners", np.array([0.5, np.nan] * 10), "10 samples have no owner"),
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
    with pytest.raises(UserError, match="labels.npy the labels go from 0 to 2, but with 2 classes .* at most 1"):
        load_features(folder)
    (folder / "test_features.npy").write_bytes(b"no array")
    with pytest.raises(UserError, match="cannot be read as an array"):
        load_features(folder)
    with (folder / "test_features.npy").open("wb") as file:
        np.savez(file, a=np.zeros(1))
    with pytest.raises(UserError, match="holds several arrays"):
        load_features(folder)


def save_labels(folder, train, test):
    np.save(folder / "train_labels.npy", np.array(train))
    np.save(folder / "test_labels.npy", np.array(test))


@pytest.mark.parametrize(
    ("train", "test", "names"),
    [
        ([5_000_000, 3] * 10, [3] * 6, ("3", "5000000")),
        ([1, 2] * 10, [2] * 6, ("1", "2")),
        ([True, False] * 10, [True] * 6, ("False", "True")),
        ([2.0, 0.0] * 10, [2] * 6, ("0", "2")),
        (["b", "a"] * 10, ["b"] * 6, ("a", "b")),
    ],
)
def test_labels_of_any_type_are_names(folder, train, test, names):
    save_labels(folder, train, test)
    features = load_features(folder)
    assert features.class_names == names
    for table, labels in ((features.train, train), (features.test, test)):
        as_texts = [str(int(label) if isinstance(label, float) else label) for label in labels]
        assert [names[place] for place in table.labels] == as_texts
        assert table.labels.dtype == np.int64


def test_texts_are_places_in_the_list_of_classes(folder):
    (folder / "classes.txt").write_text("oak\nelm\nash\n")
    save_labels(folder, ["ash", "oak"] * 10, ["oak"] * 6)
    features = load_features(folder)
    assert features.class_names == ("oak", "elm", "ash")
    assert list(features.train.labels[:2]) == [2, 0]
    save_labels(folder, ["ash", "fir"] * 10, ["oak"] * 6)
    with pytest.raises(UserError, match="the class 'fir', which is none of the 3 that are listed"):
        load_features(folder)


def test_any_name_may_be_listed(folder):
    for names in (["a\x85b", " end ", ""], ["a\nb", "c", "c"], ["n/a", "..", "\u2028"]):
        (folder / "classes.txt").write_bytes((classes_text(names) + "\n").encode())
        assert load_features(folder).class_names == tuple(names)
    (folder / "classes.txt").write_bytes("\ufeffoak\r\nelm\r\nash\r\n".encode())
    assert load_features(folder).class_names == ("oak", "elm", "ash")


@pytest.mark.parametrize("owners", [[0.5, 2.0] * 10, [True, False] * 10, ["b", "a"] * 10])
def test_owners_of_any_type(folder, owners):
    np.save(folder / "train_owners.npy", np.array(owners))
    assert list(load_features(folder).owners) == owners
