"""The number of groups: about 64 rows a class, whoever holds what, and better classifiers where clients are few."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from fedcof import FedCOF, UserError, class_means
from fedcof.statistics.groups import ROWS_PER_CLASS, automatic_groups


@given(st.integers(1, 2000), st.integers(2, 1000), st.data())
def test_all_clients_together_send_about_64_rows_a_class(clients, classes, data):
    held = data.draw(st.integers(1, classes))
    groups = automatic_groups(clients, classes, held)
    rows = clients * held * groups / classes
    typical = clients * held / classes
    assert groups >= 1
    assert rows >= min(ROWS_PER_CLASS, ROWS_PER_CLASS * typical)
    assert rows <= ROWS_PER_CLASS + max(typical, 1)


@pytest.mark.parametrize(
    ("clients", "classes", "held", "groups"),
    [
        (100, 100, 100, 1),
        (100, 100, 35, 2),
        (2, 100, 100, 32),
        (10, 10, 1, 64),
        (9275, 1203, 13, 1),
        (5, 10, 0, 64),
    ],
)
def test_what_is_chosen(clients, classes, held, groups):
    assert automatic_groups(clients, classes, held) == groups


@pytest.mark.parametrize("sizes", [(0, 10), (5, 0)])
def test_nothing_is_chosen_for_nobody(sizes):
    with pytest.raises(UserError, match="at least one of each"):
        automatic_groups(*sizes, 1)


def accuracy(owner_of, clients, choose):
    """FedCOF on pixels of digits, dealt to clients."""
    data = load_digits()
    features, labels = torch.from_numpy(data.data).float(), torch.from_numpy(data.target)
    test = torch.arange(len(labels)) % 5 == 0
    owner = torch.from_numpy(owner_of(data.target))
    aggregator = FedCOF(10, 64, shrinkage=0.01)
    for client in range(clients):
        mine = (owner == client) & ~test
        groups = choose(len(labels[mine].unique()))
        aggregator.add(class_means(features[mine], labels[mine], groups, torch.Generator().manual_seed(client)))
    return float((aggregator.solve().predict(features[test]) == labels[test]).double().mean())


@pytest.mark.parametrize(
    ("clients", "owner_of"),
    [
        (2, lambda labels: np.random.default_rng(0).integers(0, 2, len(labels))),
        (10, lambda labels: labels),
    ],
)
def test_few_clients_and_one_client_a_class_gain(clients, owner_of):
    one = accuracy(owner_of, clients, lambda held: 1)
    chosen = accuracy(owner_of, clients, lambda held: automatic_groups(clients, 10, held))
    assert chosen > one + 0.02
