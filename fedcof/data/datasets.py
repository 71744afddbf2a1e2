"""Image datasets by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache

import datasets
import numpy as np
from datasets import Dataset

from fedcof.data.columns import with_image_column, with_label_column
from fedcof.data.image_dataset import ImageDataset
from fedcof.data.image_files import without_flawed_rows
from fedcof.data.intake import Intake, check_bad_images, check_no_class_lost
from fedcof.data.section import ERROR
from fedcof.data.sources import digits, existing_folder, hub, image_folder, left_beside, parquet, parquet_files
from fedcof.errors import UserError, unknown_name

DATASETS = ["digits", "parquet:DIR", "folder:DIR", "hub:OWNER/NAME", "features:DIR"]


def load_image_dataset(
    name: str, image_column: str = "", label_column: str = "", bad_images: str = ERROR, thorough: bool = False
) -> ImageDataset:
    """Load a dataset by its name.

    The header and the end of every image are looked at; what only decoding shows is found when :func:`rgb_images`
    comes to it, or if it is asked for. Features that were computed elsewhere (``features:DIR``) have no images;
    :mod:`fedcof.data.precomputed` reads them.

    Parameters
    ----------
    name : str
        ``digits``: scikit-learn's 1,797 handwritten digits, a fixed fifth of each class as the test split;
        ``parquet:DIR``: the files ``train*.parquet`` and ``test*.parquet`` of a folder;
        ``folder:DIR``: the images in ``DIR/train/CLASS`` and ``DIR/test/CLASS`` and in folders of theirs;
        ``hub:OWNER/NAME``: a dataset of the Hugging Face hub, its ``validation`` split if it has no ``test``.
    image_column, label_column : str
        Columns of the source, where they cannot be told by their types and names.
    bad_images : {"error", "skip"}
        What to do about images that cannot be used.
    thorough : bool
        Whether every image is decoded to find them.

    Returns
    -------
    ImageDataset
        Its two splits, with the columns named ``image`` and ``label``, and what was left out of them.

    Raises
    ------
    UserError
        If the name is unknown, or what it stands for is missing, unreachable, or not a set of labelled images; as
        :class:`fedcof.data.intake.BadImagesError` if images cannot be used.
    """
    kind, _, place = name.partition(":")
    if kind not in (*_SOURCES, "folder") or bool(place) == (kind == "digits"):
        raise unknown_name("dataset", name, DATASETS)
    with _quiet_library():
        intake: Intake | None = None
        splits: Mapping[str, Dataset]
        if kind == "folder":
            splits, intake = image_folder(place, bad_images, thorough)
        else:
            splits = _SOURCES[kind](place)
        train, test = _train_and_test(name, splits)
        train, test = with_image_column(name, train, test, image_column)
        loaded = with_label_column(name, train, test, label_column)
        if intake:
            return replace(loaded, intake=intake)
        return loaded if kind == "digits" else _without_bad_rows(loaded, bad_images, thorough)


@lru_cache(maxsize=4)
def shared_dataset(
    name: str, image_column: str = "", label_column: str = "", bad_images: str = ERROR
) -> ImageDataset:
    """Load a dataset once per process.

    Parameters
    ----------
    name, image_column, label_column, bad_images : str
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
    return load_image_dataset(name, image_column, label_column, bad_images)


def _without_bad_rows(loaded: ImageDataset, bad_images: str, thorough: bool) -> ImageDataset:
    """Look at the images of tables, leave out those that cannot be used, and note what was taken of which files."""
    name, whole, left_out = loaded.name, {}, []
    for split, images in (("train", loaded.train), ("test", loaded.test)):
        whole[split], of_split = without_flawed_rows(images, split, name, loaded.class_names, thorough)
        left_out += of_split
    check_bad_images(name, left_out, bad_images, f"{name}/")
    kept = replace(loaded, **whole)
    taken = {split: _taken(kept, split) for split in whole}
    for split, classes in taken.items():
        check_no_class_lost(name, split, {each.label for each in left_out if each.split == split}, classes)
    kind, _, place = name.partition(":")
    files = parquet_files(place) if kind == "parquet" else {}
    if files:
        tables = [path for of_split in files.values() for path in of_split]
        left_out += left_beside(existing_folder(kind, place), tables)
    names = {split: [path.name for path in paths] for split, paths in files.items()}
    return replace(kept, intake=Intake(taken, tuple(left_out), names))


def _taken(dataset: ImageDataset, split: str) -> dict[str, int]:
    counts = np.bincount(dataset.labels(split), minlength=dataset.num_classes).tolist()
    return {name: count for name, count in zip(dataset.class_names, counts, strict=True) if count}


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


_SOURCES = {"digits": digits, "parquet": parquet, "hub": hub}
