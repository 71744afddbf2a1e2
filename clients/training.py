"""Local training: a client's epochs over its own samples, for linear probing, adapters and fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from logging import getLogger

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clients.refusal import Refusal
from fedcof import UserError
from fedcof.heads.trainable import Network
from fedcof.run.protocol import NO_SAMPLE
from fedcof.run.training import ADAMW, COSINE, TrainingSection

logger = getLogger(__name__)

# From so many samples the mean squared length of a client's features is known to a few per cent.
SAMPLES_LOOKED_AT = 32

Inputs = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LocalTraining:
    """How a client trains in one round.

    Attributes
    ----------
    optimizer : str
        ``sgd`` or ``adamw``.
    learning_rate, backbone_learning_rate : float
        Step sizes of the head, and of the backbone or its adapters.
    weight_decay : float
        As the optimizer has it.
    epochs, batch_size : int
        Passes over the samples, and samples a step.
    gradient_clip : float
        Largest norm of a step's gradient; 0 for any.
    proximal_mu : float
        Weight of FedProx's term (arXiv 1812.06127, equation 2): mu / 2 times the squared distance from the start.
    """

    optimizer: str = "sgd"
    learning_rate: float = 0.05
    backbone_learning_rate: float = 0.001
    weight_decay: float = 0.0
    epochs: int = 1
    batch_size: int = 64
    gradient_clip: float = 10.0
    proximal_mu: float = 0.0

    @staticmethod
    def of(section: TrainingSection, batch_size: int, training_round: int, learning_rate: float) -> LocalTraining:
        """Take the settings of a run.

        Parameters
        ----------
        section : TrainingSection
            The run's.
        batch_size : int
            Samples of a step.
        training_round : int
            Number of the round, from 1, for the schedule of the learning rates.
        learning_rate : float
            Step size of the head before that schedule.

        Returns
        -------
        LocalTraining
            The round's.
        """
        factor = 1.0
        if section.learning_rate_schedule == COSINE:
            factor = (1 + math.cos(math.pi * (training_round - 1) / section.rounds)) / 2
        return LocalTraining(
            optimizer=section.optimizer,
            learning_rate=learning_rate * factor,
            backbone_learning_rate=section.step_of_backbone * factor,
            weight_decay=section.weight_decay,
            epochs=section.local_epochs,
            batch_size=batch_size,
            gradient_clip=section.gradient_clip,
            proximal_mu=section.proximal_mu,
        )


def step_of_head(section: TrainingSection, network: Network, inputs: Inputs, num_samples: int) -> float:
    """Give the step size of the head, where nobody has said it, by the features of some of one's own samples.

    Parameters
    ----------
    section : TrainingSection
        The run's.
    network : Network
        Its backbone makes the features; it is put into evaluation mode.
    inputs : callable
        Gives the network's inputs of sample numbers (b,) int64.
    num_samples : int
        Number of samples n.

    Returns
    -------
    float
        See :meth:`TrainingSection.step_of_head`.
    """
    if section.learning_rate or not num_samples:
        return section.learning_rate
    numbers = torch.linspace(0, num_samples - 1, min(num_samples, SAMPLES_LOOKED_AT)).long()
    with torch.no_grad():
        features = network.eval().backbone(inputs(numbers))
    length = float(features.double().square().sum(dim=1).mean())
    return section.step_of_head(length, network.head.out_features, network.head.in_features)


def train(
    network: Network,
    inputs: Inputs,
    labels: Tensor,
    settings: LocalTraining,
    generator: torch.Generator,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> float:
    """Train a network on samples.

    Parameters
    ----------
    network : Network
        Is changed; in the end it is on the CPU and in evaluation mode.
    inputs : callable
        Gives the network's inputs of sample numbers (b,) int64.
    labels : Tensor of shape (n,), int64
        Class of each sample.
    settings : LocalTraining
        How.
    generator : Generator
        Decides the order of the samples.
    device : torch.device, optional
        Where to compute; the CPU unless given. A batch that its memory cannot hold is taken in parts.
    dtype : torch.dtype
        What the forward pass computes in.

    Returns
    -------
    float
        Mean cross-entropy over the last epoch, in nats, each batch's before its step.

    Raises
    ------
    UserError
        If there is no sample, the loss is not finite, or one sample alone does not fit into the device's memory.
    """
    if not len(labels):
        # An error and no reply of another kind, because Flower's own strategies take a reply for a network.
        raise Refusal(NO_SAMPLE)
    step = _Step(network, settings, device or torch.device("cpu"), dtype)
    network.to(step.device).train()
    loss = 0.0
    try:
        for _ in range(settings.epochs):
            loss = 0.0
            for batch in torch.split(torch.randperm(len(labels), generator=generator), settings.batch_size):
                loss += step(inputs(batch), labels[batch]) * len(batch) / len(labels)
    finally:
        network.to("cpu").eval()
    return loss


class _Step:
    """One step of the optimizer, in as many parts as the device's memory asks for."""

    def __init__(self, network: Network, settings: LocalTraining, device: torch.device, dtype: torch.dtype) -> None:
        self.network, self.settings, self.device, self.dtype = network, settings, device, dtype
        self.part_size = settings.batch_size
        network.to(device)
        self.parameters = _trained(network)
        self.start = [parameter.detach().clone() for parameter in self.parameters] if settings.proximal_mu else []
        self.optimizer = _optimizer(network, settings)

    def __call__(self, inputs: Tensor, labels: Tensor) -> float:
        """Step once, and give the batch's mean loss from before."""
        while True:
            try:
                loss = self._backward(inputs, labels)
                break
            except torch.OutOfMemoryError as error:
                self._halve(error, len(labels))
        if not math.isfinite(loss):
            raise UserError(
                "Its training diverged, the loss is not finite: lower learning-rate, or set gradient-clip."
            )
        if self.settings.gradient_clip:
            nn.utils.clip_grad_norm_(self.parameters, self.settings.gradient_clip)
        self.optimizer.step()
        return loss

    def _backward(self, inputs: Tensor, labels: Tensor) -> float:
        self.optimizer.zero_grad()
        total = 0.0
        for part, wanted in zip(*(torch.split(t, self.part_size) for t in (inputs, labels)), strict=True):
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                logits = self.network(part.to(self.device))
                loss = cross_entropy(logits.float(), wanted.to(self.device)) * (len(wanted) / len(labels))
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        for parameter, start in zip(self.parameters, self.start, strict=bool(self.start)):
            # The gradient of mu / 2 |w - start|^2.
            assert parameter.grad is not None
            parameter.grad.add_(parameter.detach() - start, alpha=self.settings.proximal_mu)
        return total

    def _halve(self, error: torch.OutOfMemoryError, batch_size: int) -> None:
        if min(self.part_size, batch_size) <= 1:
            raise UserError(
                f"One sample does not fit into the memory of {self.device}: set a smaller image-size or backbone."
            ) from error
        self.part_size = min(self.part_size, batch_size) // 2
        logger.warning("%s is out of memory: parts of %d from here on.", self.device, self.part_size)
        torch.cuda.empty_cache()


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def _optimizer(network: Network, settings: LocalTraining) -> torch.optim.Optimizer:
    groups = [{"params": _trained(network.head), "lr": settings.learning_rate}]
    if backbone := _trained(network.backbone):
        groups.append({"params": backbone, "lr": settings.backbone_learning_rate})
    if settings.optimizer == ADAMW:
        return torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    return torch.optim.SGD(groups, weight_decay=settings.weight_decay)
