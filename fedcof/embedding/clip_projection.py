r"""Linear maps of a CLIP image tower's features: its own projector, or the part of it that images share.

With P_i (d, k) the image projector and P_t (w, k) the text projector, features x (rows) are projected as x P_i.
IsoCLIP (Magistri et al., arXiv 2603.19862) decomposes

.. math:: \Psi = P_i P_t^T = U S V^T

and leaves out of U the columns that the two modalities have most and least in common: with U_S its columns from
``top`` to r - ``bottom``, r = min(d, w, k),

.. math:: \hat P_i = U_S U_S^T P_i.

That has rank r - top - bottom only, so the same inner products are had in as many coordinates: those of the matrix
A D, where A D B^T is its singular value decomposition at that rank. Every map here is linear, so that means and
covariances can be mapped after they were sent. It is for comparing images with images, never images with texts.
"""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor

from fedcof.embedding.section import CLIP_PROJECTIONS, FULL, ISO, NO_PROJECTION
from fedcof.errors import UserError, unknown_name

_QUICK, _OPENAI, _DATACOMP = "-quickgelu", "openai", "datacomp_xl_s13b_b90k"
# (columns left out at the top, and at the bottom), by architecture and weights as open_clip names them.
PUBLISHED_CUTS = MappingProxyType(
    {
        ("ViT-B-32", _OPENAI): (150, 50),
        ("ViT-B-16", _OPENAI): (200, 50),
        ("ViT-L-14", _OPENAI): (250, 200),
        ("ViT-B-32", _DATACOMP): (50, 50),
        ("ViT-B-16", _DATACOMP): (100, 100),
    }
)


def published_cut(architecture: str, tag: str) -> tuple[int, int] | None:
    """Look up how many columns IsoCLIP leaves out of a model's U.

    Parameters
    ----------
    architecture, tag : str
        The model and its weights as open_clip names them, for example ``ViT-B-32-quickgelu`` and ``openai``.

    Returns
    -------
    tuple of (int, int) or None
        At the top and at the bottom; None where nobody has published it.
    """
    return PUBLISHED_CUTS.get((architecture.removesuffix(_QUICK), tag))


def projection_matrix(
    kind: str, image_projector: Tensor, text_projector: Tensor | None = None, top: int = 0, bottom: int = 0
) -> Tensor:
    """Make the matrix that takes features before the image projector to what they are compared in.

    Parameters
    ----------
    kind : {"none", "full", "iso"}
        The identity, the image projector itself, or IsoCLIP's in reduced coordinates.
    image_projector : Tensor of shape (d, k)
        P_i; rows of features are multiplied by it from the right.
    text_projector : Tensor of shape (w, k), optional
        P_t, which ``iso`` alone needs.
    top, bottom : int
        Columns of U that ``iso`` leaves out: those of the largest, and those of the smallest singular values.

    Returns
    -------
    Tensor of shape (d, d), (d, k) or (d, r - top - bottom), float64
        In reduced coordinates a column's largest entry is positive, and columns are ordered by falling length.

    Raises
    ------
    UserError
        If the kind is unknown, or no column of U is left.
    ValueError
        If the projectors do not end in one space.
    """
    image = image_projector.to(torch.float64)
    if kind == NO_PROJECTION:
        return torch.eye(len(image), dtype=torch.float64, device=image.device)
    if kind == FULL:
        return image.clone()
    if kind != ISO:
        raise unknown_name("projection", kind, CLIP_PROJECTIONS)
    if text_projector is None or text_projector.shape[1] != image.shape[1]:
        raise ValueError("IsoCLIP needs a text projector that ends in the space of the image projector.")
    left = _shared_directions(image, text_projector.to(torch.float64), top, bottom)
    # U_S U_S^T P_i has the singular values and right vectors of the small U_S^T P_i.
    vectors, lengths, _ = torch.linalg.svd(left.T @ image, full_matrices=False)
    matrix: Tensor = left @ (vectors * lengths)
    largest = matrix.gather(0, matrix.abs().argmax(dim=0, keepdim=True))
    matrix *= torch.where(largest < 0, -1.0, 1.0)
    return matrix


def _shared_directions(image: Tensor, text: Tensor, top: int, bottom: int) -> Tensor:
    """Give U_S, shape (d, r - top - bottom)."""
    rank = min(*image.shape, *text.shape)
    if top < 0 or bottom < 0 or top + bottom >= rank:
        raise UserError(
            f"Of the {rank} directions that images and texts share, {top} at the top and {bottom} at the bottom "
            "cannot be left out: leave out fewer, and at least one direction in."
        )
    left: Tensor = torch.linalg.svd(image @ text.T, full_matrices=False)[0]
    return left[:, top : rank - bottom]
