"""The scale at which a closed-form head is a softmax: its formula, what it leaves alone, and how good it is."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

import fedcof
from fedcof import LinearClassifier, class_means, feature_moments
from fedcof.heads.quadratic import QuadraticClassifier
from fedcof.heads.temperature import START_MARGIN, softmax_scale, softmax_start


def random_head(seed, classes=5, dim=7, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(classes, dim, generator=generator)
    # A head that leans towards its class means, as every closed form does.
    weight = (means + 0.3 * torch.randn(classes, dim, generator=generator)) * scale
    return LinearClassifier(
        weight, torch.randn(classes, generator=generator) * scale, torch.ones(classes) > 0
    ), means


def naive_margin(weight, bias, means):
    """The denominator of the formula, in float64 and in loops."""
    classes = len(weight)
    total = 0.0
    for c in range(classes):
        logits = [float(np.dot(weight[j], means[c]) + bias[j]) for j in range(classes)]
        total += logits[c] - sum(logits[j] for j in range(classes) if j != c) / (classes - 1)
    return total / classes


@given(st.integers(0, 10_000), st.integers(2, 9), st.floats(1e-3, 1e3))
def test_the_scale_is_the_formulas(seed, classes, scale):
    head, means = random_head(seed, classes, scale=scale)
    margin = naive_margin(*(t.double().numpy() for t in (head.weight, head.bias, means)))
    start = softmax_start(head, means)
    factor = START_MARGIN / margin if margin > 0 else 1.0
    torch.testing.assert_close(start.weight, head.weight * factor, rtol=1e-5, atol=0)
    torch.testing.assert_close(start.bias, head.bias * factor, rtol=1e-5, atol=0)


def test_the_scale_is_known_of_a_classifier_that_is_not_linear():
    generator = torch.Generator().manual_seed(0)
    means, present = torch.randn(4, 6, generator=generator), torch.tensor([True, True, False, True])
    classifier = QuadraticClassifier(
        weight=means,
        bias=torch.randn(4, generator=generator),
        directions=torch.randn(4, 2, 6, generator=generator) / 4,
        offsets=torch.zeros(4, 2),
        curvature=torch.zeros(4),
        whitening=torch.zeros(6, 0),
        centre=torch.zeros(6),
        present=present,
    )
    places = [0, 1, 3]
    scores = classifier.scores(means)[places][:, places].tolist()
    naive = sum(scores[i][i] - sum(scores[i][j] for j in range(3) if j != i) / 2 for i in range(3)) / 3
    assert naive > 0
    assert softmax_scale(classifier, means) == pytest.approx(START_MARGIN / naive, rel=1e-5)


def test_the_scale_of_a_linear_head_is_that_of_training():
    head, means = random_head(3)
    scale = softmax_scale(head, means.double())
    torch.testing.assert_close(softmax_start(head, means).weight, head.weight * scale, rtol=1e-5, atol=0)


@given(st.integers(0, 10_000))
def test_the_predictions_stay(seed):
    head, means = random_head(seed)
    features = torch.randn(50, 7, generator=torch.Generator().manual_seed(seed + 1))
    top = head.scores(features).topk(2, dim=1).values
    clear = (top[:, 0] - top[:, 1]) > 1e-4
    assert torch.equal(softmax_start(head, means).predict(features)[clear], head.predict(features)[clear])


def test_a_class_that_nobody_has_is_below_all_others_and_not_out_of_reach():
    head, means = random_head(0)
    present = torch.tensor([True, True, False, True, True])
    head = LinearClassifier(head.weight * present[:, None], head.bias * present, present)
    start = softmax_start(head, means * present[:, None])
    logits = means[present] @ start.weight.T + start.bias
    others = logits[:, present]
    assert (logits[:, 2] < others.min()).all()
    assert logits[:, 2].min() > others.min() - 2 * START_MARGIN
    assert torch.equal(start.present, present)


@pytest.mark.parametrize("present", [[True, False], [False, False]])
def test_with_fewer_than_two_classes_there_is_nothing_to_scale(present):
    head = LinearClassifier(torch.ones(2, 3), torch.zeros(2), torch.tensor(present))
    assert softmax_start(head, torch.ones(2, 3)) is head


@pytest.mark.parametrize("method", ["fedncm", "fedcof", "lda", "fed3r"])
def test_the_start_is_near_the_best_scale(method):
    """On pixels of digits the cross-entropy of the start is at most a quarter above that of the best scale."""
    data = load_digits()
    features = torch.from_numpy(data.data).float()
    labels = torch.from_numpy(data.target)
    held_out = torch.arange(len(labels)) % 5 == 0
    client = torch.from_numpy(np.random.default_rng(0).integers(0, 40, len(labels)))
    aggregator = {
        "fedncm": fedcof.FedNCM(10, 64),
        "fedcof": fedcof.FedCOF(10, 64, shrinkage="ledoit-wolf"),
        "lda": fedcof.FedCOF(10, 64, shrinkage="ledoit-wolf", head="lda"),
        "fed3r": fedcof.Fed3R(10, 64),
    }[method]
    statistics = feature_moments if method == "fed3r" else class_means
    for number in range(40):
        mine = (client == number) & ~held_out
        aggregator.add(statistics(features[mine], labels[mine]))
    head = softmax_start(aggregator.solve(), aggregator.class_means())
    logits = head.scores(features[held_out])
    losses = {s: float(cross_entropy(logits * s, labels[held_out])) for s in np.geomspace(1 / 16, 16, 81)}
    assert float(cross_entropy(logits, labels[held_out])) <= 1.25 * min(losses.values())
