"""What clients get, against a naive computation sample by sample; its cost; and the clients' own samples."""

import time

import numpy as np
import pytest
import torch

from fedcof.data.precomputed import shared_features
from fedcof.data.virtual_clients import samples_of_client
from fedcof.heads.classifiers import load_classifier
from fedcof.run.client_accuracy import Spread
from fedcof.run.config import RunConfig
from server.client_accuracy import accuracy_of_clients, client_accuracy, of_own_samples, of_test_split
from server.run import execute

CLASSES = 5


def scores_of_noise(generator, samples):
    """Scores that know a bit of the labels; nobody has the last class."""
    labels = generator.integers(0, CLASSES, samples)
    scores = generator.standard_normal((samples, CLASSES)).astype(np.float32)
    scores[np.arange(samples), labels] += 1
    scores[:, -1] = -np.inf
    return scores, labels


def naive(scores, labels, weights, counts, nats):
    """One client's three accuracies, sample by sample."""
    total = np.zeros(3)
    for score, label, weight in zip(scores.tolist(), labels.tolist(), weights, strict=True):
        held = [c for c in range(CLASSES) if counts[c] > 0]
        alone = {c: score[c] for c in held if score[c] > -np.inf}
        prior = {c: nats * alone[c] + np.log(counts[c] / sum(counts)) for c in alone}
        total += weight * np.array(
            [
                max(range(CLASSES), key=score.__getitem__) == label,
                bool(alone) and max(alone, key=alone.get) == label,
                bool(prior) and max(prior, key=prior.get) == label,
            ]
        )
    return total


def assert_is(found, accuracies):
    accuracies = np.array(accuracies)
    assert found.clients == len(accuracies)
    for spread, values in zip((found.all_classes, found.held_classes, found.own_prior), accuracies.T, strict=True):
        worst = sorted(values)[: -(-len(values) // 10)]
        assert (spread.mean, spread.worst_tenth) == pytest.approx((np.mean(values), np.mean(worst)))


@pytest.mark.parametrize("size", [7, 4_000_000])
def test_the_test_split_is_weighed_as_each_client_has_its_classes(monkeypatch, size):
    monkeypatch.setattr("server.client_accuracy.MOST_SCORES", size)
    generator = np.random.default_rng(0)
    scores, labels = scores_of_noise(generator, 90)
    keep = labels != 3
    scores, labels = scores[keep], labels[keep]
    counts = generator.integers(0, 4, (12, CLASSES))
    counts[0] = 0  # A client without a sample,
    counts[1] = [0, 0, 0, 6, 0]  # one of whose only class there is no test sample,
    counts[2] = [0, 0, 0, 0, 6]  # and one of whose only class the classifier knows nothing.
    expected = []
    for own in counts:
        tested = [own[c] if (labels == c).any() else 0 for c in range(CLASSES)]
        if sum(tested):
            weights = [tested[label] / sum(tested) / (labels == label).sum() for label in labels]
            expected.append(naive(scores, labels, weights, own, nats=1.7))
    assert len(expected) == 10
    assert_is(client_accuracy(of_test_split(scores, labels, counts), 1.7), expected)


def test_own_samples_count_the_same_each():
    generator = np.random.default_rng(1)
    scores, labels = scores_of_noise(generator, 60)
    counts = generator.integers(0, 3, (6, CLASSES))
    owners = np.split(generator.permutation(60), [5, 5, 20, 31, 40])
    expected = [
        naive(scores[rows], labels[rows], [1 / len(rows)] * len(rows), own, nats=0.3)
        for rows, own in zip(owners, counts, strict=True)
        if len(rows)
    ]
    assert_is(client_accuracy(of_own_samples(scores, labels, owners, counts), 0.3), expected)


def test_without_any_sample_nothing_is_known():
    nothing = np.zeros((0, CLASSES), np.float32), np.zeros(0, np.int64)
    assert client_accuracy(of_test_split(*nothing, np.ones((3, CLASSES), np.int64)), 1.0) is None


def test_the_worst_tenth_is_rounded_up():
    assert Spread.of([0.5, 0.1, 0.9]) == Spread(0.5, 0.1)
    assert Spread.of([i / 20 for i in range(20)]).worst_tenth == pytest.approx(0.025)


def test_thousands_of_clients_with_few_classes_each_cost_little():
    generator = np.random.default_rng(2)
    samples, classes, clients = 6_000, 600, 2_000
    labels = generator.integers(0, classes, samples)
    scores = generator.standard_normal((samples, classes), dtype=np.float32)
    counts = np.zeros((clients, classes), np.int64)
    counts[np.arange(clients)[:, None], generator.integers(0, classes, (clients, 13))] = 1
    started = time.process_time()
    assert client_accuracy(of_test_split(scores, labels, counts), 1.0).clients == clients
    assert time.process_time() - started < 5


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_a_run_without_clients_knows_what_they_would_get(tmp_path, monkeypatch, share):
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(3)
    centres = generator.standard_normal((4, 6))
    (tmp_path / "features").mkdir()
    for split in ("train", "test"):
        labels = np.arange(200) % 4
        np.save(
            tmp_path / f"features/{split}_features.npy",
            (centres[labels] + 2 * generator.standard_normal((200, 6))).astype(np.float32),
        )
        np.save(tmp_path / f"features/{split}_labels.npy", labels)
    config = RunConfig(
        dataset=f"features:{tmp_path / 'features'}",
        num_clients=7,
        alpha=0.3,
        method="oracle",
        client_test_share=share,
        feature_transform="none",
    )
    result = execute(None, config, tmp_path, "run")
    found = result.client_accuracy
    assert result.nats_per_score > 0
    assert found.clients == 7
    assert 1 > found.held_classes.mean > found.all_classes.mean > found.all_classes.worst_tenth > 0
    assert found.own_prior.mean >= found.all_classes.mean
    if not share:
        return
    monkeypatch.setattr("server.client_accuracy.MOST_SAMPLES", 9)
    classifier = load_classifier(tmp_path / result.head)
    assert accuracy_of_clients(classifier, config, result.nats_per_score, torch.zeros(0, 6)) == found
    train = shared_features(config.data.dataset).train
    own = []
    for client in range(7):
        rows = samples_of_client(config, client, held_out=True)
        predicted = classifier.predict(np.array(train.features[rows])).numpy()
        own.append((predicted == train.labels[rows]).mean())
    assert found.all_classes == Spread(pytest.approx(np.mean(own)), pytest.approx(min(own)))
