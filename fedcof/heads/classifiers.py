"""The kinds of classifier by name, and reading one of whichever kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from fedcof.errors import UserError
from fedcof.heads.classifier import FORMAT, Classifier, read_classifier_file
from fedcof.heads.linear import LinearClassifier
from fedcof.heads.quadratic import QuadraticClassifier

KINDS: tuple[type[Classifier], ...] = (LinearClassifier, QuadraticClassifier)


def load_classifier(path: str | Path) -> Classifier:
    """Read a classifier of whichever kind.

    Parameters
    ----------
    path : str or Path
        A safetensors file that :meth:`Classifier.save` has written.

    Returns
    -------
    Classifier
        The same, to the last bit.

    Raises
    ------
    UserError
        If the file is missing, truncated, or not a classifier.
    """
    metadata, tensors = read_classifier_file(path)
    for kind in KINDS:
        if metadata.get(FORMAT) == kind.file_format():
            return kind.of_file(metadata, tensors, path)
    raise UserError(f"The file {path} is not a classifier that fedcof wrote: name another file.")


def classifier_of(tensors: Mapping[str, Tensor], class_names: Iterable[str] = ()) -> Classifier:
    """Make the classifier whose parameters these are, of the kind that has these names.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        As :meth:`Classifier.tensors` gives them.
    class_names : iterable of str
        Names of the classes, or none.

    Returns
    -------
    Classifier
        Of whichever kind.

    Raises
    ------
    UserError
        If no kind of classifier has these, or their shapes do not belong together.
    """
    for kind in KINDS:
        if kind.parameter_names() == set(tensors):
            return kind.of_tensors(tensors, tuple(class_names))
    raise UserError(
        f"No classifier is made of {', '.join(sorted(tensors)) or 'nothing'}: use the same version of fedcof on "
        "both sides."
    )
