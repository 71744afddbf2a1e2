"""Classes and their frequencies as users write them."""

import json

import pytest

from fedcof import UserError
from fedcof.data.class_frequencies import classes_in, frequencies_in

NAMES = ("ant", "bee 2", "cat, wild", "café")


def test_lines_end_in_a_count_whatever_is_in_the_name(tmp_path):
    (tmp_path / "counts.txt").write_text("cat, wild, 3\n\n bee 2\t0.5 \nant: 1e1\ncafe\u0301 = 7\n")
    assert frequencies_in(tmp_path / "counts.txt", NAMES) == [10.0, 0.5, 3.0, 7.0]


def test_a_json_object_holds_counts_too_and_others_are_zero(tmp_path):
    (tmp_path / "counts.json").write_text(json.dumps({"cat, wild": 2, "ant": 0}))
    assert frequencies_in(tmp_path / "counts.json", NAMES) == [0.0, 0.0, 2.0, 0.0]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("ant", "'ant' of .* does not end in a count from 0 on"),
        ("ant x", "'ant x' of .* does not end in a count"),
        ("ant -1", "does not end in a count"),
        ("ant inf", "does not end in a count"),
        ("bear 3", "no class 'bear': choose of its 4, ant, bee 2, cat, wild, café"),
        ("ant 3\nant 4", "gives the count of a class twice"),
        ("", "gives no class a count above 0"),
        ("ant 0", "gives no class a count above 0"),
        ('{"ant": ', "begins as JSON but is none"),
        ('{"ant": null}', "does not end in a count"),
    ],
)
def test_what_is_no_list_of_counts_is_one_sentence(tmp_path, text, sentence):
    (tmp_path / "counts").write_text(text)
    with pytest.raises(UserError, match=sentence):
        frequencies_in(tmp_path / "counts", NAMES)
    with pytest.raises(UserError, match="There is no file"):
        frequencies_in(tmp_path / "none", NAMES)


def test_classes_are_named_as_those_of_a_federation_are(tmp_path, monkeypatch):
    assert classes_in("bee 2, ant", NAMES) == [1, 0]
    assert classes_in('["cat, wild"]', NAMES) == [2]
    (tmp_path / "some.txt").write_text("ant\ncat, wild\n")
    monkeypatch.chdir(tmp_path)
    assert classes_in("some.txt", NAMES) == [0, 2]
    for text, sentence in ((" , ", "names none: give at least one"), ("ant,bear", "no class 'bear'")):
        with pytest.raises(UserError, match=sentence):
            classes_in(text, NAMES)
    with pytest.raises(UserError, match="choose of its 12, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 others"):
        classes_in("x", [str(number) for number in range(12)])
