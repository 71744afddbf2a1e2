"""The estimator: scikit-learn's own checks, the same classifier as FedCOF's, and labels of any type."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fedcof import FedCOF, FedCOFClassifier, Oracle, UserError, class_means

DIM, CLASSES, CLIENTS = 7, 4, 12


@parametrize_with_checks(
    [FedCOFClassifier(), FedCOFClassifier(head="lda"), FedCOFClassifier("pooled", 0.1), FedCOFClassifier("paper")]
)
def test_it_does_what_scikit_learn_asks_of_a_classifier(estimator, check):
    check(estimator)


def federation(seed=0, number=240, classes=CLASSES, dtype=np.float64):
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=number)
    features = generator.normal(size=(number, DIM)) * np.linspace(0.5, 2, DIM)
    features[np.arange(number), labels] += 2
    return features.astype(dtype), labels, generator.integers(CLIENTS, size=number)


def aggregator_of(features, labels, clients, *options):
    aggregator = FedCOF(CLASSES, DIM, *options)
    for client in np.unique(clients):
        mine = clients == client
        aggregator.add(class_means(torch.from_numpy(features[mine]), torch.from_numpy(labels[mine])))
    return aggregator


def told_apart(estimator):
    """What an estimator says of itself and of some features."""
    features, *_ = federation(seed=9)
    told = [getattr(estimator, name) for name in ("classes_", "coef_", "intercept_", "means_", "covariance_")]
    told.append(np.array(estimator.shrinkage_))
    return [*told, estimator.predict(features), estimator.decision_function(features)]


def assert_same(first, second, exactly=True):
    for ours, theirs in zip(told_apart(first), told_apart(second), strict=True):
        if exactly or ours.dtype.kind not in "f":
            np.testing.assert_array_equal(ours, theirs)
        else:
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "options",
    [("per-class", "leave-one-out", "ridge"), ("pooled", 0.1, "lda"), ("paper", "oas", "ridge")],
    ids=lambda options: options[0],
)
def test_a_fit_by_clients_is_fedcof_on_them_to_the_last_bit(options, dtype):
    features, labels, clients = federation(dtype=dtype)
    estimator = FedCOFClassifier(*options).fit(features, labels, groups=clients)
    aggregator = aggregator_of(features, labels, clients, *options)
    classifier = aggregator.solve()
    assert np.array_equal(estimator.coef_, classifier.weight.double().numpy())
    assert np.array_equal(estimator.intercept_, classifier.bias.double().numpy())
    assert np.array_equal(estimator.means_, aggregator.class_means().numpy())
    assert np.array_equal(estimator.covariance_, aggregator.covariance().numpy())
    assert estimator.shrinkage_ == aggregator.shrinkage_
    assert estimator.n_features_in_ == DIM
    assert estimator.classes_.tolist() == list(range(CLASSES))
    predicted = classifier.predict(torch.from_numpy(features)).numpy()
    assert (estimator.predict(features) == predicted).mean() > 0.99
    assert estimator.score(features, labels) > 0.5


def test_clients_may_have_names_and_samples_any_order():
    features, labels, clients = federation()
    names = np.array([f"hospital {client:02}" for client in clients])
    by_number = FedCOFClassifier().fit(features, labels, groups=clients)
    assert_same(FedCOFClassifier().fit(features, labels, groups=names), by_number)
    assert_same(FedCOFClassifier().fit(features.tolist(), labels.tolist(), groups=clients.tolist()), by_number)
    order = np.random.default_rng(1).permutation(len(labels))
    shuffled = FedCOFClassifier().fit(features[order], labels[order], groups=clients[order])
    assert_same(shuffled, by_number, exactly=False)


def test_without_clients_it_is_the_oracle():
    features, labels, _ = federation()
    oracle = Oracle(CLASSES, DIM)
    oracle.add_samples(features, labels)
    estimator = FedCOFClassifier().fit(features, labels)
    assert np.array_equal(estimator.coef_, oracle.solve().weight.double().numpy())
    assert estimator.shrinkage_ == oracle.shrinkage_


def test_with_lda_and_no_shrinkage_it_is_scikit_learns():
    features, labels, _ = federation(number=2000)
    ours = FedCOFClassifier(shrinkage=0.0, head="lda").fit(features, labels)
    theirs = LinearDiscriminantAnalysis(priors=np.full(CLASSES, 1 / CLASSES)).fit(features, labels)
    np.testing.assert_allclose(ours.predict_proba(features), theirs.predict_proba(features), atol=0.01)
    np.testing.assert_allclose(ours.means_, theirs.means_)


def one_client_a_call(features, labels, clients, order, estimator=None):
    estimator = estimator or FedCOFClassifier()
    for client in order:
        mine = clients == client
        estimator.partial_fit(features[mine], labels[mine], classes=range(CLASSES))
    return estimator


def test_a_client_a_call_is_the_fit_of_all():
    features, labels, clients = federation()
    whole = FedCOFClassifier().fit(features, labels, groups=clients)
    assert_same(one_client_a_call(features, labels, clients, range(CLIENTS)), whole)
    backwards = one_client_a_call(features, labels, clients, reversed(range(CLIENTS)))
    assert_same(backwards, whole, exactly=False)


def test_what_was_solved_is_solved_anew_after_another_client():
    features, labels, clients = federation()
    estimator = one_client_a_call(features, labels, clients, range(6))
    before = estimator.coef_
    one_client_a_call(features, labels, clients, range(6, CLIENTS), estimator)
    assert not np.array_equal(estimator.coef_, before)
    assert_same(estimator, FedCOFClassifier().fit(features, labels, groups=clients))


def test_merging_is_having_seen_all_clients():
    features, labels, clients = federation()
    early, late = clients < 5, clients >= 5
    first = FedCOFClassifier().fit(features[early], labels[early], groups=clients[early])
    second = FedCOFClassifier(head="lda").fit(features[late], labels[late], groups=clients[late])
    told = told_apart(second)
    assert first.merge(second) is first
    assert_same(first, FedCOFClassifier().fit(features, labels, groups=clients))
    for before, after in zip(told, told_apart(second), strict=True):
        np.testing.assert_array_equal(before, after)


def test_merging_joins_classes_that_one_of_both_lacks():
    features, labels, clients = federation()
    names = np.array(["ant", "a very long name", "cow", "dog"])
    early = clients < 5
    here, there = early & (labels != 1), ~early & (labels != 3)
    both = here | there
    first = FedCOFClassifier().fit(features[here], names[labels[here]], groups=clients[here])
    second = FedCOFClassifier().fit(features[there], names[labels[there]], groups=clients[there])
    whole = FedCOFClassifier().fit(features[both], names[labels[both]], groups=clients[both])
    assert_same(first.merge(second), whole)
    assert second.classes_.tolist() == sorted(names[:3])


def test_what_cannot_be_merged_is_said():
    features, labels, clients = federation()
    estimator = FedCOFClassifier().fit(features, labels, groups=clients)
    with pytest.raises(ValueError, match="3 features, but this one 7"):
        estimator.merge(FedCOFClassifier().fit(features[:, :3], labels, groups=clients))
    for others in (labels.astype(str), labels.astype(str).astype(object)):
        with pytest.raises(ValueError, match="cannot be compared"):
            estimator.merge(FedCOFClassifier().fit(features, others, groups=clients))
    with pytest.raises(NotFittedError):
        estimator.merge(FedCOFClassifier())
    assert_same(estimator, FedCOFClassifier().fit(features, labels, groups=clients))


@pytest.mark.parametrize(
    "names",
    [
        np.array(["ant", "bee", "cow", "dog"]),
        np.array(["dog", "bee", "ant", "cow"], dtype=object),
        np.array([-7, 3, 1000, 2**40]),
        np.array([0.0, 1.0, 5.0, 6.0]),
        np.array([2, 4, 8, 16], dtype=np.uint8),
    ],
    ids=["text", "objects", "gaps", "floats", "bytes"],
)
def test_labels_are_of_any_type(names):
    features, labels, clients = federation()
    estimator = FedCOFClassifier().fit(features, names[labels], groups=clients)
    assert estimator.classes_.tolist() == sorted(names.tolist())
    assert estimator.classes_.dtype == names.dtype
    plain = FedCOFClassifier().fit(features, labels, groups=clients)
    assert (estimator.predict(features) == names[plain.predict(features)]).mean() > 0.99
    steps = FedCOFClassifier()
    for client in range(CLIENTS):
        mine = clients == client
        steps.partial_fit(features[mine], names[labels[mine]], classes=names)
    assert_same(steps, estimator)


def test_two_classes_may_be_true_and_false():
    features, labels, clients = federation(classes=2)
    estimator = FedCOFClassifier(head="lda").fit(features, labels == 1, groups=clients)
    assert estimator.classes_.dtype == bool
    assert estimator.coef_.shape == (1, DIM)
    assert estimator.score(features, labels == 1) > 0.8
    chances = estimator.predict_proba(features)
    np.testing.assert_array_equal(chances[:, 1] > 0.5, estimator.predict(features))
    np.testing.assert_allclose(chances.sum(axis=1), 1)


@pytest.mark.parametrize("held", [0, 1])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.filterwarnings("error")
def test_a_class_that_nobody_has_is_never_predicted_and_has_no_chance(held, classes):
    features, _, clients = federation()
    estimator = FedCOFClassifier(shrinkage=0.1, head="lda")
    for client in range(CLIENTS):
        mine = features[clients == client]
        estimator.partial_fit(mine, np.full(len(mine), held), classes=range(classes))
    assert set(estimator.predict(features * 100)) == {held}
    np.testing.assert_array_equal(estimator.predict_proba(features), np.eye(classes)[np.full(len(features), held)])


def test_one_class_alone_is_certain():
    features, labels, clients = federation()
    names = np.full(len(labels), "ant")
    estimator = FedCOFClassifier(shrinkage=0.1, head="lda").fit(features, names, groups=clients)
    assert set(estimator.predict(features)) == {"ant"}
    assert (estimator.predict_proba(features) == 1).all()


def test_chances_are_those_of_lda_alone():
    assert hasattr(FedCOFClassifier(head="lda"), "predict_proba")
    assert not hasattr(FedCOFClassifier(), "predict_proba")


def test_what_a_partial_fit_refuses_changes_nothing():
    features, labels, clients = federation()
    with pytest.raises(ValueError, match="first call of partial_fit needs all classes"):
        FedCOFClassifier().partial_fit(features, labels)
    estimator = one_client_a_call(features, labels, clients, range(CLIENTS))
    for samples, sentence in (
        ((features, labels + 1), "none of the classes"),
        ((features, labels, range(3)), "give the same again"),
        ((features[:, :3], labels), "3 features"),
        ((features, labels / 2), "Unknown label type"),
        ((features * np.nan, labels), "NaN"),
    ):
        with pytest.raises(ValueError, match=sentence):
            estimator.partial_fit(*samples)
    assert_same(estimator, FedCOFClassifier().fit(features, labels, groups=clients))


def test_a_fit_that_fails_leaves_nothing_of_the_one_before():
    features, labels, clients = federation()
    estimator = FedCOFClassifier().fit(features, labels, groups=clients)
    for options, sentence in (({"shrinkage": "much"}, "shrinkage"), ({"head": "svm"}, "ridge, lda")):
        broken = clone(estimator).fit(features, labels, groups=clients).set_params(**options)
        with pytest.raises(UserError, match=sentence):
            broken.fit(features, labels, groups=clients)
        with pytest.raises(UserError, match=sentence):
            broken.predict(features)
    with pytest.raises(UserError, match="No class has more than one sample"):
        estimator.set_params(shrinkage=0.5).fit(features[:4], [0, 1, 2, 3], groups=[0, 0, 0, 0])


def test_what_it_has_learnt_does_not_hang_on_the_callers_arrays():
    features, labels, _ = federation()
    mine = features.copy()
    estimator = FedCOFClassifier("pooled").partial_fit(mine, labels, range(CLASSES)).fit(mine, labels)
    expected = told_apart(FedCOFClassifier("pooled").fit(features, labels))
    mine[:] = 0
    estimator.merge(FedCOFClassifier().partial_fit(features[:1], labels[:1], range(CLASSES)))
    whole = np.vstack([features, features[:1]]), np.append(labels, labels[0])
    assert_same(estimator, FedCOFClassifier("pooled").fit(*whole))
    assert not np.array_equal(expected[1], estimator.coef_)


def test_before_a_fit_there_is_nothing():
    estimator = FedCOFClassifier()
    for name in ("coef_", "intercept_", "means_", "covariance_", "shrinkage_", "classes_", "n_features_in_"):
        assert not hasattr(estimator, name)
    with pytest.raises(NotFittedError):
        estimator.predict(np.zeros((1, DIM)))


def test_it_is_copied_and_kept_as_scikit_learns_are():
    features, labels, clients = federation()
    estimator = FedCOFClassifier("pooled", 0.3, "lda").fit(features, labels, groups=clients)
    assert_same(pickle.loads(pickle.dumps(estimator)), estimator)
    copy = clone(estimator)
    assert copy.get_params() == {"estimator": "pooled", "shrinkage": 0.3, "head": "lda"}
    assert not hasattr(copy, "classes_")


def test_a_search_finds_the_shrinkage():
    features, labels = load_digits(return_X_y=True)
    features, labels = features[:600], labels[:600]
    search = GridSearchCV(
        make_pipeline(StandardScaler(), FedCOFClassifier()),
        {"fedcofclassifier__shrinkage": [*np.logspace(-3, 3, 4), "leave-one-out"]},
        cv=3,
        error_score="raise",
    ).fit(features, labels)
    scores = search.cv_results_["mean_test_score"]
    assert scores.max() > 0.85
    assert scores.max() > scores.min() + 0.01
    assert search.predict(features).shape == labels.shape
