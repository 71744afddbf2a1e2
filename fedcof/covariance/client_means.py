"""One mean for each client and class, of however many rows: what clients can be compared by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedcof.covariance.blocks import class_sums
from fedcof.statistics.class_means import ClassMeanRows


@dataclass(frozen=True, eq=False)
class ClientMeans:
    """The mean of every client's samples of every class that it holds, R of them.

    Attributes
    ----------
    sources : Tensor of shape (K,), int64
        Numbers of the clients that have any, in ascending order.
    clients : Tensor of shape (R,), int64
        Client of each mean, by its place in ``sources``.
    class_ids : Tensor of shape (R,), int64
        Class of each.
    counts : Tensor of shape (R,), float64
        Samples behind each, as the client says.
    means : Tensor of shape (R, d), float32 or float64
        The means, from a centre that all share, so that features far from the origin lose no digits.
    noise : Tensor of shape (R,), float64
        Variance of known noise in every coordinate of each.
    num_classes : int
        Number of classes C.
    """

    sources: Tensor
    clients: Tensor
    class_ids: Tensor
    counts: Tensor
    means: Tensor
    noise: Tensor
    num_classes: int

    @property
    def num_clients(self) -> int:
        """Number of clients K."""
        return len(self.sources)

    @property
    def feature_dim(self) -> int:
        """Dimension d."""
        return self.means.shape[1]

    def with_means(self, means: Tensor) -> ClientMeans:
        """Give the same with other vectors (R, d'), as of a linear map of these."""
        return replace(self, means=means)

    def sum_by_class(self, values: Tensor) -> Tensor:
        """Add values (R,) up by class: shape (C,), float64."""
        return torch.zeros(self.num_classes, dtype=torch.float64).index_add_(0, self.class_ids, values.double())

    def sum_by_client(self, values: Tensor) -> Tensor:
        """Add values (R,) up by client: shape (K,), float64."""
        return torch.zeros(self.num_clients, dtype=torch.float64).index_add_(0, self.clients, values.double())

    def class_means(self, taken: Tensor) -> Tensor:
        """Average those means that are taken (R,), bool, weighted by counts: shape (C, d), zero without any."""
        weights = self.counts * taken
        sums = class_sums(self.means, self.class_ids, weights, self.num_classes)
        return sums / self.sum_by_class(weights).clamp(min=1e-300).to(sums.dtype)[:, None]


def client_means(uploads: Mapping[int, ClassMeanRows], num_classes: int) -> ClientMeans:
    """Average each client's rows of each class.

    Parameters
    ----------
    uploads : mapping of int to ClassMeanRows
        By the number of their client; those without a row have no part in it.
    num_classes : int
        Number of classes C.

    Returns
    -------
    ClientMeans
        Ordered by client, then by class.
    """
    sources = sorted(source for source, upload in uploads.items() if upload.num_rows)
    kept = [uploads[source] for source in sources]
    dtype = torch.float64 if any(upload.dtype == torch.float64 for upload in kept) else torch.float32
    clients, ids, counts, noises, means = [], [], [], [], []
    for place, upload in enumerate(kept):
        own, row_of = torch.unique(upload.class_ids, return_inverse=True)
        samples = upload.counts.double()
        total = torch.zeros(len(own), dtype=torch.float64).index_add_(0, row_of, samples)
        rows = upload.rows(slice(0, upload.num_rows)).to(dtype)
        sums = torch.zeros(len(own), upload.feature_dim, dtype=dtype)
        sums.index_add_(0, row_of, rows * samples.to(dtype)[:, None])
        noise = torch.zeros(len(own), dtype=torch.float64)
        if upload.noise is not None:
            noise.index_add_(0, row_of, samples.square() * upload.noise.double())
        clients.append(torch.full_like(own, place))
        ids.append(own)
        counts.append(total)
        means.append(sums / total.to(dtype)[:, None])
        noises.append(noise / total.square())
    together = torch.cat(means)
    together -= together.mean(dim=0)
    return ClientMeans(
        sources=torch.tensor(sources),
        clients=torch.cat(clients),
        class_ids=torch.cat(ids),
        counts=torch.cat(counts),
        means=together,
        noise=torch.cat(noises),
        num_classes=num_classes,
    )
