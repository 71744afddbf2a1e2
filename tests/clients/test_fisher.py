"""The diagonal of a client's empirical Fisher information, against sample after sample in float64."""

import numpy as np
import pytest
import torch
from torch import nn

from clients.fisher import SAMPLES_LOOKED_AT, empirical_fisher
from fedcof.heads.adapter_options import AdapterOptions
from fedcof.heads.trainable import Network


def backbone():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4, 6))


NETWORKS = {
    "head": lambda: Network(3, 6),
    "all": lambda: Network(3, 6, backbone()),
    "adapters": lambda: Network(3, 6, backbone(), AdapterOptions(rank=2, alpha=4.0, layers="", seed=0)),
}


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("num_samples", [1, 5, SAMPLES_LOOKED_AT + 7])
def test_it_is_the_mean_of_squared_gradients_of_each_sample(kind, num_samples):
    network = NETWORKS[kind]().draw_head(1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    shape = (6,) if kind == "head" else (3, 5, 5)
    samples = torch.randn(num_samples, *shape, generator=generator)
    labels = torch.randint(3, (num_samples,), generator=generator)
    found = empirical_fisher(network, samples.__getitem__, labels, torch.device("cpu"))

    looked_at = np.linspace(0, num_samples - 1, min(num_samples, SAMPLES_LOOKED_AT)).astype(int)
    network.double().eval()
    names = list(network.to_arrays())
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    sums = [np.zeros(parameter.shape) for parameter in trained]
    for number in looked_at:
        network.zero_grad()
        nn.functional.cross_entropy(
            network(samples[number : number + 1].double()), labels[number : number + 1]
        ).backward()
        sums = [total + parameter.grad.numpy() ** 2 for total, parameter in zip(sums, trained, strict=True)]
    assert list(found) == names
    for (name, array), total in zip(found.items(), sums, strict=True):
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, total / len(looked_at), rtol=1e-3, atol=1e-7, err_msg=name)
