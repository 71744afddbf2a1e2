"""Class means: one row for each class that a client holds, or several."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedcof.errors import UserError
from fedcof.statistics.inputs import (
    Numbers,
    as_samples,
    as_tensor,
    as_whole_numbers,
    in_float64,
    type_to_keep,
)
from fedcof.statistics.validation import check_classes, check_problem, check_vectors, require


@dataclass(frozen=True, eq=False)
class ClassMeans:
    """The class means of one client, or of several put together.

    Row r is the mean feature vector of ``counts[r]`` samples of class ``class_ids[r]``. A class may have several
    rows: one from each client that holds it, or one from each of a client's groups. Arrays and lists are taken for
    tensors, and all are brought to the CPU, where the server computes.

    Parameters
    ----------
    class_ids : Tensor of shape (R,), int64
        Class of each row, counted from 0.
    counts : Tensor of shape (R,), int64
        Number of samples behind each row, at least 1.
    means : Tensor of shape (R, d), floating point
        Mean feature vectors, in the backbone's units.
    noise : Tensor of shape (R,), floating point, optional
        Variance, in every coordinate of a row, of noise that was put on its mean on purpose and is independent of
        it, as by quantisation; none where it is missing.

    Raises
    ------
    UserError
        If a field has the wrong shape or type, a mean is not finite, a count is below 1 or a class id is negative.
        The message names the field.
    """

    class_ids: Tensor
    counts: Tensor
    means: Tensor
    noise: Tensor | None = None

    def __post_init__(self) -> None:
        for field in ("class_ids", "counts"):
            object.__setattr__(self, field, as_whole_numbers(getattr(self, field), field))
        for field in ("means", "noise"):
            if (values := getattr(self, field)) is not None:
                object.__setattr__(self, field, as_tensor(values, field).cpu())
        check_classes(self.class_ids, self.counts)
        check_vectors("means", self.means, len(self.class_ids))
        if self.noise is not None:
            require(self.noise.shape == self.class_ids.shape, "noise", "one variance per row", self.noise.shape)
            require(bool((self.noise >= 0).all()), "noise", "variances from 0", "another number")

    @property
    def num_rows(self) -> int:
        """Number of rows R."""
        return len(self.class_ids)

    @property
    def feature_dim(self) -> int:
        """Dimension d of the feature vectors."""
        return self.means.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Type of the means."""
        return self.means.dtype

    def rows(self, block: slice) -> Tensor:
        """Read the means of some rows, without a copy.

        Parameters
        ----------
        block : slice
            Which rows, with a start and a stop.

        Returns
        -------
        Tensor of shape (rows of the block, d), floating point
            Their means.
        """
        return self.means[block]

    def check_fits(self, num_classes: int, feature_dim: int) -> None:
        """Check the rows against the problem they are meant for.

        Parameters
        ----------
        num_classes : int
            Number of classes C; every id must be below it.
        feature_dim : int
            Dimension d that every mean must have.

        Raises
        ------
        UserError
            If a class id is out of range or the means have another dimension.
        """
        check_problem(self, num_classes, feature_dim)


def class_means(
    features: Numbers, labels: Numbers, groups: int = 1, generator: torch.Generator | None = None
) -> ClassMeans:
    """Compute a client's class means (FedCOF, arXiv 2412.14326).

    With ``groups`` above 1 the samples of each class are split at random into that many disjoint groups, as equal
    in size as can be, and every group gives a row of its own; a class with fewer samples than groups gives one row
    per sample. The sums are taken in float64, on the features' device. The means come to the CPU in float32, or in
    float64 for float64 features: far from the origin float32 has no room for how they scatter.

    Parameters
    ----------
    features : Tensor, ndarray or sequence of shape (n, d)
        Feature vectors of the client's samples.
    labels : Tensor, ndarray or sequence of shape (n,)
        Class of each sample, counted from 0; whole numbers of any type.
    groups : int
        Rows per class, at least 1.
    generator : torch.Generator, optional
        Source of the random groups. Without one, a generator with seed 0 is made for this call.

    Returns
    -------
    ClassMeans
        Rows ordered by class, then by group; none for classes that the client does not hold.

    Raises
    ------
    UserError
        If the shapes do not belong together, ``groups`` is below 1, a label is no whole number from 0, or a feature
        is not finite.
    """
    features, labels = as_samples(features, labels)
    if groups < 1:
        raise UserError(f"groups is {groups}, but a class needs at least one: use groups=1 or more.")
    row_keys = labels * groups + _group_of_each_sample(labels, groups, generator)
    keys, row_of_sample, counts = torch.unique(row_keys, return_inverse=True, return_counts=True)
    exact = in_float64(features)
    sums = torch.zeros(len(keys), exact.shape[1], dtype=torch.float64, device=exact.device)
    sums.index_add_(0, row_of_sample.to(exact.device), exact)
    means = (sums.cpu() / counts[:, None]).to(type_to_keep(features))
    return ClassMeans(class_ids=keys.div(groups, rounding_mode="floor"), counts=counts, means=means)


def _group_of_each_sample(labels: Tensor, groups: int, generator: torch.Generator | None) -> Tensor:
    """Deal each class's samples, in random order, to its groups in turn."""
    if groups == 1:
        return torch.zeros_like(labels)
    generator = generator or torch.Generator().manual_seed(0)
    shuffled = torch.randperm(len(labels), generator=generator)
    by_class = shuffled[torch.argsort(labels[shuffled], stable=True)]
    sorted_labels = labels[by_class]
    first_of_class = torch.searchsorted(sorted_labels, sorted_labels)
    group = torch.empty_like(labels)
    group[by_class] = (torch.arange(len(labels)) - first_of_class) % groups
    return group
