"""A node's tables: what is written in them is what they mean, and a row that means nothing is named."""

import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fedcof import UserError
from fedcof.data.node_data import load_node_images
from fedcof.data.node_table import files_of_table, write_table
from tests.fedcof.data.test_class_list import ODD

AS_WRITTEN = [
    "01",
    "1",
    "1.0",
    "true",
    "True",
    "NA",
    "null",
    "NaN",
    "None",
    "-1",
    "1e3",
    " cat",
    "cat ",
    "2024-01-01",
]


def images(tmp_path, *names):
    for name in names:
        Image.new("RGB", (2, 2)).save(tmp_path / name)


def csv(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode(encoding))
    return path


def parquet(tmp_path, labels, paths=None):
    path = tmp_path / "table.parquet"
    paths = pa.array([f"{row}.png" for row in range(len(labels))]) if paths is None else paths
    pa.parquet.write_table(pa.table({"path": paths, "label": labels}), path)
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize(("before", "encoding"), [("", "utf-8"), ("\ufeff", "utf-8"), ("", "utf-16")])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_is_text(tmp_path, separator, before, encoding, end):
    lines = [f'"x,;|\t{row}.png"{separator}more{separator}"{name}"' for row, name in enumerate(AS_WRITTEN)]
    text = end.join([separator.join(["path", "other", "label"]), *lines, "", ""])
    files, names = files_of_table(csv(tmp_path, before + text, encoding))
    assert names == AS_WRITTEN
    assert files == [str(tmp_path / f"x,;|\t{row}.png") for row in range(len(AS_WRITTEN))]


def test_csv_without_quotes_and_with_an_upper_case_suffix(tmp_path):
    path = tmp_path / "TABLE.CSV"
    path.write_text("label,path\n" + "".join(f"{name},0.png\n" for name in AS_WRITTEN))
    assert files_of_table(path)[1] == AS_WRITTEN
    images(tmp_path, "0.png")
    found = load_node_images(str(path), tuple(reversed(AS_WRITTEN)))
    assert found["label"] == list(reversed(range(len(AS_WRITTEN))))


def test_what_spreadsheets_leave_at_the_end(tmp_path):
    files, names = files_of_table(csv(tmp_path, 'path;label\n"a\nb.png";"two\nlines";;\n;;;\n\nc.png;d\n'))
    assert (files, names) == ([str(tmp_path / "a\nb.png"), str(tmp_path / "c.png")], ["two\nlines", "d"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("path,label\na.png,cat\n\nb.png,\n", "has no label in line 4: fill it in"),
        ("path,label\n,cat\n", "has no path in line 2"),
        ("path,label\na.png\n", "has 1 cells in line 2, but 2 columns"),
        ("path,label\nx, y.png,cat\n", "has 3 cells in line 2, but 2 columns: put .* in double quotes"),
        ("path,label,label\na,b,c\n", "needs the columns path and label"),
        ("", "needs the columns path and label"),
        ("a.png,cat\nb.png,dog\n", "its first line is 'a.png,cat'"),
        ('path,label\n"a.png,cat\n', "cannot be read .unexpected end of data"),
    ],
)
def test_a_csv_that_cannot_be_meant(tmp_path, text, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        files_of_table(csv(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_csv_that_is_not_utf_8_is_named_with_its_line(tmp_path):
    with pytest.raises(UserError, match="is not UTF-8 text in line 3: save it as CSV in UTF-8"):
        files_of_table(csv(tmp_path, "path,label\na.png,cat\nb.png,mösch\n", "latin-1"))


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (pa.array([1, 7, 10**12]), ["1", "7", "1000000000000"]),
        (pa.array([1, 255], pa.uint8()), ["1", "255"]),
        (pa.array([2**64 - 1], pa.uint64()), [str(2**64 - 1)]),
        (pa.array([1.0, 3.0]), ["1", "3"]),
        (pa.array([Decimal("2.00")]), ["2"]),
        (pa.array([True, False]), ["True", "False"]),
        (pa.array(ODD), ODD),
        (pa.array(ODD, pa.large_string()), ODD),
        (pa.array(["b", "a", "b"]).dictionary_encode(), ["b", "a", "b"]),
        (pa.array([5, 4, 5]).dictionary_encode(), ["5", "4", "5"]),
    ],
)
def test_a_parquet_label_is_its_text(tmp_path, labels, names):
    assert files_of_table(parquet(tmp_path, labels))[1] == names


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (pa.array(["a", None]), "has no label in row 2"),
        (pa.array([1.0, 2.0, np.nan]), "has no label in row 3"),
        (pa.array([1.5]), "the label 1.5 is no whole number"),
        (pa.array([-1]), "the label -1, but a negative number is no class"),
        (pa.array([datetime.date(2024, 1, 1)]), "its label holds date32"),
        (pa.array([[1]]), "its label holds list"),
        (pa.array([b"a"]), "its label holds binary"),
    ],
)
def test_a_parquet_label_that_names_no_class(tmp_path, labels, sentence):
    with pytest.raises(UserError, match=sentence):
        files_of_table(parquet(tmp_path, labels))


def test_a_parquet_path_is_a_text(tmp_path):
    with pytest.raises(UserError, match="has no path in row 1"):
        files_of_table(parquet(tmp_path, pa.array(["a"]), pa.array([None], pa.string())))
    with pytest.raises(UserError, match="its path holds int64"):
        files_of_table(parquet(tmp_path, pa.array(["a"]), pa.array([1])))


def test_a_parquet_that_lists_its_classes_is_read_by_their_names(tmp_path):
    features = Features({"path": Value("string"), "label": ClassLabel(names=["cat", "ant"])})
    table = Dataset.from_dict({"path": ["0.png", "1.png"], "label": [0, 1]}, features=features)
    table.to_parquet(tmp_path / "table.parquet")
    assert files_of_table(tmp_path / "table.parquet")[1] == ["cat", "ant"]


def test_the_folders_of_a_parquet_are_no_columns(tmp_path):
    (tmp_path / "label=3").mkdir()
    pa.parquet.write_table(pa.table({"path": ["a"]}), tmp_path / "label=3" / "t.parquet")
    with pytest.raises(UserError, match="it has the columns path.: it needs"):
        files_of_table(tmp_path / "label=3" / "t.parquet")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.text(min_size=1), st.text()), max_size=6))
def test_any_table_that_is_written_is_read_again(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "again.parquet"
    files, names = [file.replace("/", "_") for file, _ in rows], [name for _, name in rows]
    write_table(path, files, names)
    assert files_of_table(path) == ([str(path.parent / file) for file in files], names)


def test_a_class_is_found_by_how_it_is_composed_too(tmp_path):
    path = csv(tmp_path, "path,label\na.png,cafe\u0301\nb.png,tea\n")
    images(tmp_path, "a.png", "b.png")
    assert load_node_images(str(path), ("tea", "caf\u00e9"))["label"] == [1, 0]
