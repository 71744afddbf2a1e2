"""Uploads of one client put together: the rows of one upload that had them all, whatever they were sent in."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from fedcof import ClassMeans, class_means
from fedcof.statistics.merged import merged
from fedcof.wire.encoding import decode_class_means, encode_class_means


def drawn(classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor(classes, dtype=torch.int64)
    return torch.randn(len(labels), 5, generator=generator), labels


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.permutations(range(6)), st.integers(1, 6))
def test_classes_sent_apart_are_the_upload_of_all(classes, order, cut):
    features, labels = drawn(classes)
    groups = [order[:cut], order[cut:]]
    parts = [torch.isin(labels, torch.tensor(group, dtype=torch.int64)) for group in groups]
    found = merged([class_means(features[part], labels[part]) for part in parts])
    whole = class_means(features, labels)
    assert torch.equal(found.class_ids, whole.class_ids)
    assert torch.equal(found.counts, whole.counts)
    assert torch.equal(found.means, whole.means)
    assert found.noise is None


def test_rows_of_a_class_stay_in_the_order_in_which_they_were_sent():
    first = ClassMeans([1, 2], [3, 4], torch.tensor([[1.0], [2.0]]))
    second = ClassMeans([0, 1], [5, 6], torch.tensor([[3.0], [4.0]]), noise=torch.tensor([0.5, 0.25]))
    found = merged([first, second])
    assert found.class_ids.tolist() == [0, 1, 1, 2]
    assert found.counts.tolist() == [5, 3, 6, 4]
    assert found.means.flatten().tolist() == [3.0, 1.0, 4.0, 2.0]
    assert found.noise.tolist() == [0.5, 0.0, 0.25, 0.0]


def test_one_upload_with_rows_stays_as_it_was_sent():
    sent = decode_class_means(encode_class_means(class_means(*drawn([0, 0, 1])), "int8"))
    empty = class_means(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64))
    assert merged([sent]) is sent
    assert merged([empty, sent]) is sent
    assert merged([empty, empty]).num_rows == 0


def test_coded_rows_keep_what_is_known_of_their_noise():
    uploads = [class_means(*drawn(classes, seed)) for seed, classes in enumerate([[0, 0, 2], [1, 2, 2]])]
    sent = [decode_class_means(encode_class_means(one, "int8", seed)) for seed, one in enumerate(uploads)]
    found = merged(sent)
    assert found.class_ids.tolist() == [0, 1, 2, 2]
    for row, (upload, place) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
        assert torch.equal(found.means[row], sent[upload].means[place])
        assert found.noise[row] == sent[upload].noise[place].double()


def test_one_after_the_other_is_all_at_once():
    uploads = [class_means(*drawn(classes, seed)) for seed, classes in enumerate([[2, 0], [1, 2, 2], [0, 2, 3]])]
    at_once, in_turn = merged(uploads), merged([merged(uploads[:2]), uploads[2]])
    for field in ("class_ids", "counts", "means"):
        assert torch.equal(getattr(at_once, field), getattr(in_turn, field))
