"""Class means: one row for each class that a client holds, or several."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from fedcof.errors import UserError
from fedcof.statistics.base import Statistics
from fedcof.statistics.inputs import (
    Numbers,
    as_samples,
    as_tensor,
    as_whole_numbers,
    in_float64,
    on_cpu,
    type_to_keep,
)
from fedcof.statistics.kinds import CLASS_MEANS
from fedcof.statistics.validation import check_classes, check_vectors, require


@dataclass(frozen=True, eq=False)
class ClassMeanRows(Statistics):
    """Rows of class means, in whatever form they are held.

    Row r is the mean feature vector of ``counts[r]`` samples of class ``class_ids[r]``. Every form has, as a field
    or a property, ``means`` (R, d), floating point, decoded all at once; and ``noise`` (R,), the variance of known
    noise in every coordinate of each row, or None.
    """

    KIND: ClassVar[str] = CLASS_MEANS
    VECTORS: ClassVar[str] = "means"
    MIXES_CLASSES: ClassVar[bool] = False

    if TYPE_CHECKING:

        @property
        def means(self) -> Tensor:
            """Mean feature vectors."""

        @property
        def noise(self) -> Tensor | None:
            """Variance of known noise."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Type of the decoded means."""

    @abstractmethod
    def rows(self, block: slice) -> Tensor:
        """Decode the means of some rows.

        Parameters
        ----------
        block : slice
            Which rows, with a start and a stop.

        Returns
        -------
        Tensor of shape (rows of the block, d), floating point
            Their means.
        """

    def withhold(self, smallest_count: int) -> tuple[ClassMeans, int]:
        """Leave out means of few samples; see :meth:`Statistics.withhold`."""
        enough = self.counts >= smallest_count
        noise = None if self.noise is None else self.noise[enough]
        kept = ClassMeans(self.class_ids[enough], self.counts[enough], self.means[enough], noise)
        return kept, int((~enough).sum())

    def sum_of_squares(self) -> float:
        """Sum over rows of n_r |m_r|^2; see :meth:`Statistics.sum_of_squares`."""
        rows = self.rows(slice(0, self.num_rows)).to(torch.float64)
        return float((self.counts.to(torch.float64) * rows.square().sum(dim=1)).sum())


@dataclass(frozen=True, eq=False)
class DecodedRows(ClassMeanRows):
    """Rows that are held in fewer bytes than float32, and become float32 when somebody reads them."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of the decoded means, float32."""
        return torch.float32

    @property
    def means(self) -> Tensor:
        """All means, decoded: shape (R, d), float32."""
        return self.rows(slice(0, self.num_rows))


@dataclass(frozen=True, eq=False)
class ClassMeans(ClassMeanRows):
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

    means: Tensor
    noise: Tensor | None = None

    def __post_init__(self) -> None:
        for field in ("class_ids", "counts"):
            object.__setattr__(self, field, as_whole_numbers(getattr(self, field), field))
        for field in ("means", "noise"):
            if (values := getattr(self, field)) is not None:
                object.__setattr__(self, field, on_cpu(as_tensor(values, field)))
        check_classes(self.class_ids, self.counts)
        check_vectors("means", self.means, len(self.class_ids))
        if self.noise is not None:
            require(self.noise.shape == self.class_ids.shape, "noise", "one variance per row", self.noise.shape)
            require(bool((self.noise >= 0).all()), "noise", "variances from 0", "another number")

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
    return means_of_groups(features, labels, _group_of_each_sample(labels, groups, generator), groups)


def means_of_groups(features: Tensor, labels: Tensor, group_of_sample: Tensor, groups: int) -> ClassMeans:
    """Average each group of each class; see :func:`class_means`.

    Parameters
    ----------
    features : Tensor of shape (n, d), floating point
        Feature vectors.
    labels, group_of_sample : Tensor of shape (n,), int64
        Class and group of each sample, both counted from 0.
    groups : int
        More than any group's number.

    Returns
    -------
    ClassMeans
        A row for each group that has a sample, ordered by class, then by group.
    """
    row_keys = labels * groups + group_of_sample
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
