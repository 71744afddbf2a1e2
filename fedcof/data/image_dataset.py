"""A training and a test split of labelled images."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from fedcof.data.intake import Intake
from fedcof.embedding.images import column_values
from fedcof.errors import unknown_name


@dataclass(frozen=True)
class ImageDataset:
    """A training and a test split of labelled images.

    Attributes
    ----------
    name : str
        The name it was loaded by.
    train, test : datasets.Dataset
        Columns ``image`` (``datasets.Image``) and ``label`` (a whole number from 0), and the source's others.
    class_names : tuple of str
        What each label stands for.
    intake : Intake
        What was taken of the files, and what was left out; of nothing where it comes with a package.
    """

    name: str
    train: Dataset
    test: Dataset
    class_names: tuple[str, ...]
    intake: Intake = field(default_factory=Intake, compare=False)

    @property
    def num_classes(self) -> int:
        """Number of classes, those without a sample included."""
        return len(self.class_names)

    def labels(self, split: str) -> NDArray[np.int64]:
        """Read the labels of a split without decoding any image.

        Parameters
        ----------
        split : {"train", "test"}
            Which part of the dataset.

        Returns
        -------
        ndarray
            Class of each sample (n,), int64.

        Raises
        ------
        UserError
            If the split is neither.
        """
        if split not in ("train", "test"):
            raise unknown_name("split", split, ["train", "test"])
        return column_values(self.train if split == "train" else self.test, "label").astype(np.int64, copy=False)
