"""Local training against steps written out by hand, and what it promises: order, parts, clipping, errors."""

import numpy as np
import pytest
import torch
from torch import nn

from clients.training import LocalTraining, train
from fedcof import UserError
from fedcof.heads.trainable import Network
from fedcof.run.config import RunConfig


def problem(samples=40, dim=6, classes=3):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes, (samples,), generator=generator)
    return torch.randn(samples, dim, generator=generator) + labels[:, None], labels


def start(dim=6, classes=3):
    return Network(classes, dim).draw_head(1)


def run(settings, network=None, seed=0, inputs=None):
    features, labels = problem()
    network = network or start()
    loss = train(network, inputs or features.__getitem__, labels, settings, torch.Generator().manual_seed(seed))
    return network, loss


def naive_epochs(settings, seed=0):
    """Epochs of SGD on softmax regression: gradients, clipping and FedProx's term from their formulas, float64."""
    features, labels = (t.double().numpy() if t.is_floating_point() else t.numpy() for t in problem())
    weight, bias = (t.detach().double().numpy() for t in (start().head.weight, start().head.bias))
    weight_0, bias_0 = weight.copy(), bias.copy()
    generator = torch.Generator().manual_seed(seed)
    for _ in range(settings.epochs):
        loss = 0.0
        order = torch.randperm(len(labels), generator=generator).numpy()
        for first in range(0, len(order), settings.batch_size):
            batch = order[first : first + settings.batch_size]
            x, y = features[batch], labels[batch]
            logits = x @ weight.T + bias
            p = np.exp(logits - logits.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            loss -= np.log(p[np.arange(len(y)), y]).sum() / len(labels)
            error = p - np.eye(3)[y]
            grad_w = error.T @ x / len(y) + settings.proximal_mu * (weight - weight_0)
            grad_b = error.mean(axis=0) + settings.proximal_mu * (bias - bias_0)
            norm = np.sqrt((grad_w**2).sum() + (grad_b**2).sum())
            if settings.gradient_clip and norm > settings.gradient_clip:
                grad_w, grad_b = (g * settings.gradient_clip / norm for g in (grad_w, grad_b))
            weight = weight - settings.learning_rate * (grad_w + settings.weight_decay * weight)
            bias = bias - settings.learning_rate * (grad_b + settings.weight_decay * bias)
    return weight, bias, loss


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"epochs": 3, "batch_size": 7},
        {"gradient_clip": 0.2},
        {"gradient_clip": 0.0, "learning_rate": 0.5},
        {"proximal_mu": 0.7, "epochs": 2},
        {"weight_decay": 0.1},
    ],
)
def test_sgd_is_the_formula(changes):
    settings = LocalTraining(**{"batch_size": 16, **changes})
    network, loss = run(settings)
    weight, bias, expected = naive_epochs(settings)
    np.testing.assert_allclose(network.head.weight.detach().numpy(), weight, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(network.head.bias.detach().numpy(), bias, rtol=1e-4, atol=1e-6)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert not network.training


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_loss_falls_and_the_seed_decides(optimizer):
    settings = LocalTraining(optimizer=optimizer, epochs=1, batch_size=8)
    later = LocalTraining(optimizer=optimizer, epochs=20, batch_size=8)
    network, first = run(settings)
    again, _ = run(settings)
    other, _ = run(settings, seed=1)
    assert torch.equal(network.head.weight, again.head.weight)
    assert not torch.equal(network.head.weight, other.head.weight)
    assert run(later)[1] < 0.7 * first


class SmallMemory(Network):
    """A network whose device has no room for more than five samples."""

    def forward(self, inputs):
        if len(inputs) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(inputs)


class NoMemory(Network):
    def forward(self, inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_batch_that_does_not_fit_is_taken_in_parts(caplog):
    settings = LocalTraining(batch_size=16, epochs=2)
    whole, loss = run(settings)
    parts, loss_of_parts = run(settings, SmallMemory(3, 6).draw_head(1))
    torch.testing.assert_close(parts.head.weight, whole.head.weight, rtol=1e-5, atol=1e-6)
    assert loss_of_parts == pytest.approx(loss, rel=1e-5)
    assert [record.args[1] for record in caplog.records] == [8, 4]


def test_one_sample_that_does_not_fit_is_an_error():
    with pytest.raises(UserError, match="One sample does not fit"):
        run(LocalTraining(), NoMemory(3, 6))


def test_without_samples_there_is_no_training():
    empty = torch.empty(0, dtype=torch.int64)
    with pytest.raises(UserError, match="no sample"):
        train(start(), torch.zeros(0, 6).__getitem__, empty, LocalTraining(), torch.Generator())


def test_training_that_diverges_says_so():
    features, _ = problem()
    with pytest.raises(UserError, match="lower learning-rate"):
        run(LocalTraining(learning_rate=1e30, gradient_clip=0.0, epochs=5), inputs=lambda i: features[i] * 1e10)


def test_head_and_backbone_have_step_sizes_of_their_own():
    network = Network(3, 6, nn.Linear(6, 6)).draw_head(1)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    run(LocalTraining(learning_rate=0.1, backbone_learning_rate=0.0, gradient_clip=0.0), network)
    moved = {name for name, parameter in network.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {"head.weight", "head.bias"}


def test_the_schedule_falls_over_the_rounds():
    config = RunConfig(continue_="linear-probe", continue_rounds=4, learning_rate_schedule="cosine")
    rates = [LocalTraining.of(config.training, 64, number, 0.05).learning_rate for number in (1, 2, 3, 4)]
    assert rates == pytest.approx([0.05 * (1 + np.cos(np.pi * k / 4)) / 2 for k in range(4)])
    constant = RunConfig(continue_="linear-probe", learning_rate=0.3, backbone_learning_rate=0.2, local_epochs=3)
    settings = LocalTraining.of(constant.training, constant.embedding.batch_size, 9, 0.3)
    assert (settings.learning_rate, settings.backbone_learning_rate, settings.epochs) == (0.3, 0.2, 3)
