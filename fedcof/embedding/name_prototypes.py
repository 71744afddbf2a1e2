r"""Text prototypes of classes for a backbone that was trained on ImageNet, from names alone.

A sentence encoder says how near a class's name is to each of ImageNet's 1,000; the backbone's own ImageNet head
says in which direction of its features each of those lies. With w_i the head's row of name i, less the mean of all
rows and at unit length,

.. math:: T_c \propto \sum_i \mathrm{softmax}_i\big(\cos(\text{name}_c, \text{name}_i) / 0.1\big) \, w_i

scaled to unit length.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fedcof.embedding.imagenet_head import imagenet_head, imagenet_names
from fedcof.embedding.prompts import said
from fedcof.embedding.sentence_encoder import ENCODER, WEIGHTS, check_encoder
from fedcof.errors import UserError

TEMPERATURE = 0.1


def name_prototypes(
    class_names: Sequence[str], templates: Sequence[str], name: str, weights: str, feature_dim: int
) -> Tensor:
    """Make text prototypes from class names.

    Parameters
    ----------
    class_names : sequence of str
        Names of the C classes; an underscore is a space.
    templates : sequence of str
        What is said of a class, with ``{}`` for its name; of several, vectors are averaged.
    name, weights : str
        The backbone, see :func:`fedcof.embedding.backbones.load_backbone`.
    feature_dim : int
        Dimension d of its features.

    Returns
    -------
    Tensor of shape (C, d), float32
        Unit length.

    Raises
    ------
    UserError
        If the extra ``names`` is not installed, or the backbone has no ImageNet head in its features' space.
    """
    head, names = imagenet_head(name, weights), imagenet_names()
    if head.shape != (len(names), feature_dim):
        raise UserError(
            f"The head of {name} has the shape {tuple(head.shape)}, but text-prior=names needs one row for each of "
            f"ImageNet's 1,000 classes in the space of its {feature_dim} features: choose another backbone, or "
            "text-prior=none."
        )
    rows = normalize(head - head.mean(dim=0), dim=1)
    every = [*class_names, *names]
    encoded = torch.stack([_encoded([said(template, text) for text in every]) for template in templates])
    vectors = normalize(encoded.mean(dim=0), dim=1)
    likeness = vectors[: len(class_names)] @ vectors[len(class_names) :].T
    return normalize(torch.softmax(likeness / TEMPERATURE, dim=1) @ rows, dim=1)


def _encoded(texts: Sequence[str]) -> Tensor:
    """Encode texts as unit-length vectors, float32."""
    check_encoder()
    encoder = import_module(ENCODER).SentenceTransformer
    package = import_module(WEIGHTS).__file__
    assert package is not None
    model = encoder(str(Path(package).parent / "model"), device="cpu", local_files_only=True)
    encoded = model.encode(list(texts), normalize_embeddings=True, convert_to_tensor=True, show_progress_bar=False)
    return torch.as_tensor(encoded, dtype=torch.float32).clone()
