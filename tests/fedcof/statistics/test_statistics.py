"""Class means: the numbers, the groups, and what is refused."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcof import ClassMeans, UserError, class_means


def test_each_row_is_the_mean_of_its_class():
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0], [10.0, 20.0]])
    upload = class_means(features, torch.tensor([5, 5, 2]))
    assert upload.class_ids.tolist() == [2, 5]
    assert upload.counts.tolist() == [1, 2]
    assert upload.means.tolist() == [[10.0, 20.0], [2.0, 3.0]]


@settings(max_examples=50, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=0, max_size=40), groups=st.integers(1, 6), seed=st.integers(0, 9)
)
def test_groups_split_every_class_into_disjoint_parts_of_equal_size(labels, groups, seed):
    labels = torch.tensor(labels, dtype=torch.int64)
    features = torch.nn.functional.one_hot(torch.arange(len(labels)), max(len(labels), 1)).to(torch.float64)
    upload = class_means(features, labels, groups, torch.Generator().manual_seed(seed))
    members = upload.means * upload.counts[:, None] > 0.5
    assert members.sum(dim=0).tolist() == [1] * len(labels) or not len(labels)
    for class_id in labels.unique():
        sizes = upload.counts[upload.class_ids == class_id]
        assert len(sizes) == min(groups, int((labels == class_id).sum()))
        assert sizes.max() - sizes.min() <= 1
        assert sizes.sum() == (labels == class_id).sum()
    for row, class_id in zip(members, upload.class_ids, strict=True):
        assert set(labels[row].tolist()) == {int(class_id)}


def test_groups_add_up_to_the_whole_class():
    features, labels = torch.randn(50, 3, dtype=torch.float64), torch.arange(50) % 4
    one, many = class_means(features, labels), class_means(features, labels, groups=5)
    for class_id in range(4):
        rows = many.class_ids == class_id
        total = (many.means[rows] * many.counts[rows, None]).sum(dim=0) / many.counts[rows].sum()
        torch.testing.assert_close(total, one.means[class_id], rtol=1e-5, atol=1e-6)


def test_groups_are_random_but_follow_the_generator():
    features, labels = torch.randn(60, 3), torch.zeros(60, dtype=torch.int64)

    def means(seed):
        return class_means(features, labels, 3, torch.Generator().manual_seed(seed)).means

    assert torch.equal(means(1), means(1))
    assert not torch.equal(means(1), means(2))


def test_a_client_without_samples_has_no_rows():
    upload = class_means(torch.zeros(0, 7), torch.zeros(0, dtype=torch.int64), groups=3)
    assert upload.num_rows == 0
    assert upload.feature_dim == 7


def valid_fields():
    return {"class_ids": torch.tensor([0, 1]), "counts": torch.tensor([3, 4]), "means": torch.zeros(2, 5)}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("class_ids", torch.tensor([[0, 1]])),
        ("class_ids", torch.tensor([0.0, 1.0])),
        ("class_ids", torch.tensor([0, -1])),
        ("counts", torch.tensor([3])),
        ("counts", torch.tensor([3, 0])),
        ("counts", torch.tensor([3.0, 4.0])),
        ("means", torch.zeros(3, 5)),
        ("means", torch.zeros(2)),
        ("means", torch.zeros(2, 5, dtype=torch.int64)),
        ("means", torch.full((2, 5), float("nan"))),
        ("means", torch.full((2, 5), float("inf"))),
    ],
)
def test_a_bad_field_is_named(field, value):
    with pytest.raises(UserError, match=field):
        ClassMeans(**{**valid_fields(), field: value})


def test_an_upload_that_does_not_fit_the_federation_is_refused():
    upload = ClassMeans(**valid_fields())
    upload.check_fits(num_classes=2, feature_dim=5)
    with pytest.raises(UserError, match="class_ids"):
        upload.check_fits(num_classes=1, feature_dim=5)
    with pytest.raises(UserError, match="means"):
        upload.check_fits(num_classes=2, feature_dim=6)


def test_bad_samples_are_refused():
    with pytest.raises(UserError, match="labels"):
        class_means(torch.zeros(3, 2), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(UserError, match="groups"):
        class_means(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64), groups=0)
    with pytest.raises(UserError, match="means"):
        class_means(torch.full((3, 2), float("nan")), torch.zeros(3, dtype=torch.int64))
