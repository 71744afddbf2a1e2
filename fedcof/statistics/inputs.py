"""What a user hands in as samples: tensors, arrays or lists, on any device, and labels that are whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcof.errors import UserError
from fedcof.statistics.validation import check_samples, require

Numbers = Tensor | NDArray[Any] | Sequence[Any]

# No federation has more classes, and keys made of a class and a group still fit into 64 bits.
MOST_CLASSES = 2**31


def as_tensor(values: Numbers, field: str) -> Tensor:
    """Take numbers in as a tensor, in the type they have.

    Parameters
    ----------
    values : Tensor, ndarray or sequence of numbers
        What a user gave. A list of Python's floats is float64, as in numpy.
    field : str
        Its name, for the error.

    Returns
    -------
    Tensor
        On the device they are on; without a copy where torch can read them as they are.

    Raises
    ------
    UserError
        If they are no real numbers, or rows of unequal length.
    """
    if isinstance(values, Tensor):
        require(not values.is_complex(), field, "real numbers", values.dtype)
        return values.detach() if values.requires_grad else values
    if isinstance(values, Sequence) and any(isinstance(value, Tensor) for value in values):
        values = [value.detach().cpu().numpy() if isinstance(value, Tensor) else value for value in values]
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise UserError(f"The field {field} has rows of unequal length: give each the same length.") from error
    require(array.dtype.kind in "biuf", field, "numbers", f"type {array.dtype}")
    if array.dtype.kind == "u" or array.dtype.itemsize > 8:
        # Torch lacks unsigned numbers above 8 bits, and floats above 64.
        array = array.astype(np.int64 if array.dtype.kind == "u" else np.float64)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    # Torch neither reads backwards nor knows of arrays that must not be written to.
    as_it_is = array.flags.writeable and all(stride >= 0 for stride in array.strides)
    return torch.from_numpy(array if as_it_is else array.copy())


def as_features(values: Numbers) -> Tensor:
    """Take feature vectors in, on the device they are on; whole numbers become float64, which holds them."""
    features = as_tensor(values, "features")
    return features if features.is_floating_point() else features.to(torch.float64)


def as_labels(values: Numbers) -> Tensor:
    """Take labels in, whatever type their whole numbers have.

    Parameters
    ----------
    values : Tensor, ndarray or sequence of shape (n,)
        Integers; floats that are whole, as a table's columns often are; or booleans, of which False is class 0.

    Returns
    -------
    Tensor of shape (n,), int64
        On the CPU.

    Raises
    ------
    UserError
        If one is no whole number, or negative.
    """
    labels = on_cpu(as_tensor(values, "labels"))
    if labels.is_floating_point():
        broken = ~(labels == labels.floor()) | labels.isinf()
        found = labels[broken][0].item() if bool(broken.any()) else None
        require(found is None, "labels", "whole numbers", found)
    if labels.dtype != torch.bool and labels.numel():
        smallest, largest = (extreme.item() for extreme in labels.aminmax())
        found = smallest if smallest < 0 else largest
        require(0 <= found < MOST_CLASSES, "labels", f"classes from 0 to below {MOST_CLASSES:,}", found)
    return labels.to(torch.int64)


def as_samples(features: Numbers, labels: Numbers) -> tuple[Tensor, Tensor]:
    """Take samples in, and check that they belong together; see :func:`as_features` and :func:`as_labels`."""
    vectors, classes = as_features(features), as_labels(labels)
    check_samples(vectors, classes)
    return vectors, classes


def as_whole_numbers(values: Numbers, field: str) -> Tensor:
    """Take an upload's classes or counts in, as int64 on the CPU; floats stay what they are, to be refused."""
    numbers = on_cpu(as_tensor(values, field))
    whole = not numbers.is_floating_point() and numbers.dtype != torch.bool
    return numbers.to(torch.int64) if whole else numbers


def on_cpu(values: Tensor) -> Tensor:
    """Bring numbers to where the server computes; at no cost where they are there, as once a client is often."""
    return values if values.is_cpu else values.cpu()


def in_float64(features: Tensor) -> Tensor:
    """Give features in float64 where they are; on the CPU where their device has no such type."""
    return (features.cpu() if features.device.type == "mps" else features).to(torch.float64)


def type_to_keep(features: Tensor) -> torch.dtype:
    """Tell the type of statistics of some features: float64 for float64, which may need it, else float32."""
    return torch.float64 if features.dtype == torch.float64 else torch.float32
