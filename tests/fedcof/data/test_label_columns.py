"""Labels of tables: whatever type and order their files have, a sample's class is called what its file calls it."""

import datetime
from decimal import Decimal

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Features, Image, Value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedcof import UserError
from fedcof.data.datasets import load_image_dataset
from tests.fedcof.images import png

WHITE = {"bytes": png(np.full((2, 2), 255, np.uint8)), "path": None}
TEXT, NUMBER = Value("string"), Value("int64")
ABC = ["ant", "bee", "cat"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hugging-face"))


def write(folder, **files):
    """Write files of an image, a label and a row number; a file's type goes before its labels."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (feature, labels) in files.items():
        features = Features({"image": Image(), "label": feature, "row": Value("int32")})
        columns = {"image": [WHITE] * len(labels), "label": labels, "row": list(range(len(labels)))}
        table = pa.table(columns, schema=features.arrow_schema)
        pa.parquet.write_table(table, folder / f"{name.replace('_', '-')}.parquet")
    return f"parquet:{folder}"


def names_of(loaded, split):
    return [loaded.class_names[label] for label in loaded.labels(split)]


def listed(*names):
    return ClassLabel(names=list(names))


def places(names, order):
    return [list(order).index(name) for name in names]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (listed("ant", "bee", "cat"), listed("cat", "bee", "ant")),
        (listed("ant", "bee", "cat"), listed("cat", "bee")),
        (listed("ant", "bee", "cat"), listed("dog", "cat", "bee", "ant")),
        (listed("cat", "ant", "bee"), TEXT),
        (TEXT, listed("cat", "bee", "ant")),
    ],
)
def test_test_labels_are_matched_by_name(tmp_path, train, test):
    wanted = {"train": ["cat", "ant", "bee"], "test": ["bee", "cat", "cat"]}
    features = {"train": train, "test": test}
    written = {
        split: (of, places(wanted[split], of.names) if isinstance(of, ClassLabel) else wanted[split])
        for split, of in features.items()
    }
    loaded = load_image_dataset(write(tmp_path, **written))
    assert names_of(loaded, "train") == wanted["train"]
    assert names_of(loaded, "test") == wanted["test"]
    assert loaded.class_names == tuple(train.names if isinstance(train, ClassLabel) else sorted(ABC))
    assert loaded.test[0]["label"] == loaded.class_names.index("bee")


def test_numbers_are_matched_with_a_list_of_numbers(tmp_path):
    loaded = load_image_dataset(write(tmp_path, train=(NUMBER, [2, 0, 1]), test=(listed("1", "0"), [0, 1, 1])))
    assert loaded.class_names == ("0", "1", "2")
    assert names_of(loaded, "test") == ["1", "0", "0"]


@pytest.mark.parametrize(
    ("train", "test", "sentence"),
    [
        (
            (NUMBER, [0, 1, 2]),
            (listed(*ABC), [0, 1]),
            "class 'ant', .* labels are numbers there and listed names in",
        ),
        ((listed(*ABC), [0, 1]), (NUMBER, [0, 1]), "class '0', .* labels are listed names there and numbers in"),
        ((listed(*ABC), [0, 1]), (listed("dog"), [0]), "has the class 'dog', which the train split lacks: remove"),
        ((listed(*ABC), [0, 1]), (TEXT, ["dog"]), "has the class 'dog', which the train split lacks: remove"),
        ((TEXT, ["01"]), (NUMBER, [1]), "has the class '1', which the train split lacks"),
        ((Value("bool"), [True, False]), (NUMBER, [1]), "has the class '1', which the train split lacks"),
        ((NUMBER, [0, 2]), (NUMBER, [1]), "has the class '1', which the train split lacks"),
        ((Value("float64"), [0.5, 1]), (NUMBER, [1]), "train split of .* the label 0.5 is no whole number"),
        ((Value("float64"), [None, 1]), (NUMBER, [1]), "1 rows of the train split have no label"),
        ((Value("float64"), [np.nan, 1]), (NUMBER, [1]), "1 rows of the train split have no label"),
        ((NUMBER, [0]), (Value("date32"), [datetime.date(2024, 1, 1)]), "has no column label of labels"),
        ((listed(*ABC), [0, -1]), (TEXT, ["ant"]), "train split of .* has|there is the label -1"),
    ],
)
def test_what_cannot_be_matched_is_refused(tmp_path, train, test, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        load_image_dataset(write(tmp_path, train=train, test=test), label_column="label")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("feature", "labels", "names"),
    [
        (Value("bool"), [True, False, True], ("False", "True")),
        (Value("int8"), [3, 1, 2], ("1", "2", "3")),
        (NUMBER, [5_000_000, 3, 7], ("3", "7", "5000000")),
        (Value("uint64"), [2**64 - 1, 2, 2], ("2", str(2**64 - 1))),
        (Value("float32"), [2.0, 0.0, 10.0], ("0", "2", "10")),
        (Value("decimal128(5, 2)"), [Decimal(2), Decimal(1), Decimal(3)], ("1", "2", "3")),
        (Value("large_string"), ["n/a", "", "end "], ("", "end ", "n/a")),
        (Value("string_view"), ["NA", "01", "null"], ("01", "NA", "null")),
        (TEXT, ["10", "9", "true"], ("10", "9", "true")),
    ],
)
def test_labels_of_any_type_are_named_as_they_are_written(tmp_path, feature, labels, names):
    loaded = load_image_dataset(write(tmp_path, train=(feature, labels), test=(feature, labels[:1])))
    assert loaded.class_names == names
    as_texts = [str(int(label) if isinstance(label, float | Decimal) else label) for label in labels]
    assert names_of(loaded, "train") == as_texts
    assert names_of(loaded, "test") == as_texts[:1]
    assert loaded.train["row"][:] == [0, 1, 2]


def test_categories_are_texts(tmp_path):
    table = pa.table({"image": [WHITE] * 3, "label": pa.array(["b", "a", "b"]).dictionary_encode()})
    for split in ("train", "test"):
        pa.parquet.write_table(table, tmp_path / f"{split}.parquet")
    loaded = load_image_dataset(f"parquet:{tmp_path}")
    assert names_of(loaded, "train") == names_of(loaded, "test") == ["b", "a", "b"]


def test_truth_values_are_the_label_only_where_nothing_else_is(tmp_path):
    columns = {"image": [WHITE] * 2, "label": [0, 1], "target": [0.5, 1.5], "class": [True, False]}
    for split in ("train", "test"):
        pa.parquet.write_table(pa.table(columns), tmp_path / f"{split}.parquet")
    assert load_image_dataset(f"parquet:{tmp_path}").class_names == ("0", "1")
    assert load_image_dataset(f"parquet:{tmp_path}", label_column="class").class_names == ("False", "True")


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_every_file_keeps_its_own_list(tmp_path_factory, data):
    """Up to three training files and one test file, each with texts or a list of an order of its own."""
    files, wanted = {}, {}
    for name in ("train_0", "train_1", "train_2", "test")[data.draw(st.integers(0, 2)) :]:
        samples = data.draw(st.lists(st.sampled_from(ABC), max_size=4))
        samples = ABC if name == "train_2" else [*samples, "bee"]
        order = data.draw(st.permutations(ABC))
        as_texts = data.draw(st.booleans())
        files[name] = (TEXT, samples) if as_texts else (ClassLabel(names=order), places(samples, order))
        wanted[name] = samples
    loaded = load_image_dataset(write(tmp_path_factory.mktemp("files"), **files))
    assert names_of(loaded, "train") == [name for file, names in wanted.items() if file != "test" for name in names]
    assert names_of(loaded, "test") == wanted["test"]


def test_files_that_agree_are_read_as_ever_and_a_list_that_grows_goes_on(tmp_path):
    loaded = load_image_dataset(
        write(
            tmp_path,
            train_0=(listed("cat", "ant"), [0, 1]),
            train_1=(listed("ant", "dog", "cat"), [0, 1, 2]),
            test=(listed("cat", "ant"), [1]),
        )
    )
    assert loaded.class_names == ("cat", "ant", "dog")
    assert names_of(loaded, "train") == ["cat", "ant", "ant", "dog", "cat"]
    assert names_of(loaded, "test") == ["ant"]
    assert loaded.train["row"][:] == [0, 1, 0, 1, 2]


@pytest.mark.parametrize("numbers_first", [True, False])
@pytest.mark.parametrize("other", [(listed("ant", "bee"), [0, 1]), (Value("bool"), [True, False])])
def test_files_of_one_split_with_numbers_and_with_what_is_none_are_refused(tmp_path, numbers_first, other):
    numbers = NUMBER, [0, 1]
    first, second = (numbers, other) if numbers_first else (other, numbers)
    with pytest.raises(
        UserError, match="In the column label some train files .* and others .*: write all files alike"
    ):
        load_image_dataset(write(tmp_path, train_0=first, train_1=second, test=other))


def test_a_number_beyond_its_own_list_is_not_taken_for_another_files_class(tmp_path):
    name = write(
        tmp_path, train_0=(listed("ant"), [0]), train_1=(listed("bee", "ant"), [0, 1]), test=(listed("ant"), [0])
    )
    table = pa.parquet.read_table(tmp_path / "train-0.parquet")
    beyond = table.set_column(1, "label", pa.array([1], pa.int64())).replace_schema_metadata(table.schema.metadata)
    pa.parquet.write_table(beyond, tmp_path / "train-0.parquet")
    with pytest.raises(UserError, match="there is the label -1"):
        load_image_dataset(name)


def test_a_test_split_without_the_column(tmp_path):
    write(tmp_path, train=(listed("ant", "bee"), [0, 1]), test=(TEXT, ["ant"]))
    table = pa.parquet.read_table(tmp_path / "test.parquet").rename_columns(["image", "label", "other"])
    pa.parquet.write_table(
        table.drop_columns(["label"]).append_column("row", pa.array(["x"])), tmp_path / "test.parquet"
    )
    with pytest.raises(
        UserError, match="The test split of .* has no column label of labels, as its train split has"
    ):
        load_image_dataset(f"parquet:{tmp_path}")
