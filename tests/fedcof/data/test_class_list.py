"""Lists of classes: any names come back as they were, from a text and from a file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcof import UserError
from fedcof.data.class_list import class_names_of, classes_text, listed_names, names_in_json, places_of
from fedcof.files import write_whole

ODD = ["n/a", "..", "/etc", "a\\b", "", "  ", "end ", "a,b", "a\nb", "a\rb", "x" * 3000, "Cat", "cat", "-rf", "CON"]


@given(st.lists(st.text(), min_size=2, max_size=6, unique=True))
def test_any_names_come_back(names):
    assert listed_names(classes_text(names)) == tuple(names)


def test_odd_names_come_back_from_a_file(tmp_path):
    for names in (ODD, ["a\rb", "c"], ["ant", "bee"], ['["a"', '"b"]']):
        write_whole(tmp_path / "classes.txt", classes_text(names) + "\n")
        assert class_names_of(str(tmp_path / "classes.txt")) == tuple(names)


def test_plain_names_are_a_name_a_line():
    assert classes_text(["ant", "bee, the honey one"]) == "ant\nbee, the honey one"


def test_a_file_is_utf_8_with_or_without_a_mark(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_bytes("\ufeffmösch\r\nant\r\n".encode())
    assert class_names_of(str(path)) == ("mösch", "ant")
    path.write_bytes("mösch\nant\n".encode("latin-1"))
    with pytest.raises(UserError, match="is not UTF-8 text"):
        class_names_of(str(path))


def test_a_text_is_never_read_from_a_file(tmp_path):
    path = tmp_path / "secret,name"
    path.write_text("one\ntwo\n")
    assert listed_names(str(path)) == (str(tmp_path / "secret"), "name")
    assert class_names_of(str(path)) == ("one", "two")


@pytest.mark.parametrize("text", ["", "[1, 2]", '["a", 2]', "[", "ant", '{"a": 1}', "[" * 100_000])
def test_what_is_no_list_of_texts_in_json(text):
    assert names_in_json(text) is None


def test_what_no_path_can_hold_is_no_file():
    assert class_names_of("a\0,b") == ("a\0", "b")


def test_names_are_found_exactly_before_they_are_found_alike():
    composed, apart = "caf\u00e9", "cafe\u0301"
    assert places_of([composed, "tea"], [apart, "tea", "Tea"]) == [0, 1, -1]
    assert places_of([composed, apart], [apart, composed]) == [1, 0]
    assert places_of([composed, apart, "n\u0303"], ["\u00f1"]) == [2]
