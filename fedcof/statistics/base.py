"""What every kind of statistics is: counts by class, and how each step on its way to the server treats it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor

from fedcof.statistics.validation import check_class_range, require


@dataclass(frozen=True, eq=False)
class Statistics(ABC):
    """What a client knows of its features, and may send.

    A kind that leaves one of the abstract members open, or lacks a name, cannot be registered with a method: it
    would pass a policy, a check or the screening unseen.

    Attributes
    ----------
    KIND : str
        Name of the kind: what a node's policy allows, and what the tag of an upload begins with.
    VECTORS : str
        What error messages call its vectors.
    MIXES_CLASSES : bool
        Whether some of its numbers are of all classes together, so that a class can only be withheld by leaving its
        samples out before anything is measured.
    class_ids : Tensor of shape (R,), int64
        Class of each row, counted from 0.
    counts : Tensor of shape (R,), int64
        Number of samples behind each row, at least 1.
    """

    KIND: ClassVar[str]
    VECTORS: ClassVar[str]
    MIXES_CLASSES: ClassVar[bool]

    class_ids: Tensor
    counts: Tensor

    @property
    def num_rows(self) -> int:
        """Number of rows R."""
        return len(self.class_ids)

    @property
    @abstractmethod
    def feature_dim(self) -> int:
        """Dimension d of the feature vectors."""

    def check_fits(self, num_classes: int, feature_dim: int) -> None:
        """Check the statistics against the problem that they are meant for.

        Parameters
        ----------
        num_classes : int
            Number of classes C; every id must be below it.
        feature_dim : int
            Dimension d that every vector must have.

        Raises
        ------
        UserError
            If a class id is out of range or the vectors have another dimension.
        """
        require(self.feature_dim == feature_dim, self.VECTORS, f"dimension {feature_dim}", self.feature_dim)
        check_class_range(self.class_ids, num_classes)

    @abstractmethod
    def withhold(self, smallest_count: int) -> tuple[Self, int]:
        """Leave out rows of few samples, as a node's policy asks.

        Parameters
        ----------
        smallest_count : int
            Fewest samples of a row that may be sent.

        Returns
        -------
        tuple of (Statistics, int)
            What is left, and how many rows are not.
        """

    @abstractmethod
    def sum_of_squares(self) -> float:
        """Sum of the squared lengths of what stands for each sample, to be compared with other clients'."""
