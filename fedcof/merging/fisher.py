"""Updates weighed by how much each client's likelihood minds: a Fisher-weighted mean in the span of the updates."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from fedcof.merging.matrices import as_tensor
from fedcof.merging.merge import Arrays, Merge, Merged, MergeOptions, Update, as_float32

RIDGE = 1e-6
"""What is added to the projected curvature, as a share of its mean eigenvalue."""


class Fisher(Merge):
    r"""A mean of clients' networks in the metric of their Fisher information, in the subspace of their updates.

    After EpiMer (Lu et al., "Model Merging on Loss Landscape: A Geometry Perspective", 2026), of which no code is
    public. Client t's loss is taken to be 1/2 (theta - theta_t)^T F_t (theta - theta_t), with its diagonal
    empirical Fisher information F_t. Every client's update, cut into ``parts`` blocks of consecutive arrays, gives
    atoms, the columns of D; theta = start + D z, and z minimises the mean of the losses:

    .. math:: \bar H z = \sum_t p_t H_t \delta_t, \qquad H_t = D^T F_t D, \quad \bar H = \sum_t p_t H_t

    with delta_t the ones at client t's own atoms, since theta_t = start + D delta_t.

    From the paper: the subspace of the updates, curvature as the metric, and the closed form. Reconstructed: the
    diagonal empirical Fisher information in the place of the expected Hessian; updates themselves as atoms, not
    singular vectors of them; blocks of arrays of about equal size (an array is never divided, so that there may be
    fewer blocks than asked for); shares of samples as weights; and a ridge of 1e-6 of the mean eigenvalue, towards
    z = p. Where the Fisher information says nothing, the result is therefore the plain mean.

    Because the F_t are diagonal, Hbar = D^T (sum_t p_t F_t) D falls apart into one T x T system a block, and the
    right hand side is D^T sum_t p_t F_t Delta_t: it is the entrywise Fisher-weighted mean (Matena and Raffel,
    2022), projected on the span. So it holds T clients' arrays and two float64 sums of a network's size, but no
    client's Fisher information; while it merges, one array of all clients as float64, twice. All arrays are vectors
    to it, adapters' factors too. It takes no scale, and a factor multiplies the update of every array.
    """

    NAME: ClassVar[str] = "fisher"
    STREAMS: ClassVar[bool] = False
    TAKES_SCALE: ClassVar[bool] = False
    NEEDS_FISHER: ClassVar[bool] = True

    def __init__(self, start: Arrays, options: MergeOptions) -> None:
        super().__init__(start, options)
        self._held: list[tuple[int, Arrays]] = []
        self._curvature = {name: torch.zeros(array.size, dtype=torch.float64) for name, array in start.items()}
        self._pull = {name: torch.zeros(array.size, dtype=torch.float64) for name, array in start.items()}

    def _take(self, update: Update) -> None:
        assert update.fisher is not None
        self._held.append((update.samples, {name: update.arrays[name] for name in self.start}))
        for name, start in self.start.items():
            fisher = as_tensor(update.fisher[name]).flatten() * update.samples
            self._curvature[name] += fisher
            self._pull[name] += fisher * (as_tensor(update.arrays[name]) - as_tensor(start)).flatten()

    def _merged(self, factor: float) -> Merged:
        arrays = {}
        for names in blocks_of(self.start, self.options.parts):
            weights = self._weights(names)
            for name in names:
                update = (weights @ self._atoms(name)).numpy().reshape(self.start[name].shape)
                arrays[name] = as_float32(self.start[name] + factor * update).reshape(update.shape)
        return Merged({name: arrays[name] for name in self.start})

    def _atoms(self, name: str) -> Tensor:
        """Give all clients' updates of an array, as the rows of a (T, size) matrix."""
        start = as_tensor(self.start[name])
        return torch.stack([(as_tensor(arrays[name]) - start).flatten() for _, arrays in self._held])

    def _weights(self, names: list[str]) -> Tensor:
        """Solve for the weights z (T,) of one block's atoms."""
        shares = torch.tensor([samples for samples, _ in self._held], dtype=torch.float64) / self.samples
        system, target = torch.zeros(len(shares), len(shares), dtype=torch.float64), torch.zeros_like(shares)
        for name in names:
            atoms = self._atoms(name)
            system += (atoms * self._curvature[name]) @ atoms.T
            target += atoms @ self._pull[name]
        ridge = RIDGE * float(system.trace()) / len(shares)
        if not ridge:
            return shares
        system.diagonal().add_(ridge)
        factor = torch.linalg.cholesky(system)
        return torch.cholesky_solve((target + ridge * shares).unsqueeze(1), factor).squeeze(1)


def blocks_of(arrays: Arrays, parts: int) -> list[list[str]]:
    """Cut a network into blocks of consecutive arrays of about equal size.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        The network.
    parts : int
        How many blocks, at least 1.

    Returns
    -------
    list of list of str
        Names in order. An array belongs to the block that its middle number is in; blocks without any are left out.
    """
    whole = max(sum(array.size for array in arrays.values()), 1)
    blocks: dict[int, list[str]] = {}
    before = 0
    for name, array in arrays.items():
        middle = (2 * before + array.size) * parts // (2 * whole)
        blocks.setdefault(min(middle, parts - 1), []).append(name)
        before += array.size
    return list(blocks.values())
