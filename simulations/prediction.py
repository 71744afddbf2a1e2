"""Use a saved run on new image files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fedcof.data.problem import backbone_of
from fedcof.embedding.backbones import Backbone
from fedcof.embedding.images import decode_image
from fedcof.embedding.section import EmbeddingSection
from fedcof.embedding.transform import transformed
from fedcof.errors import UserError
from fedcof.heads.classifier import Classifier
from fedcof.run.config import RunConfig
from fedcof.run.results import BACKBONE_FILE_NAME, RunResult, is_within, load_results
from simulations.narrowing import NOTHING, Narrowing

# Larger batches are hardly faster on a CPU, and at 224 px take 20 MB of memory for each image more.
BATCH_SIZE = 8
MOST_CLASSES = 5


@dataclass(frozen=True)
class Prediction:
    """The classes that a run sees in one image.

    Attributes
    ----------
    image : Path
        The image file.
    classes : list of (str, float)
        The five likeliest classes, or all if there are fewer, and their scores, best first. A score is the
        classifier's own (for FedNCM and FedCOF a projection on a unit vector), not a probability. Empty where the
        image cannot be read.
    problem : str
        Why it cannot be read, in a sentence; empty if it can.
    """

    image: Path
    classes: list[tuple[str, float]]
    problem: str = ""


def best_run(folder: Path) -> RunResult:
    """Choose the most accurate run of a folder.

    Parameters
    ----------
    folder : Path
        Folder with a results.json; or a folder within it, of one run's files.

    Returns
    -------
    RunResult
        The first of those with the highest known accuracy, or the only one; its ``head`` is relative to ``folder``.

    Raises
    ------
    UserError
        If the folder holds no run, or several of which no accuracy is known.
    """
    runs = load_results(folder) or _runs_within(folder)
    if not runs:
        raise UserError(f"The folder {folder} holds no finished run: name the output folder of fedcof simulate.")
    known = [run for run in runs if run.accuracy is not None]
    if known:
        return max(known, key=lambda run: run.accuracy or 0.0)
    if len(runs) == 1:
        return runs[0]
    folders = sorted({str(folder / Path(run.head).parent) for run in runs})
    raise UserError(
        f"Nobody knows the accuracy of any of the {len(runs)} runs in {folder}, so none is the best: name the "
        f"folder of one, {' or '.join(folders)}."
    )


def _runs_within(folder: Path) -> list[RunResult]:
    """Find the run whose files lie in a folder of their own, among the results of the folder above."""
    folder = folder.absolute()
    runs = [run for run in load_results(folder.parent) if (folder.parent / run.head).parent == folder]
    return [replace(run, head=Path(run.head).name) for run in runs]


def predict(
    folder: Path, run: RunResult, images: Sequence[Path], known: Narrowing = NOTHING
) -> Iterator[Prediction]:
    """Classify image files with a run's backbone and classifier, with one batch of them in memory at a time.

    Parameters
    ----------
    folder : Path
        The run's folder.
    run : RunResult
        One of its runs.
    images : sequence of Path
        Image files, however many.
    known : Narrowing
        What is known of their classes.

    Yields
    ------
    Prediction
        One for each file, in their order; where it is missing or not an image, with the problem.

    Raises
    ------
    UserError
        If the run has no classifier or no backbone, or its classifier has not these classes.
    """
    classifier = known.classifier(folder, run)
    backbone, embedding = backbone_of_run(folder, run), RunConfig.from_mapping(run.config).embedding
    for start in range(0, len(images), BATCH_SIZE):
        paths = images[start : start + BATCH_SIZE]
        inputs = [_input_of(backbone, path) for path in paths]
        readable = [image for image in inputs if isinstance(image, Tensor)]
        classes = iter(_likeliest(classifier, backbone, embedding, torch.stack(readable)) if readable else ())
        for path, image in zip(paths, inputs, strict=True):
            if isinstance(image, UserError):
                yield Prediction(path, [], str(image))
            else:
                yield Prediction(path, next(classes))


def _likeliest(
    classifier: Classifier, backbone: Backbone, embedding: EmbeddingSection, inputs: Tensor
) -> list[list[tuple[str, float]]]:
    with torch.inference_mode():
        scores = classifier.scores(transformed(backbone.module(inputs), embedding.feature_transform))
    best = scores.topk(min(MOST_CLASSES, int(classifier.present.sum())), dim=1)
    return [
        [(classifier.names[index], score) for score, index in zip(values, indices, strict=True)]
        for values, indices in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]


def _input_of(backbone: Backbone, path: Path) -> Tensor | UserError:
    try:
        return backbone.transform(decode_image(path))
    except UserError as error:
        return error


def backbone_of_run(folder: Path, run: RunResult) -> Backbone:
    """Load the backbone that a run's classifier belongs to: the frozen one, or the one that it fine-tuned.

    Parameters
    ----------
    folder : Path
        The run's folder.
    run : RunResult
        One of its runs.

    Returns
    -------
    Backbone
        Frozen.

    Raises
    ------
    UserError
        If its features were computed elsewhere, or its weights cannot be read.
    """
    config = RunConfig.from_mapping(run.config)
    if config.training.trains_backbone:
        trained = (folder / run.head).with_name(BACKBONE_FILE_NAME)
        if not is_within(folder, trained):
            raise UserError(f"The backbone {trained} leads out of {folder}: copy the file itself there.")
        config = config.replaced(weights=str(trained))
    return backbone_of(config)
