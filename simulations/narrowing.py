"""What is known of the samples to come, put into a run's classifier: which classes, or how frequent each is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedcof.data.class_frequencies import classes_in, frequencies_in
from fedcof.errors import UserError
from fedcof.heads.classifier import Classifier
from fedcof.heads.classifiers import load_classifier
from fedcof.run.results import FEDERATION_FILE_NAME, RunResult


@dataclass(frozen=True)
class Narrowing:
    """What a user says of the samples to come; nothing, unless given.

    Attributes
    ----------
    classes : str or None
        The only classes that there are, see :func:`fedcof.data.class_frequencies.classes_in`.
    frequencies : Path or None
        How frequent each is, see :func:`fedcof.data.class_frequencies.frequencies_in`.
    client : int or None
        Number of a client of the simulation, which has samples of such classes.
    """

    classes: str | None = None
    frequencies: Path | None = None
    client: int | None = None

    def __post_init__(self) -> None:
        if sum(given is not None for given in (self.classes, self.frequencies, self.client)) > 1:
            raise UserError(
                "The options --classes, --frequencies and --client each say which classes there are: give one."
            )

    def classifier(self, folder: Path, run: RunResult) -> Classifier:
        """Load a run's classifier, with what is known put into it.

        Parameters
        ----------
        folder : Path
            The run's folder.
        run : RunResult
            One of its runs.

        Returns
        -------
        Classifier
            As it was saved, where nothing is known.

        Raises
        ------
        UserError
            If the classifier has not these classes, or what is needed was not kept with the run.
        """
        whole = load_classifier(folder / run.head)
        if self.classes is not None:
            return whole.only(classes_in(self.classes, whole.names))
        frequencies: Sequence[float] | None = None
        if self.frequencies is not None:
            frequencies = frequencies_in(self.frequencies, whole.names)
        elif self.client is not None:
            frequencies = _frequencies_of(self.client, (folder / run.head).with_name(FEDERATION_FILE_NAME))
        if frequencies is None:
            return whole
        if run.nats_per_score is None:
            raise UserError(
                f"The run in {folder} is of an earlier version, which kept no scale of its scores, so frequencies "
                "cannot be put into its classifier: run it again, or give --classes."
            )
        return whole.with_prior(frequencies, run.nats_per_score)


NOTHING = Narrowing()


def _frequencies_of(client: int, path: Path) -> list[float]:
    if not path.is_file():
        raise UserError(
            f"There is no {path}, where a simulation keeps who held what: give --frequencies or --classes instead."
        )
    with np.load(path) as kept:
        counts = kept["counts"]
    if not 0 <= client < len(counts):
        raise UserError(f"There is no client {client}: give a number from 0 to {len(counts) - 1}.")
    if not counts[client].any():
        raise UserError(f"Client {client} has no sample, so its frequencies are unknown: name another.")
    frequencies: list[float] = counts[client].astype(float).tolist()
    return frequencies
