"""What each client has done: as N solves say, exactly where that is promised, and who is wrong is on top."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from fedcof import ClassMeans, FedCOF, UserError
from fedcof.methods.influence import influence
from tests.attacks import CLASSES, attacked, digits_of_clients, flipped_labels, scaled
from tests.fedcof import formulas

DIM = 9


def drawn(num_clients=14, seed=0, classes=4):
    """Class 3 is of client 0 alone, and clients have one row of a class or two."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(2, 1, (classes, DIM))
    uploads = {}
    for client in range(num_clients):
        ids = generator.permutation(classes - 1)[:2]
        ids = np.append(ids, ids[0] if client % 2 else (classes - 1 if client == 0 else [])).astype(np.int64)
        counts = generator.integers(2, 40, len(ids))
        means = centres[ids] + generator.normal(size=(len(ids), DIM)) / np.sqrt(counts)[:, None]
        uploads[7 * client] = ClassMeans(torch.tensor(ids), torch.tensor(counts), torch.tensor(means))
    return uploads


def aggregated(uploads, dim=DIM, classes=4, **settings):
    aggregator = FedCOF(classes, dim, **settings)
    for client, upload in uploads.items():
        aggregator.add(upload, client)
    return aggregator


def naive_weight(uploads, head, gamma, classes=4):
    rows = [
        (int(c), int(n), np.asarray(m))
        for upload in uploads.values()
        for c, n, m in zip(upload.class_ids, upload.counts, upload.means, strict=True)
    ]
    scatter = formulas.pooled_scatter(rows, classes, gamma)
    counts, means, _ = formulas.totals(rows, classes)
    return (
        formulas.ridge_weight(scatter, counts, means)
        if head == "ridge"
        else formulas.lda(scatter, counts, means)[0]
    )


@pytest.mark.parametrize("head", ["ridge", "lda"])
@pytest.mark.parametrize("rows_of_a_class", ["one", "several"])
def test_pooled_with_a_number_is_what_solving_without_each_client_gives(head, rows_of_a_class):
    uploads = drawn()
    if rows_of_a_class == "one":
        uploads = {k: u for k, u in uploads.items() if len(set(u.class_ids.tolist())) == u.num_rows}
    found = influence(aggregated(uploads, estimator="pooled", shrinkage=0.3, head=head))
    whole = naive_weight(uploads, head, 0.3)
    expected = {}
    for client in uploads:
        others = {k: u for k, u in uploads.items() if k != client}
        expected[client] = np.linalg.norm(naive_weight(others, head, 0.3) - whole) / np.linalg.norm(whole)
    assert found.sources == sorted(expected, key=expected.get, reverse=True)
    np.testing.assert_allclose(found.distances, [expected[client] for client in found.sources], rtol=1e-8)
    assert found.sources[0] == 0 or expected[0] > 0.1  # Without it a class is gone.


@pytest.mark.parametrize("head", ["ridge", "lda", "quadratic"])
def test_the_accuracies_are_those_of_the_classifiers_of_the_others(head):
    uploads = drawn()
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(300, DIM, generator=generator).double() + 2, torch.arange(300) % 4
    settings = {"estimator": "pooled", "shrinkage": 0.3}
    found = influence(aggregated(uploads, head=head, **settings), features, labels)
    head = "ridge" if head == "quadratic" else head

    def accuracy(without, on, of_class, weights):
        kept = {k: u for k, u in uploads.items() if k != without}
        right = aggregated(kept, head=head, **settings).solve().predict(on.float()) == of_class
        return float((right.double() * weights).sum() / weights.sum())

    for place, client in enumerate(found.sources):
        others = [u for k, u in uploads.items() if k != client]
        rows = torch.cat([u.means for u in others]), torch.cat([u.class_ids for u in others])
        counts = torch.cat([u.counts for u in others]).double()
        gain = accuracy(client, *rows, counts) - accuracy(None, *rows, counts)
        assert float(found.accuracy_of_means[place]) == pytest.approx(gain, abs=1e-9)
        gain = accuracy(client, features, labels, torch.ones(300).double()) - accuracy(
            None, features, labels, torch.ones(300).double()
        )
        assert float(found.accuracy[place]) == pytest.approx(gain, abs=1e-9)


@pytest.mark.parametrize("shrinkage", [0.05, "leave-one-out", "oas"])
@pytest.mark.parametrize("estimator", ["per-class", "paper", "pooled"])
def test_clients_are_ranked_as_by_solving_without_each(estimator, shrinkage):
    uploads, _, _ = digits_of_clients(25)
    settings = {
        "dim": 64,
        "classes": CLASSES,
        "estimator": estimator,
        "shrinkage": shrinkage,
        "keeps_uploads": True,
    }
    aggregator = aggregated(uploads, **settings)
    found = influence(aggregator)
    whole = aggregator.solve().weight
    solved = {}
    for client in uploads:
        others = aggregated({k: u for k, u in uploads.items() if k != client}, **settings)
        solved[client] = float((others.solve().weight - whole).norm() / whole.norm())
    ranked = [solved[client] for client in found.sources]
    assert spearmanr(found.distances, ranked).statistic > 0.9


@pytest.mark.parametrize("attack", [flipped_labels, scaled])
def test_who_is_wrong_is_on_top_and_others_are_better_off_without_it(attack):
    uploads, features, labels = digits_of_clients(10)
    found = influence(aggregated(attacked(uploads, attack, {6}), 64, CLASSES, head="quadratic"), features, labels)
    assert found.sources[0] == 6
    assert float(found.distances[0]) > 2 * float(found.distances[1])
    assert float(found.accuracy[0]) > 0.01
    # Means are far easier to tell apart than samples, and its own are among those that judge the others.
    assert float(found.accuracy_of_means[0]) >= 0
    assert float(found.accuracy[0]) > float(found.accuracy[1:].max())


def test_it_needs_two_clients_and_their_uploads():
    uploads = drawn(2)
    with pytest.raises(UserError, match="one alone"):
        influence(aggregated({0: uploads[0]}))
    for keeps in (True, False):
        aggregator = FedCOF(4, DIM, "pooled", 0.1, keeps_uploads=keeps)
        for client in range(400):
            upload = uploads[7 * (client % 2)]
            ids = upload.class_ids.repeat(4)
            aggregator.add(ClassMeans(ids, upload.counts.repeat(4), upload.means.repeat(4, 1)), client)
        if keeps:
            assert len(influence(aggregator).sources) == 400
        else:
            with pytest.raises(UserError, match="keeps_uploads"):
                influence(aggregator)
