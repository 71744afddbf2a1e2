"""The linear classifier: scores, predictions, and its file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fedcof.errors import UserError
from fedcof.files import write_whole
from fedcof.statistics.inputs import Numbers, as_features

FILE_FORMAT = "fedcof-linear-classifier-1"


@dataclass(frozen=True, eq=False)
class LinearClassifier:
    """A linear classifier on feature vectors: scores = features weight^T + bias.

    Parameters
    ----------
    weight : Tensor of shape (C, d), float32
        One vector per class; zero for a class that nobody has.
    bias : Tensor of shape (C,), float32
        One offset per class; zero for a class that nobody has.
    present : Tensor of shape (C,), bool
        Which classes somebody has. The others are never predicted.
    class_names : tuple of str
        Names of the C classes, or empty.

    Raises
    ------
    UserError
        If the shapes do not belong together.
    """

    weight: Tensor
    bias: Tensor
    present: Tensor
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        num_classes = len(self.weight)
        fits = self.weight.dim() == 2 and self.bias.shape == self.present.shape == (num_classes,)
        if not fits or len(self.class_names) not in (0, num_classes):
            raise UserError(
                f"A classifier of weight {tuple(self.weight.shape)} needs a bias, a mark of presence and a name "
                f"for each class, but got {tuple(self.bias.shape)}, {tuple(self.present.shape)} and "
                f"{len(self.class_names)} names: give one of each per class."
            )

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return len(self.weight)

    @property
    def feature_dim(self) -> int:
        """Dimension d of the feature vectors."""
        return self.weight.shape[1]

    def scores(self, features: Numbers) -> Tensor:
        """Score every class.

        Parameters
        ----------
        features : Tensor, ndarray or sequence of shape (n, d)
            Feature vectors.

        Returns
        -------
        Tensor of shape (n, C), float32
            Scores, minus infinity for a class that nobody has; on the device of the features.

        Raises
        ------
        UserError
            If the features have another dimension than the classifier.
        """
        features = as_features(features)
        if features.dim() != 2 or features.shape[1] != self.feature_dim:
            raise UserError(
                f"The features have the shape {tuple(features.shape)}, but this classifier takes (n, "
                f"{self.feature_dim}): embed the images with the backbone that it was solved for."
            )
        weight, bias, present = (own.to(features.device) for own in (self.weight, self.bias, self.present))
        scores = torch.addmm(bias, features.to(weight.dtype), weight.T)
        return scores.masked_fill_(~present, float("-inf"))

    def predict(self, features: Numbers) -> Tensor:
        """Predict the class of each feature vector.

        Parameters
        ----------
        features : Tensor, ndarray or sequence of shape (n, d)
            Feature vectors.

        Returns
        -------
        Tensor of shape (n,), int64
            The class with the highest score; on the device of the features.
        """
        return self.scores(features).argmax(dim=1)

    def save(self, path: str | Path) -> None:
        """Write the classifier as a safetensors file.

        Parameters
        ----------
        path : str or Path
            File to write; it replaces an older one.
        """
        tensors = {"weight": self.weight, "bias": self.bias, "present": self.present}
        metadata = {"format": FILE_FORMAT, "class_names": json.dumps(self.class_names)}
        write_whole(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata))

    @staticmethod
    def load(path: str | Path) -> LinearClassifier:
        """Read a classifier written by :meth:`save`.

        Parameters
        ----------
        path : str or Path
            A safetensors file.

        Returns
        -------
        LinearClassifier
            The same classifier, to the last bit.

        Raises
        ------
        UserError
            If the file is missing, truncated, or not a classifier.
        """
        if not Path(path).is_file():
            raise UserError(f"There is no classifier at {path}: name a head.safetensors that a run has written.")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FILE_FORMAT:
                    raise UserError(f"The file {path} is not a classifier that fedcof wrote: name another file.")
                tensors = {name: file.get_tensor(name) for name in ("weight", "bias", "present")}
        except SafetensorError as error:
            raise UserError(f"The classifier {path} cannot be read ({error}): run its run again.") from error
        return LinearClassifier(**tensors, class_names=tuple(json.loads(metadata["class_names"])))


def unit_length(vectors: Tensor) -> Tensor:
    """Scale each row to unit length, whatever the features' scale; a row of zeros stays one."""
    lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return vectors / torch.where(lengths > 0, lengths, 1.0)


def as_classifier(weight: Tensor, bias: Tensor, present: Tensor) -> LinearClassifier:
    """Make a classifier of a closed form's solution: float32, zero where nobody has the class."""
    return LinearClassifier(
        weight=(weight * present[:, None]).to(torch.float32).contiguous(),
        bias=(bias * present).to(torch.float32),
        present=present,
    )
