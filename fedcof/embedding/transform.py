"""What is done to features before they are averaged: nothing, the power transform, or unit length."""

from __future__ import annotations

from torch import Tensor, nn

from fedcof.embedding.section import L2, NO_TRANSFORM, POWER


def transformed(features: Tensor, transform: str) -> Tensor:
    """Transform feature vectors.

    Parameters
    ----------
    features : Tensor of shape (n, d), floating point
        As the backbone gives them.
    transform : {"none", "power", "l2"}
        ``power`` takes x to sign(x) |x|^(1/2) (Tukey's ladder), which brings the long tails of rectified features
        in; ``l2`` scales every vector to unit length, and leaves one of zeros.

    Returns
    -------
    Tensor of shape (n, d)
        In the same type; the same tensor where nothing is to be done.
    """
    if transform == NO_TRANSFORM:
        return features
    if transform == POWER:
        return features.sign() * features.abs().sqrt()
    if transform == L2:
        return nn.functional.normalize(features, dim=1)
    raise AssertionError(f"the section lets no {transform} through")


class FeatureTransform(nn.Module):
    """The same as a module, for a network that is exported.

    Parameters
    ----------
    transform : {"none", "power", "l2"}
        See :func:`transformed`.
    """

    def __init__(self, transform: str) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, features: Tensor) -> Tensor:
        """Transform feature vectors (n, d)."""
        return transformed(features, self.transform)

    def extra_repr(self) -> str:
        """Say which it is."""
        return self.transform
