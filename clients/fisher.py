"""How curved a client's loss is along each weight that trains: the diagonal of its empirical Fisher information."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from clients.training import Inputs
from fedcof.heads.adapters import travelling_name
from fedcof.heads.trainable import Network

# From so many samples the diagonal is known well enough to weigh by.
SAMPLES_LOOKED_AT = 256
# Numbers of all samples' gradients that are held at once.
GRADIENTS_AT_ONCE = 2**26


def empirical_fisher(
    network: Network, inputs: Inputs, labels: Tensor, device: torch.device
) -> dict[str, NDArray[np.float32]]:
    """Average the squares of the samples' gradients of the log-likelihood of their own labels.

    Parameters
    ----------
    network : Network
        After training; it is on the CPU and in evaluation mode in the end.
    inputs : callable
        Gives the network's inputs of sample numbers (b,) int64.
    labels : Tensor of shape (n,), int64
        Class of each sample, n at least 1; up to 256 of them are looked at, evenly spaced.
    device : device
        Where to compute.

    Returns
    -------
    dict of str to ndarray
        For each array of :meth:`Network.to_arrays` one of its shape, float32, in squared nats per squared unit.
    """
    network.to(device).eval()
    trained = {name: tensor.detach() for name, tensor in network.named_parameters() if tensor.requires_grad}
    numbers = torch.linspace(0, len(labels) - 1, min(len(labels), SAMPLES_LOOKED_AT)).long()
    at_once = max(1, GRADIENTS_AT_ONCE // sum(tensor.numel() for tensor in trained.values()))

    def loss(parameters: dict[str, Tensor], sample: Tensor, label: Tensor) -> Tensor:
        logits = functional_call(network, parameters, (sample[None],))
        return cross_entropy(logits, label[None])

    gradients = vmap(grad(loss), in_dims=(None, 0, 0))
    sums = {name: torch.zeros_like(tensor) for name, tensor in trained.items()}
    for part in torch.split(numbers, at_once):
        found = gradients(trained, inputs(part).to(device), labels[part].to(device))
        for name, gradient in found.items():
            sums[name] += gradient.square().sum(dim=0)
    network.to("cpu")
    return {
        travelling_name(name): np.ascontiguousarray((total / len(numbers)).cpu().numpy().astype(np.float32))
        for name, total in sums.items()
    }
