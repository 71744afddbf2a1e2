"""What a classifier is, of whatever form: scores, predictions, and its file."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fedcof.errors import UserError
from fedcof.files import write_whole
from fedcof.statistics.inputs import Numbers, as_features

FORMAT, NAMES = "format", "class_names"


class Classifier(ABC):
    """A classifier of feature vectors whose parameters are named tensors.

    A kind of classifier is a frozen dataclass. Every field but the names holds a tensor, and is written to the
    classifier's file and sent to clients under the field's name.

    Attributes
    ----------
    KIND : str
        What the kind is called, in its files too.
    weight : Tensor of shape (C, d), float32
        The linear part of each class's score.
    bias : Tensor of shape (C,), float32
        One offset per class, which is added to its score.
    present : Tensor of shape (C,), bool
        Which classes somebody has. The others are never predicted.
    class_names : tuple of str
        Names of the C classes, or empty.
    """

    KIND: ClassVar[str]

    weight: Tensor
    bias: Tensor
    present: Tensor
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return len(self.present)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the C classes, or their numbers where they have none."""
        return self.class_names or tuple(map(str, range(self.num_classes)))

    @property
    @abstractmethod
    def feature_dim(self) -> int:
        """Dimension d of the feature vectors."""

    @abstractmethod
    def raw_scores(self, features: Tensor) -> Tensor:
        """Score float32 features (n, d) on the classifier's device, whoever has the classes: shape (n, C)."""

    @abstractmethod
    def before(self, matrix: Tensor) -> Self:
        """Take features as they are before a linear map that this classifier's own come after.

        Parameters
        ----------
        matrix : Tensor of shape (k, d), floating point
            Rows of k features are multiplied by it from the right; of full column rank.

        Returns
        -------
        Classifier
            Of k features, with the same scores.
        """

    @abstractmethod
    def with_linear_scores(self, classes: Tensor, weight: Tensor, bias: Tensor) -> Self:
        """Score some classes by nothing but a vector and an offset, and take them for present.

        Parameters
        ----------
        classes : Tensor of shape (k,), int64
            Which.
        weight : Tensor of shape (k, d), floating point
            Their vectors.
        bias : Tensor of shape (k,), floating point
            Their offsets.

        Returns
        -------
        Classifier
            The same in all other classes.
        """

    @classmethod
    def parameter_names(cls) -> frozenset[str]:
        """Give the names of the tensors."""
        return frozenset(field.name for field in fields(cls)) - {NAMES}  # type: ignore[arg-type]

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor], class_names: tuple[str, ...] = ()) -> Self:
        """Make a classifier of its parameters.

        Parameters
        ----------
        tensors : mapping of str to Tensor
            As :meth:`tensors` gives them.
        class_names : tuple of str
            Names of the classes, or none.

        Returns
        -------
        Classifier
            Of this kind.

        Raises
        ------
        UserError
            If the kind has other parameters, or their shapes do not belong together.
        """
        if cls.parameter_names() != set(tensors):
            raise UserError(
                f"A {cls.KIND} classifier is made of {', '.join(sorted(cls.parameter_names()))}, but got "
                f"{', '.join(sorted(tensors)) or 'nothing'}: use the same version of fedcof on both sides."
            )
        make: Any = cls
        made: Self = make(**tensors, class_names=class_names)
        return made

    def tensors(self) -> dict[str, Tensor]:
        """Give the classifier's parameters, and which classes are present, by name."""
        return {name: getattr(self, name) for name in sorted(self.parameter_names())}

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
        here = self.on(features.device)
        return here.raw_scores(features.to(torch.float32)).masked_fill_(~here.present, float("-inf"))

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

    def on(self, device: torch.device) -> Self:
        """Put the classifier on a device."""
        if self.present.device == device:
            return self
        return self._with(**{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def only(self, classes: Iterable[int]) -> Self:
        """Leave out all but some classes.

        Parameters
        ----------
        classes : iterable of int
            Numbers of those that may be predicted, from 0 to C - 1.

        Returns
        -------
        Classifier
            The same, for which the others are classes that nobody has.

        Raises
        ------
        UserError
            If somebody has none of these classes, or there is no such class.
        """
        wanted = torch.zeros_like(self.present)
        for number in classes:
            if not 0 <= number < self.num_classes:
                raise UserError(f"There is no class {number}: give numbers from 0 to {self.num_classes - 1}.")
            wanted[number] = True
        if not bool((wanted & self.present).any()):
            raise UserError(
                "None of these classes can be predicted, because nobody had a sample of any: give at least one of "
                "those that the classifier was solved for."
            )
        return self._with(present=self.present & wanted)

    def with_prior(self, frequencies: Numbers, nats: float) -> Self:
        """Predict as for samples of which some classes are more frequent than others.

        Parameters
        ----------
        frequencies : Tensor, ndarray or sequence of shape (C,)
            How frequent each class is, in any unit: counts will do. A class of frequency 0 is never predicted.
        nats : float
            What a score is multiplied by to be in nats, see :func:`fedcof.heads.temperature.softmax_scale`.

        Returns
        -------
        Classifier
            The same with the logarithm of each class's share added to its bias, in the unit of its scores.

        Raises
        ------
        UserError
            If there is not one number at least 0 for each class, or none is above 0.
        """
        counts = torch.as_tensor(frequencies, dtype=torch.float64, device=self.bias.device)
        known = counts.shape == self.present.shape and bool((counts.isfinite() & (counts >= 0)).all())
        if not known or not bool((counts > 0).any()):
            raise UserError(
                f"The frequencies of {self.num_classes} classes have the shape {tuple(counts.shape)}, or one is "
                "below 0, or none is above: give one number for each class, some of them above 0."
            )
        narrowed = self.only(counts.nonzero().flatten().tolist())
        logarithms = (counts / counts.sum()).log() / nats
        return narrowed._with(bias=torch.where(counts > 0, self.bias + logarithms.to(self.bias.dtype), self.bias))

    def _with(self, **changes: Any) -> Self:  # noqa: ANN401
        return replace(self, **changes)  # type: ignore[type-var]

    def named(self, class_names: Iterable[str]) -> Self:
        """Give the classes names.

        Parameters
        ----------
        class_names : iterable of str
            One a class.

        Returns
        -------
        Classifier
            The same, with names.
        """
        return self._with(class_names=tuple(class_names))

    def save(self, path: str | Path) -> None:
        """Write the classifier as a safetensors file.

        Parameters
        ----------
        path : str or Path
            File to write; it replaces an older one.
        """
        metadata = {FORMAT: self.file_format(), NAMES: json.dumps(self.class_names)}
        write_whole(path, save({name: tensor.contiguous() for name, tensor in self.tensors().items()}, metadata))

    @classmethod
    def file_format(cls) -> str:
        """Name what the kind's files say that they are."""
        return f"fedcof-{cls.KIND}-classifier-1"

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a classifier of this kind, written by :meth:`save`.

        Parameters
        ----------
        path : str or Path
            A safetensors file.

        Returns
        -------
        Classifier
            The same classifier, to the last bit.

        Raises
        ------
        UserError
            If the file is missing, truncated, or not such a classifier.
        """
        return cls.of_file(*read_classifier_file(path), path)

    @classmethod
    def of_file(cls, metadata: Mapping[str, str], tensors: Mapping[str, Tensor], path: str | Path) -> Self:
        """Make a classifier of what :func:`read_classifier_file` has read; see :meth:`load`."""
        if metadata.get(FORMAT) != cls.file_format():
            raise UserError(
                f"The file {path} is not a classifier that fedcof wrote, or not a {cls.KIND} one: name another."
            )
        # A file of somebody else's may say anything.
        try:
            names = json.loads(metadata.get(NAMES, ""))
            if not _are_parameters(tensors) or not isinstance(names, list) or not all(map(_is_text, names)):
                raise ValueError
            return cls.of_tensors(tensors, tuple(names))
        except (ValueError, TypeError, IndexError, RecursionError) as error:
            raise UserError(
                f"The classifier {path} cannot be read (its numbers or names are no {cls.KIND} classifier's): "
                "run its run again."
            ) from error

    def check_parts(self, *, fits: bool) -> None:
        """Check that the parameters belong together and that every class or none has a name; raises UserError."""
        if not fits or len(self.class_names) not in (0, self.num_classes):
            shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in self.tensors().items())
            raise UserError(
                f"A {self.KIND} classifier needs a bias, a mark of presence and a name for each class, but got "
                f"{shapes} and {len(self.class_names)} names: give one of each per class."
            )


def _are_parameters(tensors: Mapping[str, Tensor]) -> bool:
    return all(
        tensor.dtype == torch.bool if name == "present" else tensor.is_floating_point()
        for name, tensor in tensors.items()
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def read_classifier_file(path: str | Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read a safetensors file.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    tuple of (dict, dict)
        Its metadata, and its tensors by name.

    Raises
    ------
    UserError
        If it is missing or truncated.
    """
    if not Path(path).is_file():
        raise UserError(f"There is no classifier at {path}: name a head.safetensors that a run has written.")
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"The classifier {path} cannot be read ({error}): run its run again.") from error
