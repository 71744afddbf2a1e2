"""What the server maps a CLIP tower's features by before it solves: IsoCLIP's projection, if it is asked for."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from fedcof.data.problem import Sampled
from fedcof.embedding.clip_names import parsed
from fedcof.embedding.section import ISO, EmbeddingSection
from fedcof.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def projection_of(config: Sampled) -> Tensor | None:
    """Make the matrix that class means are multiplied by.

    Parameters
    ----------
    config : Sampled
        The run's sections on data and embedding.

    Returns
    -------
    Tensor of shape (d, k), float64, or None
        None where features are taken as clients send them.

    Raises
    ------
    UserError
        If the model cannot be had, or nobody has published what IsoCLIP leaves out of it and the run does not say.
    """
    return _isoclip(config.embedding) if config.embedding.clip_projection == ISO else None


@lru_cache(maxsize=2)
def _isoclip(embedding: EmbeddingSection) -> Tensor:
    from fedcof.embedding.clip_models import clip_projectors
    from fedcof.embedding.clip_projection import projection_matrix, published_cut

    cut: tuple[int, int] | None = embedding.clip_cut_top, embedding.clip_cut_bottom
    if cut == (0, 0):
        name = parsed(embedding.backbone)
        cut = published_cut(name.architecture, name.tag)
    if cut is None:
        raise UserError(
            f"Nobody has published how many directions IsoCLIP leaves out of {embedding.backbone}: set "
            "clip-cut-top and clip-cut-bottom, or name the weights after a slash, if OpenAI's or DataComp's."
        )
    projectors = clip_projectors(embedding.backbone, embedding.weights)
    return projection_matrix(ISO, projectors.image, projectors.text, *cut)
