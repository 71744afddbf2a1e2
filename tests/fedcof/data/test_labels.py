"""What labels mean: for any type and order the name of a sample's class is the one that its table has."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcof import UserError
from fedcof.data.labels import (
    SplitLabels,
    listed_labels,
    matched_labels,
    number_labels,
    placed_labels,
    text_labels,
)

NAMES = st.lists(st.text(), min_size=1, max_size=8, unique=True)


def of_texts(values):
    distinct = list(dict.fromkeys(values))
    return text_labels(distinct, np.array([distinct.index(value) for value in values], dtype=np.int64))


def written(kind, names, samples, order):
    """Write the same classes as texts, or as places in a list of another order."""
    if kind == "texts":
        return of_texts([names[sample] for sample in samples])
    listed = [names[place] for place in order]
    return listed_labels("here", listed, np.array([listed.index(names[sample]) for sample in samples]))


@settings(max_examples=30)
@given(st.data(), NAMES, st.sampled_from(["texts", "list"]), st.sampled_from(["texts", "list"]))
def test_a_sample_keeps_its_name_in_whatever_order_and_kind_both_splits_are_written(data, names, train, test):
    orders = [data.draw(st.permutations(range(len(names)))) for _ in range(2)]
    samples = data.draw(st.lists(st.sampled_from(range(len(names))), max_size=9))
    whole = [*range(len(names)), *samples]
    class_names, train_ids, test_ids = matched_labels(
        "x", written(train, names, whole, orders[0]), written(test, names, samples, orders[1])
    )
    assert [class_names[place] for place in train_ids] == [names[sample] for sample in whole]
    assert [class_names[place] for place in test_ids] == [names[sample] for sample in samples]
    if train == "list":
        assert class_names == tuple(names[place] for place in orders[0])


@given(
    st.lists(st.integers(0, 2**63), min_size=1),
    st.sampled_from([np.uint64, np.int64, np.int16, np.uint8, np.float64, np.float32]),
)
def test_numbers_of_any_type_are_named_by_themselves_in_their_order(values, dtype):
    numbers = np.array([value % 2**7 if np.dtype(dtype).itemsize < 8 else value % 2**53 for value in values], dtype)
    labels = number_labels("here", numbers)
    assert labels.names() == [str(int(number)) for number in numbers]
    assert list(map(int, labels.class_names)) == sorted(set(map(int, numbers.tolist())))
    assert labels.ids.dtype == np.int64


@given(st.lists(st.booleans(), min_size=1))
def test_truth_values_are_two_names(values):
    labels = number_labels("here", np.array(values))
    assert labels.names() == [str(value) for value in values]
    assert labels.class_names in {("False",), ("True",), ("False", "True")}


def test_labels_without_gaps_are_their_own_ids():
    numbers = np.array([2, 0, 1, 2], dtype=np.int8)
    labels = number_labels("here", numbers)
    assert labels.class_names == ("0", "1", "2")
    assert labels.ids.tolist() == numbers.tolist()


def test_a_large_label_takes_no_memory_for_those_below_it():
    numbers = np.array([3, 7, 5_000_000, 7, 2**62])
    tracemalloc.start()
    labels = number_labels("here", numbers)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert labels.class_names == ("3", "7", "5000000", str(2**62))
    assert labels.ids.tolist() == [0, 1, 2, 1, 3]
    assert most < 100_000


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        (np.array([0, -1]), "the label -1, but a negative number is no class"),
        (np.array([0.0, 0.5]), "the label 0.5 is no whole number"),
        (np.array([0.0, np.inf]), "the label inf is no whole number"),
        (np.array([-2.0, 1.0]), "the label -2, but"),
    ],
)
def test_numbers_that_name_no_class(numbers, sentence):
    with pytest.raises(UserError, match=f"In here .*{sentence}"):
        number_labels("here", numbers)


@pytest.mark.parametrize(
    ("train", "test", "sentence"),
    [
        (np.array([0, 2]), np.array([1]), "has the class '1', which the train split lacks: remove"),
        (np.array([1, 2]), np.array([0, 1]), "has the class '0', which the train split lacks: remove"),
        (
            np.array([False, True]),
            np.array([0, 1]),
            "'0', which .* labels are truth values there and numbers in",
        ),
    ],
)
def test_test_labels_that_the_train_split_lacks(train, test, sentence):
    with pytest.raises(UserError, match=sentence):
        matched_labels("x", number_labels("a", train), number_labels("b", test))


def test_numbers_and_listed_names_are_matched_only_by_name():
    numbers = number_labels("a", np.array([0, 1, 2]))
    digits = listed_labels("b", ["2", "1", "0"], np.array([0, 0, 2]))
    assert matched_labels("x", numbers, digits)[2].tolist() == [2, 2, 0]
    animals = listed_labels("b", ["ant", "bee", "cat"], np.array([1]))
    for train, test in ((numbers, animals), (animals, numbers)):
        with pytest.raises(UserError, match="which the train split lacks, because .*listed names.*: write"):
            matched_labels("x", train, test)


def test_a_class_that_is_only_listed_stays_without_samples():
    names, train, _ = matched_labels(
        "x", listed_labels("a", ["ant", "bee", "cat"], np.array([0, 2])), of_texts(["cat"])
    )
    assert names == ("ant", "bee", "cat")
    assert train.tolist() == [0, 2]


def test_a_name_that_stands_twice_in_a_list_is_told_by_its_place():
    crane = listed_labels("a", ["crane", "ox", "crane"], np.array([0, 1, 2]))
    assert matched_labels("x", crane, crane)[2].tolist() == [0, 1, 2]


def test_a_composed_and_a_decomposed_name_are_one_unless_both_are_listed():
    composed, apart = "caf\u00e9", "cafe\u0301"
    assert matched_labels("x", of_texts([composed, "tea"]), of_texts([apart]))[2].tolist() == [0]
    both = of_texts([composed, apart])
    assert [both.class_names[place] for place in matched_labels("x", both, of_texts([apart]))[2]] == [apart]


@pytest.mark.parametrize("number", [3, 2**40])
def test_a_number_beyond_its_list(number):
    with pytest.raises(UserError, match=f"In here .* to {number}, but with 3 classes .* at most 2"):
        listed_labels("here", "abc", np.array([0, number]))
    with pytest.raises(UserError, match="label -1"):
        listed_labels("here", "abc", np.array([0, -1]))


def test_texts_are_placed_in_a_list():
    assert placed_labels("here", of_texts(["b", "a", "b"]), ("c", "b", "a")).ids.tolist() == [1, 2, 1]
    with pytest.raises(UserError, match="the class 'd', which is none of the 3"):
        placed_labels("here", of_texts(["d"]), ("c", "b", "a"))


def test_a_name_that_no_file_can_hold():
    labels = SplitLabels("texts", ("a", "\ud800"), np.array([0, 1]))
    with pytest.raises(UserError, match="no text that can be written"):
        matched_labels("x", labels, labels)
