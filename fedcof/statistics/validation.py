"""What makes statistics valid: shapes, types and ranges, each with a sentence for what is not."""

from __future__ import annotations

import torch
from torch import Tensor

from fedcof.errors import UserError

# More than any federation has, and little enough that no sum of them overflows.
MOST_SAMPLES = 10**8


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


def check_vectors(field: str, vectors: Tensor, num_rows: int) -> None:
    """Check an upload's vectors, one a row and all finite; raises UserError that names the field."""
    require(vectors.dim() == 2, field, "the shape (rows, feature dimension)", vectors.shape)
    require(len(vectors) == num_rows, field, "one vector per row", vectors.shape)
    require(vectors.is_floating_point(), field, "a floating-point type", vectors.dtype)
    require(bool(vectors.isfinite().all()), field, "finite numbers", "NaN or infinity")


def check_class_range(class_ids: Tensor, num_classes: int) -> None:
    """Check that every class is one of the federation's; raises UserError."""
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
