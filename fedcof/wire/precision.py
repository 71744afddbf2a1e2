"""Whether rows survive being written in a narrower type: what they differ by must not fall between its numbers.

A type of p bits has numbers that are 2^(1 - p) apart, relative to their size. Features of mean 1e6 and deviation
0.01 lie between two numbers of float32, which are 0.06 apart there: all rows would be sent as one, and the
covariance rebuilt from them would be zero without a word.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedcof.errors import UserError


def check_spread(means: Tensor, counts: Tensor, dtype: torch.dtype = torch.float32) -> None:
    """Refuse rows of which a narrower type would lose how they differ.

    Only rows of a wider type are looked at: what one of the same type has lost, it lost before.

    Parameters
    ----------
    means : Tensor of shape (R, d), floating point
        Mean feature vectors, as they were computed.
    counts : Tensor of shape (R,)
        Number of samples behind each.
    dtype : torch.dtype
        The type in which they are to be written.

    Raises
    ------
    UserError
        If in some coordinate the rows' standard deviation is above what their own rounding explains, and below the
        distance of two numbers of the narrower type.
    """
    if torch.finfo(means.dtype).eps >= torch.finfo(dtype).eps or len(means) < 2:
        return
    sizes, spread = means.abs().amax(dim=0), means.std(dim=0, correction=0)
    # A constant feature's means differ in their last bits, by as many as there are terms in the sum.
    rounding = sizes * torch.finfo(means.dtype).eps * (4 + counts.max().to(means.dtype))
    lost = (spread > rounding) & (spread < sizes * torch.finfo(dtype).eps)
    if bool(lost.any()):
        first = int(lost.nonzero()[0])
        name = str(dtype).removeprefix("torch.")
        raise UserError(
            f"The class means of feature {first} differ by {float(spread[first]):.3g} at a size of "
            f"{float(sizes[first]):.3g}, which {name} cannot tell apart: centre or scale the features first, by "
            "the same numbers on every client."
        )


def check_moments(sums: Tensor, gram: Tensor, num_samples: int, dtype: torch.dtype = torch.float32) -> None:
    """Refuse a Gram matrix of which a narrower type would lose how samples differ; see :func:`check_spread`.

    Parameters
    ----------
    sums : Tensor of shape (R, d), floating point
        Sums of the feature vectors of each class.
    gram : Tensor of shape (d (d + 1) / 2,), floating point
        Upper triangle of the Gram matrix, row by row.
    num_samples : int
        Samples behind it.
    dtype : torch.dtype
        The type in which they are to be written.

    Raises
    ------
    UserError
        If in some coordinate the variance is above what its own rounding explains, and below the distance of two
        numbers of the narrower type at the size of the mean square.
    """
    if torch.finfo(gram.dtype).eps >= torch.finfo(dtype).eps or num_samples < 2:
        return
    dim = sums.shape[1]
    # Row i of the triangle starts with its diagonal entry, and is d - i long.
    squares = gram[torch.arange(dim, 0, -1).cumsum(0) - torch.arange(dim, 0, -1)] / num_samples
    variance = squares - (sums.sum(dim=0) / num_samples).square()
    rounding = squares * torch.finfo(gram.dtype).eps * (4 + num_samples)
    lost = (variance > rounding) & (variance < squares * torch.finfo(dtype).eps)
    if bool(lost.any()):
        first = int(lost.nonzero()[0])
        name = str(dtype).removeprefix("torch.")
        raise UserError(
            f"Feature {first} has a variance of {float(variance[first]):.3g} at a mean square of "
            f"{float(squares[first]):.3g}, which {name} cannot tell apart: centre or scale the features first, by "
            "the same numbers on every client."
        )
