"""What a run knows of its classes from their names."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from fedcof.data.problem import Sampled, problem_of
from fedcof.embedding.prompts import templates
from fedcof.embedding.section import BY_CLIP, EmbeddingSection
from fedcof.errors import UserError
from fedcof.methods.section import MethodSection

if TYPE_CHECKING:
    from torch import Tensor

    from fedcof.heads.text_prior import TextPrior


class Named(Sampled, Protocol):
    """What says how class names are read, beside what says which samples a run has."""

    @property
    def method(self) -> MethodSection:
        """What is made of the uploads."""


def prior_of(config: Named) -> TextPrior | None:
    """Read a run's class names.

    Parameters
    ----------
    config : Named
        The run's sections on data, embedding and method.

    Returns
    -------
    TextPrior or None
        None where nothing is to be made of them.

    Raises
    ------
    UserError
        If the extra that reads them is not installed, or the backbone does not tell how names lie in its features.
    """
    section, embedding = config.method, config.embedding
    if not embedding.has_prior or not section.chosen.takes_prior:
        return None
    if config.data.is_precomputed:
        raise UserError(
            f"The features come from {config.data.encoder or config.data.dataset!r} and not from a backbone, so "
            "nobody knows how class names lie in them: set text-prior to none, or run on images."
        )
    from fedcof.heads.linear import unit_length
    from fedcof.heads.text_prior import TextPrior

    problem = problem_of(config)
    read = _by_clip if embedding.text_prior == BY_CLIP else _by_names
    prototypes = read(problem.class_names, embedding, problem.feature_dim)
    if embedding.text_prior == BY_CLIP and section.chosen.takes_head and len(prototypes) > 1:
        # Texts and images lie apart in CLIP's space: only how texts differ tells how images do.
        prototypes = unit_length(prototypes - prototypes.mean(dim=0))
    return TextPrior(prototypes, section.prior_samples, section.prior_directions, section.unheld_risk)


@lru_cache(maxsize=4)
def _by_names(names: tuple[str, ...], embedding: EmbeddingSection, dimension: int) -> Tensor:
    from fedcof.embedding.name_prototypes import name_prototypes

    said = templates(embedding.prompt)
    return name_prototypes(names, said, embedding.backbone, embedding.weights, dimension)


@lru_cache(maxsize=4)
def _by_clip(names: tuple[str, ...], embedding: EmbeddingSection, dimension: int) -> Tensor:
    from fedcof.embedding.clip_text import clip_text_prototypes
    from fedcof.embedding.transform import transformed
    from fedcof.heads.linear import unit_length

    said = templates(embedding.prompt)
    prototypes = clip_text_prototypes(embedding.backbone, embedding.weights, names, said).prototypes
    return unit_length(transformed(prototypes, embedding.feature_transform))
