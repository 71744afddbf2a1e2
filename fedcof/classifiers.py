"""The linear classifier, and the heads that give it in closed form from class statistics."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize

from fedcof.covariance import ClassTotals, FactoredScatter
from fedcof.errors import UserError, unknown_name

HEADS = ["ridge", "lda"]
CLASS_PRIORS = ["uniform", "empirical"]
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

    def scores(self, features: Tensor) -> Tensor:
        """Score every class.

        Parameters
        ----------
        features : Tensor of shape (n, d), floating point
            Feature vectors.

        Returns
        -------
        Tensor of shape (n, C), float32
            Scores, minus infinity for a class that nobody has.

        Raises
        ------
        UserError
            If the features have another dimension than the classifier.
        """
        if features.dim() != 2 or features.shape[1] != self.feature_dim:
            raise UserError(
                f"The features have the shape {tuple(features.shape)}, but this classifier takes (n, "
                f"{self.feature_dim}): embed the images with the backbone that it was solved for."
            )
        scores = torch.addmm(self.bias, features.to(self.weight.dtype), self.weight.T)
        return scores.masked_fill_(~self.present, float("-inf"))

    def predict(self, features: Tensor) -> Tensor:
        """Predict the class of each feature vector.

        Parameters
        ----------
        features : Tensor of shape (n, d), floating point
            Feature vectors.

        Returns
        -------
        Tensor of shape (n,), int64
            The class with the highest score.
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
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)

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


def nearest_class_mean(totals: ClassTotals) -> LinearClassifier:
    """Compare with the class means by angle (FedNCM, arXiv 2306.03937).

    Parameters
    ----------
    totals : ClassTotals
        Class means mu_c.

    Returns
    -------
    LinearClassifier
        weight_c = mu_c / |mu_c|, no bias.
    """
    return _classifier(normalize(totals.means, dim=1), torch.zeros(len(totals.means)), totals.present)


def ridge(scatter: Tensor | FactoredScatter, totals: ClassTotals) -> LinearClassifier:
    """Solve the ridge classifier from the within-class scatter (FedCOF, arXiv 2412.14326).

    The Gram matrix G = W + N mu mu^T leaves the between-class scatter out on purpose; each class's vector of
    G^-1 [N_1 mu_1 ... N_C mu_C] is scaled to unit length, and there is no bias.

    Parameters
    ----------
    scatter : Tensor of shape (d, d), float64, or FactoredScatter
        Within-class scatter W, shrunk; a factored one is solved in the space of its rows.
    totals : ClassTotals
        Class counts and means.

    Returns
    -------
    LinearClassifier
        Unit-length weights; zero for a class that nobody has.

    Raises
    ------
    UserError
        If G is not positive definite.
    """
    mean = totals.global_mean
    class_sums = totals.counts[:, None] * totals.means
    if isinstance(scatter, FactoredScatter):
        factor = torch.cat([scatter.factor, mean[None] * totals.num_samples**0.5])
        weight = _solve_factored(factor, scatter.ridge, class_sums.T).T
        return _classifier(normalize(weight, dim=1), torch.zeros(len(weight)), totals.present)
    gram = torch.addr(scatter, mean, mean, alpha=totals.num_samples)
    return ridge_from_gram(gram, class_sums, totals.present)


def ridge_from_gram(gram: Tensor, class_sums: Tensor, present: Tensor) -> LinearClassifier:
    """Solve the ridge classifier of a given Gram matrix (Fed3R, Fani et al., ICML 2024).

    Parameters
    ----------
    gram : Tensor of shape (d, d), float64
        Gram matrix with its penalty, G + lambda I.
    class_sums : Tensor of shape (C, d), float64
        Sum B of the feature vectors of each class.
    present : Tensor of shape (C,), bool
        Which classes somebody has.

    Returns
    -------
    LinearClassifier
        The vectors of (G + lambda I)^-1 B scaled to unit length, no bias.

    Raises
    ------
    UserError
        If the matrix is not positive definite.
    """
    weight = normalize(solve_positive_definite(gram, class_sums.T).T, dim=1)
    return _classifier(weight, torch.zeros(len(weight)), present)


def linear_discriminant(
    scatter: Tensor | FactoredScatter, totals: ClassTotals, class_prior: str = "uniform"
) -> LinearClassifier:
    """Solve linear discriminant analysis from the within-class scatter.

    With Sigma = W / sum_c (N_c - 1): weight_c = Sigma^-1 mu_c and bias_c = -1/2 mu_c^T Sigma^-1 mu_c + log prior_c.

    Parameters
    ----------
    scatter : Tensor of shape (d, d), float64, or FactoredScatter
        Within-class scatter W, shrunk; a factored one is solved in the space of its rows.
    totals : ClassTotals
        Class counts and means.
    class_prior : {"uniform", "empirical"}
        Whether all classes that somebody has are equally likely, or in proportion to their counts.

    Returns
    -------
    LinearClassifier
        Weights and biases; zero for a class that nobody has.

    Raises
    ------
    UserError
        If Sigma is not positive definite or the prior's name is unknown.
    """
    if class_prior not in CLASS_PRIORS:
        raise unknown_name("class prior", class_prior, CLASS_PRIORS)
    present = totals.present
    degrees = totals.sample_degrees_of_freedom.sum()
    if isinstance(scatter, FactoredScatter):
        weight = _solve_factored(scatter.factor, scatter.ridge, totals.means.T).T * degrees
    else:
        weight = solve_positive_definite(scatter / degrees, totals.means.T).T
    prior = present.to(torch.float64) if class_prior == "uniform" else totals.counts
    bias = -(weight * totals.means).sum(dim=1) / 2 + (prior / prior.sum()).clamp(min=1e-300).log()
    return _classifier(weight, bias, present)


def solve_positive_definite(matrix: Tensor, right_hand_side: Tensor) -> Tensor:
    """Solve a symmetric positive definite system by Cholesky's factorisation.

    Parameters
    ----------
    matrix : Tensor of shape (d, d), float64
        Left-hand side.
    right_hand_side : Tensor of shape (d, C), float64
        One column per class.

    Returns
    -------
    Tensor of shape (d, C), float64
        The solution.

    Raises
    ------
    UserError
        If the matrix is not positive definite.
    """
    factor, failed_at = torch.linalg.cholesky_ex(matrix)
    if int(failed_at) or not bool(factor.diagonal().isfinite().all()):
        raise UserError(
            "The system is singular because there are fewer independent uploads than feature dimensions: "
            "give a larger shrinkage (for fed3r a larger ridge-penalty), or leave-one-out."
        )
    return torch.cholesky_solve(right_hand_side, factor)


def _solve_factored(factor: Tensor, ridge: float, right_hand_side: Tensor) -> Tensor:
    """Solve (Z^T Z + ridge I) A = B for A as (B - Z^T (Z Z^T + ridge I)^-1 Z B) / ridge, Woodbury's identity."""
    small = factor @ factor.T
    small.diagonal().add_(ridge)
    inner = solve_positive_definite(small, factor @ right_hand_side)
    return torch.addmm(right_hand_side, factor.T, inner, alpha=-1).div_(ridge)


def _classifier(weight: Tensor, bias: Tensor, present: Tensor) -> LinearClassifier:
    return LinearClassifier(
        weight=(weight * present[:, None]).to("cpu", torch.float32).contiguous(),
        bias=(bias.to(present.device) * present).to("cpu", torch.float32),
        present=present.cpu(),
    )
