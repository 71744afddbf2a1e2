"""A node's features: arrays and Parquet files of any make are read alike, and what is wrong is one sentence."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Sequence, Value

from fedcof import UserError
from fedcof.data.node_features import features_at, holds_features, read_node_features, shared_node_features

NAMES = ("oak", "elm", "caf\u00e9")
FEATURES = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
IDS = [1, 0, 2, 2, 0, 1]
LABELS = [NAMES[place] for place in IDS]


def folder_of(place, features=FEATURES, labels=LABELS, names=None):
    place.mkdir(exist_ok=True)
    for name, array in (("features", features), ("labels", labels)):
        if array is not None:
            np.save(place / f"{name}.npy", np.array(array))
    if names:
        (place / "classes.txt").write_text("\n".join(names), encoding="utf-8")
    return str(place)


def table_of(place, features=None, labels=None, **columns):
    columns = {"features": rows(pa.list_(pa.float32())) if features is None else features, **columns}
    columns["label"] = pa.array(LABELS) if labels is None else labels
    pq.write_table(pa.table({name: column for name, column in columns.items() if column is not False}), place)
    return str(place)


def rows(kind, features=FEATURES):
    return pa.array([list(map(float, row)) for row in features], kind)


def by_datasets(place):
    features = Features({"features": Sequence(Value("float32")), "label": ClassLabel(names=list(reversed(NAMES)))})
    Dataset.from_dict({"features": FEATURES, "label": [2 - place for place in IDS]}, features).to_parquet(place)
    return str(place)


MAKES = {
    "texts": lambda folder: folder_of(folder / "d"),
    "numbers that a list names": lambda folder: folder_of(folder / "d", labels=IDS, names=NAMES),
    "a longer list": lambda folder: folder_of(folder / "d", labels=np.add(IDS, 1), names=["ash", *NAMES]),
    "other byte order of labels": lambda folder: folder_of(folder / "d", labels=np.array(LABELS, ">U4")),
    "composed otherwise": lambda folder: folder_of(
        folder / "d", labels=[name.replace("\u00e9", "e\u0301") for name in LABELS]
    ),
    "lists": lambda folder: table_of(folder / "d.parquet"),
    "doubles": lambda folder: table_of(folder / "d.PARQUET", rows(pa.list_(pa.float64()))),
    "large lists": lambda folder: table_of(folder / "d.parquet", rows(pa.large_list(pa.float32()))),
    "lists of one size": lambda folder: table_of(folder / "d.parquet", rows(pa.list_(pa.float32(), 4))),
    "several chunks": lambda folder: table_of(
        folder / "d.parquet",
        pa.chunked_array([rows(pa.list_(pa.float32()), FEATURES[i : i + 1]) for i in range(6)]),
    ),
    "categories": lambda folder: table_of(folder / "d.parquet", labels=pa.array(LABELS).dictionary_encode()),
    "other columns": lambda folder: table_of(folder / "d.parquet", patient=pa.array(range(6))),
    "a list of classes": lambda folder: by_datasets(folder / "d.parquet"),
}


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_features_of_any_make_are_read_alike(tmp_path, make):
    place = make(tmp_path)
    table = read_node_features(place, NAMES, 4)
    assert np.array_equal(table.features, FEATURES)
    assert table.features.dtype == np.float32
    assert table.labels.dtype == np.int64
    assert table.labels.tolist() == IDS
    assert holds_features(tmp_path / place)


def test_halves_are_read(tmp_path):
    table = table_of(tmp_path / "d.parquet", pa.array(list(FEATURES.astype(np.float16)), pa.list_(pa.float16())))
    assert np.array_equal(features_at(table)[0], FEATURES.astype(np.float16))


def test_numbers_and_truth_values_are_named_as_they_are_written(tmp_path):
    for labels in (np.array(IDS), np.array(IDS, float), pa.array(IDS)):
        made = table_of(tmp_path / "d.parquet", labels=labels)
        assert read_node_features(made, ("2", "1", "0"), 4).labels.tolist() == [2 - place for place in IDS]
    folder = folder_of(tmp_path / "d", labels=[True, False] * 3)
    assert read_node_features(folder, ("True", "False"), 4).labels.tolist() == [0, 1] * 3


def test_a_node_may_have_none(tmp_path):
    empty = [
        folder_of(tmp_path / "a", FEATURES[:0], np.array([], "U1")),
        table_of(tmp_path / "b.parquet", rows(pa.list_(pa.float32()), []), pa.array([], pa.string())),
    ]
    for place in empty:
        table = read_node_features(place, NAMES, 4)
        assert (table.features.shape, table.labels.shape) == ((0, 4), (0,))


def changed(place, value):
    """The features with one number replaced, as lists."""
    features = FEATURES.astype(float).tolist()
    features[place][2] = value
    return pa.array(features, pa.list_(pa.float64()))


LISTS = pa.list_(pa.float32())
WRONG = {
    "no file": (lambda f: str(f / "nowhere"), "There are no features at .*features.npy and labels.npy, or a .parq"),
    "a folder of images": (lambda f: (f / "a").mkdir() or str(f), "There are no features at"),
    "another file": (lambda f: (f / "d.csv").write_text("a") and str(f / "d.csv"), "There are no features at"),
    "no features": (lambda f: folder_of(f / "d", features=None), "There is no file .*features.npy"),
    "no labels": (lambda f: folder_of(f / "d", labels=None), "There is no file .*labels.npy"),
    "doubles": (lambda f: folder_of(f / "d", FEATURES.astype(float)), "float64 .* type float32"),
    "complex": (lambda f: folder_of(f / "d", FEATURES.astype(complex)), "complex128 .* type float32"),
    "one axis": (lambda f: folder_of(f / "d", FEATURES[0]), r"the shape \(samples, dimension\)"),
    "no dimension": (lambda f: folder_of(f / "d", FEATURES[:, :0]), r"the shape \(samples, dimension\)"),
    "objects": (lambda f: folder_of(f / "d", labels=np.array(LABELS, object)), "cannot be read as an array"),
    "too few labels": (lambda f: folder_of(f / "d", labels=LABELS[:5]), "its features have 6 samples"),
    "NaN": (
        lambda f: folder_of(f / "d", np.where(FEATURES[4, 1] == FEATURES, np.nan, FEATURES)),
        "row 5 are not f",
    ),
    "infinite": (lambda f: table_of(f / "d.parquet", changed(3, np.inf)), "row 4 are not finite"),
    "beyond float32": (lambda f: table_of(f / "d.parquet", changed(5, -1e39)), "row 6 are not finite"),
    "a missing number": (lambda f: table_of(f / "d.parquet", changed(1, None)), "features of row 2 lack a number"),
    "a missing row": (
        lambda f: table_of(f / "d.parquet", pa.array([*FEATURES.tolist()[:5], None], LISTS)),
        "has no features in row 6",
    ),
    "two dimensions": (
        lambda f: table_of(f / "d.parquet", pa.array([*FEATURES.tolist()[:5], [1.0]], LISTS)),
        "4 dimensions in row 1 and 1 in row 6",
    ),
    "empty lists": (lambda f: table_of(f / "d.parquet", pa.array([[]] * 6, LISTS)), "features are empty lists"),
    "whole numbers": (
        lambda f: table_of(f / "d.parquet", pa.array([[1, 2]] * 6)),
        "no lists of floats.*the columns features and label",
    ),
    "texts": (lambda f: table_of(f / "d.parquet", pa.array(["0.5"] * 6)), "hold string, no lists of floats"),
    "matrices": (lambda f: table_of(f / "d.parquet", pa.array([[[1.0]]] * 6)), "no lists of floats"),
    "no column": (lambda f: table_of(f / "d.parquet", features=False), "it has the columns label"),
    "no label": (lambda f: table_of(f / "d.parquet", labels=pa.array([*LABELS[:5], None])), "no label in row 6"),
    "dates": (lambda f: table_of(f / "d.parquet", labels=pa.array([0] * 6, pa.date32())), "its label holds date32"),
    "no table": (lambda f: (f / "d.parquet").write_bytes(b"PAR1 no") and str(f / "d.parquet"), "cannot be read"),
    "negative": (lambda f: folder_of(f / "d", labels=[-1] * 6), "there is the label -1"),
    "another class": (
        lambda f: folder_of(f / "d", labels=["yew"] * 6),
        "The class 'yew' of .* is not one of the 3 that the federation agreed on",
    ),
    "no name in the list": (
        lambda f: folder_of(f / "d", labels=IDS, names=["oak", "elm"]),
        "go from 0 to 2, but with 2 classes",
    ),
    "another dimension": (
        lambda f: folder_of(f / "d", FEATURES[:, :3]),
        "have 3 dimensions, but the run's have 4: compute them with the run's encoder",
    ),
}


@pytest.mark.parametrize(("make", "sentence"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_one_sentence(tmp_path, make, sentence):
    with pytest.raises(UserError, match=sentence) as error:
        read_node_features(make(tmp_path), NAMES, 4)
    assert "\n" not in str(error.value)


def test_what_are_images_is_not_taken_for_features(tmp_path):
    paths = table_of(tmp_path / "d.parquet", path=pa.array(["a.png"] * 6))
    assert not holds_features(tmp_path / paths)
    assert not holds_features(tmp_path / "nowhere")
    (tmp_path / "e.parquet").write_bytes(b"none")
    assert not holds_features(tmp_path / "e.parquet")


def test_a_servers_test_features_are_its_test_split(tmp_path):
    found = shared_node_features(",".join(NAMES), folder_of(tmp_path / "d"), 4)
    assert (found.feature_dim, found.class_names) == (4, NAMES)
    assert found.table("test").labels.tolist() == IDS
    assert len(found.table("train").labels) == 0
    assert len(shared_node_features(",".join(NAMES), "", 4).table("test").labels) == 0
