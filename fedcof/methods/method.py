"""What a method is: one object that holds both ends, what a client measures and what the server makes of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from fedcof.errors import UserError
from fedcof.methods.base import Aggregator
from fedcof.methods.role import Role
from fedcof.privacy.mechanism import Privacy
from fedcof.privacy.noise import NoiseSource
from fedcof.registry import check_filled_in
from fedcof.statistics.base import Statistics
from fedcof.wire.registry import encodings_of

if TYPE_CHECKING:
    from fedcof.methods.section import MethodSection
    from fedcof.privacy.section import PrivacySection


@dataclass(frozen=True, eq=False)
class Samples:
    """A client's samples.

    Attributes
    ----------
    features : Tensor of shape (n, d), floating point
        Feature vectors.
    labels : Tensor of shape (n,), int64
        Class of each.
    num_classes : int
        Number of classes C of the whole federation.
    seed : int
        Seed of what is drawn at random on this client.
    cells : Tensor of shape (n,), int64, optional
        Number of each sample's cell within its class, from 0: samples of one cell are in one group. Without, groups
        are drawn at random.
    """

    features: Tensor
    labels: Tensor
    num_classes: int
    seed: int = 0
    cells: Tensor | None = None

    def of_large_classes(self, smallest_count: int) -> tuple[Samples, int]:
        """Leave out all samples of classes that have too few, and count these classes."""
        counts = torch.bincount(self.labels, minlength=self.num_classes)
        enough = (counts >= smallest_count)[self.labels]
        small = int(((counts > 0) & (counts < smallest_count)).sum())
        cells = None if self.cells is None else self.cells[enough]
        return Samples(self.features[enough], self.labels[enough], self.num_classes, self.seed, cells), small


class Method(ABC):
    """A way to a classifier.

    Attributes
    ----------
    name, title : str
        As the key ``method`` has it, and as people write it.
    colour, marker : str
        How plots draw it, as matplotlib names them; empty to have them chosen.
    rebuilds_covariance, takes_groups, takes_head, takes_penalty, takes_prior : bool
        Which keys mean something to it: those of the estimator, of rows and budgets, of the head, of the penalty,
        of what class names know.
    role : Role
        What it is to a comparison.
    pools_samples : bool
        Whether it needs all samples in one place.
    may_train : bool
        Whether training can follow, because clients hold the samples.
    needs_training : bool
        Whether it gives nothing but a start for training.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    colour: ClassVar[str] = ""
    marker: ClassVar[str] = ""
    role: ClassVar[Role] = Role.OTHER
    statistics: ClassVar[type[Statistics] | None] = None
    rebuilds_covariance: ClassVar[bool] = False
    takes_groups: ClassVar[bool] = False
    takes_head: ClassVar[bool] = False
    takes_penalty: ClassVar[bool] = False
    takes_prior: ClassVar[bool] = False
    pools_samples: ClassVar[bool] = False
    may_train: ClassVar[bool] = True
    needs_training: ClassVar[bool] = False

    @property
    def asks_clients(self) -> bool:
        """Whether clients send statistics."""
        return self.statistics is not None

    @property
    def kind(self) -> str:
        """Kind of the statistics that clients send; empty if they send none."""
        return self.statistics.KIND if self.statistics else ""


