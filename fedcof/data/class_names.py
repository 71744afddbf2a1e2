"""What a run knows of its classes from their names."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from fedcof.data.problem import Sampled, problem_of
from fedcof.errors import UserError
from fedcof.methods.section import NO_PRIOR, MethodSection

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
    section = config.method
    if section.text_prior == NO_PRIOR or not section.chosen.takes_prior:
        return None
    if config.data.is_precomputed:
        raise UserError(
            f"The features come from {config.data.encoder or config.data.dataset!r} and not from a backbone, so "
            "nobody knows how class names lie in them: set text-prior to none, or run on images."
        )
    from fedcof.heads.text_prior import TextPrior

    problem, embedding = problem_of(config), config.embedding
    prototypes = _name_prototypes(
        problem.class_names, section.prompt, embedding.backbone, embedding.weights, problem.feature_dim
    )
    return TextPrior(prototypes, section.prior_samples, section.prior_directions, section.unheld_risk)


@lru_cache(maxsize=4)
def _name_prototypes(names: tuple[str, ...], prompt: str, backbone: str, weights: str, dimension: int) -> Tensor:
    from fedcof.embedding.name_prototypes import name_prototypes

    return name_prototypes(names, prompt, backbone, weights, dimension)
