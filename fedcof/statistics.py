"""What a client uploads: class means or feature moments, how they are computed, and what makes them valid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fedcof.errors import UserError

# More than any federation has, and little enough that no sum of them overflows.
MOST_SAMPLES = 10**8


class ClassMeanRows(Protocol):
    """Rows of class means, in whatever form they are held; the fields are those of :class:`ClassMeans`."""

    @property
    def class_ids(self) -> Tensor:
        """Class of each row: shape (R,), int64."""

    @property
    def counts(self) -> Tensor:
        """Number of samples behind each row: shape (R,), int64."""

    @property
    def noise(self) -> Tensor | None:
        """Variance of known noise in every coordinate of each row: shape (R,), floating point."""

    @property
    def means(self) -> Tensor:
        """Mean feature vectors, decoded all at once: shape (R, d), floating point."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of the decoded means."""

    @property
    def num_rows(self) -> int:
        """Number of rows R."""

    @property
    def feature_dim(self) -> int:
        """Dimension d of the feature vectors."""

    def rows(self, block: slice) -> Tensor:
        """Decode the means of some rows alone: shape (rows of the block, d)."""

    def check_fits(self, num_classes: int, feature_dim: int) -> None:
        """Check the rows against the problem they are meant for."""


@dataclass(frozen=True, eq=False)
class ClassMeans:
    """The class means of one client, or of several put together.

    Row r is the mean feature vector of ``counts[r]`` samples of class ``class_ids[r]``. A class may have several
    rows: one from each client that holds it, or one from each of a client's groups.

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
        check_classes(self.class_ids, self.counts)
        _check_vectors("means", self.means, len(self.class_ids))
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


@dataclass(frozen=True, eq=False)
class FeatureMoments:
    """The second-order statistics of one client (Fed3R, ICML 2024): class sums and the Gram matrix.

    Parameters
    ----------
    class_ids : Tensor of shape (R,), int64
        Classes that the client holds, counted from 0, each once.
    counts : Tensor of shape (R,), int64
        Number of samples of each, at least 1.
    sums : Tensor of shape (R, d), floating point
        Sum of the feature vectors of each class.
    gram : Tensor of shape (d (d + 1) / 2,), floating point
        Upper triangle, row by row, of the Gram matrix F^T F of all the client's feature vectors.

    Raises
    ------
    UserError
        If a field has the wrong shape or type or holds what it cannot. The message names the field.
    """

    class_ids: Tensor
    counts: Tensor
    sums: Tensor
    gram: Tensor

    def __post_init__(self) -> None:
        check_classes(self.class_ids, self.counts)
        _check_vectors("sums", self.sums, len(self.class_ids))
        require(self.gram.is_floating_point(), "gram", "a floating-point type", self.gram.dtype)
        entries = self.feature_dim * (self.feature_dim + 1) // 2
        require(self.gram.shape == (entries,), "gram", f"{entries} entries", self.gram.shape)
        require(bool(self.gram.isfinite().all()), "gram", "finite numbers", "NaN or infinity")

    @property
    def feature_dim(self) -> int:
        """Dimension d of the feature vectors."""
        return self.sums.shape[1]

    def check_fits(self, num_classes: int, feature_dim: int) -> None:
        """Check the statistics against the problem they are meant for; see :meth:`ClassMeans.check_fits`."""
        require(self.feature_dim == feature_dim, "sums", f"dimension {feature_dim}", self.feature_dim)
        _check_class_range(self.class_ids, num_classes)


def concatenate(uploads: Sequence[ClassMeanRows]) -> ClassMeans:
    """Put the rows of several uploads under one another, in the order given.

    Parameters
    ----------
    uploads : sequence of ClassMeans or EncodedClassMeans
        At least one, all of the same feature dimension.

    Returns
    -------
    ClassMeans
        All rows; a class that several uploads describe keeps all its rows.
    """
    noises = [upload.noise for upload in uploads]
    if any(noise is not None for noise in noises):
        rows = [upload.num_rows for upload in uploads]
        kept = [torch.zeros(n) if noise is None else noise for n, noise in zip(rows, noises, strict=True)]
        noise = torch.cat(kept)
    else:
        noise = None
    return ClassMeans(
        class_ids=torch.cat([upload.class_ids for upload in uploads]),
        counts=torch.cat([upload.counts for upload in uploads]),
        means=torch.cat([upload.means for upload in uploads]),
        noise=noise,
    )


def class_means(
    features: Tensor, labels: Tensor, groups: int = 1, generator: torch.Generator | None = None
) -> ClassMeans:
    """Compute a client's class means (FedCOF, arXiv 2412.14326).

    With ``groups`` above 1 the samples of each class are split at random into that many disjoint groups, as equal
    in size as can be, and every group gives a row of its own; a class with fewer samples than groups gives one row
    per sample. The sums are taken in float64 and the means returned in float32.

    Parameters
    ----------
    features : Tensor of shape (n, d), floating point
        Feature vectors of the client's samples.
    labels : Tensor of shape (n,), integer
        Class of each sample, counted from 0.
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
        If the shapes do not belong together, ``groups`` is below 1, or a feature is not finite.
    """
    check_samples(features, labels)
    if groups < 1:
        raise UserError(f"groups is {groups}, but a class needs at least one: use groups=1 or more.")
    labels = labels.to(torch.int64)
    row_keys = labels * groups + _group_of_each_sample(labels, groups, generator)
    keys, row_of_sample, counts = torch.unique(row_keys, return_inverse=True, return_counts=True)
    sums = torch.zeros(len(keys), features.shape[1], dtype=torch.float64)
    sums.index_add_(0, row_of_sample, features.to(torch.float64))
    means = (sums / counts[:, None]).to(torch.float32)
    return ClassMeans(class_ids=keys.div(groups, rounding_mode="floor"), counts=counts, means=means)


def feature_moments(features: Tensor, labels: Tensor) -> FeatureMoments:
    """Compute a client's class sums and Gram matrix (Fed3R, Fani et al., ICML 2024).

    Parameters
    ----------
    features : Tensor of shape (n, d), floating point
        Feature vectors of the client's samples.
    labels : Tensor of shape (n,), integer
        Class of each sample, counted from 0.

    Returns
    -------
    FeatureMoments
        In float32, summed in float64.

    Raises
    ------
    UserError
        If the shapes do not belong together or a feature is not finite.
    """
    check_samples(features, labels)
    exact = features.to(torch.float64)
    class_ids, row_of_sample, counts = torch.unique(labels.to(torch.int64), return_inverse=True, return_counts=True)
    sums = torch.zeros(len(class_ids), features.shape[1], dtype=torch.float64)
    sums.index_add_(0, row_of_sample, exact)
    rows, columns = torch.triu_indices(features.shape[1], features.shape[1])
    gram = (exact.T @ exact)[rows, columns]
    return FeatureMoments(class_ids, counts, sums.to(torch.float32), gram.to(torch.float32))


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


def check_samples(features: Tensor, labels: Tensor) -> None:
    """Check that features and labels belong together.

    Parameters
    ----------
    features : Tensor of shape (n, d), floating point
        Feature vectors.
    labels : Tensor of shape (n,), integer
        One number for each.

    Raises
    ------
    UserError
        If their shapes say otherwise.
    """
    require(features.dim() == 2, "features", "the shape (samples, feature dimension)", features.shape)
    require(labels.shape == features.shape[:1], "labels", "one label per sample", labels.shape)


def check_problem(upload: ClassMeanRows, num_classes: int, feature_dim: int) -> None:
    """Check rows against the problem they are meant for; see :meth:`ClassMeans.check_fits`."""
    require(upload.feature_dim == feature_dim, "means", f"dimension {feature_dim}", upload.feature_dim)
    _check_class_range(upload.class_ids, num_classes)


def check_classes(class_ids: Tensor, counts: Tensor) -> None:
    """Check the classes and counts of an upload's rows.

    Parameters
    ----------
    class_ids, counts : Tensor of shape (R,), int64
        As in :class:`ClassMeans`.

    Raises
    ------
    UserError
        If a shape, a type or a value is not valid. The message names the field.
    """
    require(class_ids.dim() == 1, "class_ids", "one dimension", class_ids.shape)
    require(counts.shape == class_ids.shape, "counts", "one count per row", counts.shape)
    require(class_ids.dtype == torch.int64, "class_ids", "type int64", class_ids.dtype)
    require(counts.dtype == torch.int64, "counts", "type int64", counts.dtype)
    require(bool((class_ids >= 0).all()), "class_ids", "ids from 0", _smallest(class_ids))
    require(bool((counts >= 1).all()), "counts", "at least 1 sample a row", _smallest(counts))
    most = int(counts.max()) if len(counts) else 0
    require(most <= MOST_SAMPLES, "counts", f"at most {MOST_SAMPLES:,} samples a row", most)


def _check_vectors(field: str, vectors: Tensor, num_rows: int) -> None:
    require(vectors.dim() == 2, field, "the shape (rows, feature dimension)", vectors.shape)
    require(len(vectors) == num_rows, field, "one vector per row", vectors.shape)
    require(vectors.is_floating_point(), field, "a floating-point type", vectors.dtype)
    require(bool(vectors.isfinite().all()), field, "finite numbers", "NaN or infinity")


def _check_class_range(class_ids: Tensor, num_classes: int) -> None:
    require(bool((class_ids < num_classes).all()), "class_ids", f"ids below {num_classes}", "a larger one")


def _smallest(values: Tensor) -> int:
    return int(values.min()) if len(values) else 0


def require(holds: bool, field: str, expected: str, found: object) -> None:
    """Refuse a field of an upload that is not what it must be.

    Parameters
    ----------
    holds : bool
        Whether it is.
    field : str
        Its name.
    expected : str
        What it must have, in words.
    found : object
        What it has.

    Raises
    ------
    UserError
        If it does not hold.
    """
    if not holds:
        found = tuple(found) if isinstance(found, torch.Size) else found
        raise UserError(f"The field {field} must have {expected}, but has {found}: check what was uploaded.")
