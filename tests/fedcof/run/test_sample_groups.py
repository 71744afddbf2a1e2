"""Classes with no, few and many training samples: which are told apart, and means over seeds."""

import pytest

from fedcof.run.sample_groups import AccuracyBySamples, GroupAccuracy

NOBODY = GroupAccuracy(0, None)


@pytest.mark.parametrize(
    ("groups", "known"),
    [
        ((NOBODY, NOBODY, GroupAccuracy(9, 0.5)), ["many"]),
        ((GroupAccuracy(2, 0.0), NOBODY, GroupAccuracy(9, 0.5)), ["none", "many"]),
        # A class of a list that has no sample at all tells of nothing.
        ((GroupAccuracy(1, None), GroupAccuracy(3, 0.25), NOBODY), ["few"]),
    ],
)
def test_groups_are_told_apart_where_there_are_several_with_test_samples(groups, known):
    found = AccuracyBySamples(*groups)
    assert list(found.known) == known
    assert found.tells_apart == (len(known) > 1)


def test_a_mean_with_an_unknown_number_is_unknown():
    one = AccuracyBySamples(GroupAccuracy(2, 0.0), GroupAccuracy(3, 0.25), GroupAccuracy(4, 0.5))
    other = AccuracyBySamples(GroupAccuracy(2, 0.5), GroupAccuracy(6, 0.75), GroupAccuracy(1, None))
    mean = AccuracyBySamples.averaged([one, other])
    assert (mean.none, mean.few.accuracy) == (GroupAccuracy(2, 0.25), 0.5)
    assert (mean.many.accuracy, AccuracyBySamples.averaged([one])) == (None, one)