class FederatedMethod(Method):
    """A method that asks every client for statistics, once."""

    statistics: ClassVar[type[Statistics]]

    @abstractmethod
    def measure(self, samples: Samples, groups: int) -> Statistics:
        """Measure a client's samples.

        Parameters
        ----------
        samples : Samples
            All that the client has.
        groups : int
            Rows per class, at least 1; of no meaning where the method takes no groups.

        Returns
        -------
        Statistics
            Of the method's kind.
        """

    @abstractmethod
    def measure_privately(self, samples: Samples, groups: int, privacy: Privacy, source: NoiseSource) -> Statistics:
        """Measure a client's samples with differential privacy for each of them.

        Parameters
        ----------
        samples, groups
            See :meth:`measure`.
        privacy : Privacy
            The promise, given by :meth:`promise`.
        source : NoiseSource
            Where the noise comes from.

        Returns
        -------
        Statistics
            Noisy.

        Raises
        ------
        UserError
            If the method has no private form; :func:`no_private_form` makes the error.
        """

    @abstractmethod
    def received(
        self, statistics: Statistics, privacy: Privacy, num_classes: int, subtract_noise: bool
    ) -> Statistics:
        """Check that a promise can have made what was received, and say what noise it carries.

        Parameters
        ----------
        statistics : Statistics
            Decoded, and within the federation's sizes.
        privacy : Privacy
            The promise that was asked for.
        num_classes : int
            Number of classes C of the whole federation.
        subtract_noise : bool
            Whether the noise is to be taken off.

        Returns
        -------
        Statistics
            The same, with its noise where that is to be taken off and can be.

        Raises
        ------
        UserError
            If it cannot.
        """

    @abstractmethod
    def aggregator(
        self,
        num_classes: int,
        feature_dim: int,
        section: MethodSection,
        privacy: Privacy | None = None,
        subtract_noise: bool = True,
    ) -> Aggregator:
        """Make the server's end.

        Parameters
        ----------
        num_classes, feature_dim : int
            Number of classes C and dimension d.
        section : MethodSection
            The keys of the method.
        privacy : Privacy, optional
            The promise that uploads are made with.
        subtract_noise : bool
            Whether its noise is to be taken off.

        Returns
        -------
        Aggregator
            Without an upload yet.
        """

    def promise(self, section: PrivacySection) -> Privacy | None:
        """Give what is promised to every sample; None without an epsilon."""
        if not section.epsilon:
            return None
        return Privacy(section.epsilon, section.delta, section.clip_norm)


class PooledMethod(Method):
    """A method that needs all samples in one place: nobody is asked, and nothing is sent."""

    pools_samples: ClassVar[bool] = True
    may_train: ClassVar[bool] = False

    @abstractmethod
    def pooled(self, features: Tensor, labels: Tensor, num_classes: int, section: MethodSection) -> Aggregator:
        """Take all samples in.

        Parameters
        ----------
        features : Tensor of shape (n, d), floating point
            Feature vectors of all samples.
        labels : Tensor of shape (n,), int64
            Class of each.
        num_classes : int
            Number of classes C.
        section : MethodSection
            The keys of the method.

        Returns
        -------
        Aggregator
            Ready to solve.
        """


class StartOfTraining(Method):
    """A method that asks nobody and solves nothing: training starts from a head that is drawn at random."""

    needs_training: ClassVar[bool] = True


def no_private_form(method: Method) -> UserError:
    """Make the error for a method that cannot keep a promise."""
    return UserError(f"The method {method.name} has no private form: set epsilon to 0, or choose another method.")


def check_method(name: str, method: Method) -> None:
    """Check that an object can be registered as a method, with statistics that say how all steps treat them.

    Parameters
    ----------
    name : str
        Under which it is to be known.
    method : Method
        The object.

    Raises
    ------
    UserError
        If it is no whole method, its statistics leave something open, or no codec writes them.
    """
    kinds = (FederatedMethod, PooledMethod, StartOfTraining)
    check_filled_in("method", name, method, kinds, ["name", "title", "statistics"])
    if method.statistics:
        check_statistics(name, method.statistics)


def check_statistics(method: str, statistics: type[Statistics]) -> None:
    """Check that a kind of statistics can be sent: withheld, checked, screened, and written by a codec.

    Parameters
    ----------
    method : str
        Whose they are.
    statistics : type
        The kind.

    Raises
    ------
    UserError
        If it leaves something open.
    """
    open_members = sorted(getattr(statistics, "__abstractmethods__", ()))
    open_members += [name for name in ("KIND", "VECTORS", "MIXES_CLASSES") if not hasattr(statistics, name)]
    if open_members:
        raise UserError(
            f"The statistics {statistics.__name__} of the method {method} do not say their "
            f"{', '.join(open_members)}: fill in all of fedcof.statistics.base.Statistics."
        )
    if not encodings_of(statistics.KIND):
        raise UserError(
            f"No codec writes the statistics {statistics.KIND} of the method {method}: register one before it."
        )
