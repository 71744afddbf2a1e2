"""FedNCM, FedCOF and Fed3R as Flower strategies, with keyword arguments of their own."""

from __future__ import annotations

from typing import Unpack

from fedcof.methods.section import MethodSection
from server.one_shot import OneShotStrategy
from server.participation import Participation


class FedNCMStrategy(OneShotStrategy):
    """Nearest class mean (arXiv 2306.03937) as a Flower strategy.

    Parameters
    ----------
    num_classes, feature_dim : int
        Size of the classifier.
    **participation
        See :class:`Participation`; one that is misspelt is a TypeError.
    """

    def __init__(self, num_classes: int, feature_dim: int, **participation: Unpack[Participation]) -> None:
        super().__init__(MethodSection(name="fedncm"), num_classes, feature_dim, **participation)


class FedCOFStrategy(OneShotStrategy):
    """Covariances for free (arXiv 2412.14326) as a Flower strategy.

    Parameters
    ----------
    num_classes, feature_dim : int
        Size of the classifier.
    estimator, shrinkage, head
        See :class:`fedcof.FedCOF`.
    pooled_share, class_directions
        See :class:`fedcof.heads.regularised.RegularisedDiscriminant`; for the head ``quadratic``.
    **participation
        See :class:`Participation`; one that is misspelt is a TypeError.
    """

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        estimator: str = "per-class",
        shrinkage: float | str = "leave-one-out",
        head: str = "ridge",
        pooled_share: float = 0.96,
        class_directions: int = 5,
        **participation: Unpack[Participation],
    ) -> None:
        section = MethodSection(
            name="fedcof",
            estimator=estimator,
            shrinkage=shrinkage,
            head=head,
            pooled_share=pooled_share,
            class_directions=class_directions,
        )
        super().__init__(section, num_classes, feature_dim, **participation)


class Fed3RStrategy(OneShotStrategy):
    """Ridge regression on federated second-order statistics (ICML 2024) as a Flower strategy.

    Parameters
    ----------
    num_classes, feature_dim : int
        Size of the classifier.
    penalty : float
        See :class:`fedcof.Fed3R`.
    **participation
        See :class:`Participation`; one that is misspelt is a TypeError.
    """

    def __init__(
        self, num_classes: int, feature_dim: int, penalty: float = 0.01, **participation: Unpack[Participation]
    ) -> None:
        section = MethodSection(name="fed3r", ridge_penalty=penalty)
        super().__init__(section, num_classes, feature_dim, **participation)


# As a Flower app imports them, where no aggregator of the same name is near.
FedNCM, FedCOF, Fed3R = FedNCMStrategy, FedCOFStrategy, Fed3RStrategy
