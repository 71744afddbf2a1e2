"""Image datasets by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache

import datasets
from datasets import Dataset

from fedcof.data.columns import with_image_column, with_label_column
from fedcof.data.image_dataset import ImageDataset
from fedcof.data.sources import digits, hub, image_folder, parquet
from fedcof.errors import UserError, unknown_name

DATASETS = ["digits", "parquet:DIR", "folder:DIR", "hub:OWNER/NAME", "features:DIR"]


def load_image_dataset(name: str, image_column: str = "", label_column: str = "") -> ImageDataset:
    """Load a dataset by its name.

    Images are not decoded here: a damaged file shows when :func:`rgb_images` comes to it. Features that were
    computed elsewhere (``features:DIR``) have no images; :mod:`fedcof.data.precomputed` reads them.

    Parameters
    ----------
    name : str
        ``digits``: scikit-learn's 1,797 handwritten digits, a fixed fifth of each class as the test split;
        ``parquet:DIR``: the files ``train*.parquet`` and ``test*.parquet`` of a folder;
        ``folder:DIR``: the image files ``DIR/train/CLASS/*`` and ``DIR/test/CLASS/*``;
        ``hub:OWNER/NAME``: a dataset of the Hugging Face hub, its ``validation`` split if it has no ``test``.
    image_column, label_column : str
        Columns of the source, where they cannot be told by their types and names.

    Returns
    -------
    ImageDataset
        Its two splits, with the columns named ``image`` and ``label``.

    Raises
    ------
    UserError
        If the name is unknown, or what it stands for is missing, unreachable, or not a set of labelled images.
    """
    kind, _, place = name.partition(":")
    if kind not in _SOURCES or bool(place) == (kind == "digits"):
        raise unknown_name("dataset", name, DATASETS)
    with _quiet_library():
        splits = _SOURCES[kind](place)
        train, test = _train_and_test(name, splits)
        train, test = with_image_column(name, train, test, image_column)
        return with_label_column(name, train, test, label_column)


@lru_cache(maxsize=4)
def shared_dataset(name: str, image_column: str = "", label_column: str = "") -> ImageDataset:
    """Load a dataset once per process.

    Parameters
    ----------
    name, image_column, label_column : str
        As for :func:`load_image_dataset`.

    Returns
    -------
    ImageDataset
        The same object for the same arguments.

    Raises
    ------
    UserError
        As :func:`load_image_dataset` does.
    """
    return load_image_dataset(name, image_column, label_column)


def _train_and_test(name: str, splits: Mapping[str, Dataset]) -> tuple[Dataset, Dataset]:
    train, test = splits.get("train"), splits.get("test", splits.get("validation"))
    for split, found in (("train", train), ("test", test)):
        if found is None or len(found) == 0:
            raise UserError(
                f"The dataset {name} has no {split} split with images in it, but only {', '.join(splits)}: "
                "both a train and a test split are needed."
            )
    return train, test


@contextmanager
def _quiet_library() -> Iterator[None]:
    """Keep the library's progress bars and log lines off the terminal, and leave its settings as they were."""
    bars_shown = not datasets.are_progress_bars_disabled()
    verbosity = datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if bars_shown:
            datasets.enable_progress_bars()


_SOURCES = {"digits": digits, "parquet": parquet, "folder": image_folder, "hub": hub}
