"""Where image datasets come from: packaged, parquet files, folders, the hub."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
import httpx
import numpy as np
import PIL.Image
from datasets import ClassLabel, Dataset, Features, Image, NamedSplit
from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from fedcof.data.folder_walk import files_within
from fedcof.data.image_files import ImageFiles, by_path
from fedcof.data.intake import Intake, LeftOut, check_bad_images, check_no_class_lost
from fedcof.data.parquet_files import Files, load_by_description
from fedcof.data.table_cache import refused_copy, table_cache_dir
from fedcof.embedding.flaws import Flaw, Kind
from fedcof.errors import UserError, first_line
from fedcof.files import private_folder

HUB_TIMEOUT_SECONDS = 10.0
SPLITS = ("train", "test")


def digits(_: str) -> dict[str, Dataset]:
    """Make scikit-learn's digits, a fixed fifth of each class as the test split."""
    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    rows = train_test_split(np.arange(len(pixels)), test_size=0.2, stratify=digits.target, random_state=0)
    features = Features({"image": Image(), "label": ClassLabel(names=[str(name) for name in digits.target_names])})
    return {
        split: Dataset.from_dict(
            {"image": [PIL.Image.fromarray(image) for image in pixels[part]], "label": digits.target[part]},
            features=features,
            split=NamedSplit(split),
        )
        for split, part in zip(("train", "test"), rows, strict=True)
    }


def parquet(place: str) -> Mapping[str, Dataset]:
    """Read the parquet files of a folder; raises UserError if a split is missing."""
    files = {split: list(map(str, found)) for split, found in parquet_files(place).items()}
    for split, found in files.items():
        if not found:
            raise UserError(f"The folder {place} has no {split}*.parquet: put the {split} split's files there.")

    def load(some: Files) -> Mapping[str, Dataset]:
        escaped = {split: list(map(glob.escape, of_split)) for split, of_split in some.items()}
        return _loaded(f"parquet:{place}", "parquet", escaped)

    return load_by_description(f"parquet:{place}", files, load)


def parquet_files(place: str) -> dict[str, list[Path]]:
    """List the parquet files of each split of a folder, in order; raises UserError if there is no such folder."""
    folder = existing_folder("parquet", place)
    return {split: sorted(folder.glob(f"{split}*.parquet")) for split in SPLITS}


def image_folder(place: str, bad_images: str, thorough: bool) -> tuple[dict[str, Dataset], Intake]:
    """Find the images of a folder.

    Parameters
    ----------
    place : str
        Holds ``train`` and ``test``, and each of them a folder for each class.
    bad_images : {"error", "skip"}
        What to do about images that cannot be used.
    thorough : bool
        Whether every image is decoded to find them.

    Returns
    -------
    tuple of (dict of str to Dataset, Intake)
        The two splits, and what is left out of them.

    Raises
    ------
    UserError
        If a split or a class is missing, or an image cannot be used.
    """
    folder, name = existing_folder("folder", place), f"folder:{place}"
    places = {split: folder / split for split in SPLITS}
    found = {split: ImageFiles(path, split, by_path, thorough) for split, path in places.items() if path.is_dir()}
    for split in SPLITS:
        if split not in found or not found[split].classes:
            raise UserError(
                f"The folder {place} has no images under {split}/CLASS/: "
                f"put the {split} split's images there, one folder for each class."
            )
    _check_classes(name, found["train"].classes, found["test"].classes)
    left_out = [each for files in found.values() for each in files.left_out]
    check_bad_images(name, left_out, bad_images, f"{folder}/")
    for split, files in found.items():
        check_no_class_lost(name, split, files.classes, files.taken)
    taken = {split: files.taken for split, files in found.items()}
    intake = Intake(taken, (*left_out, *left_beside(folder, list(places.values()))))
    names = found["train"].classes
    return {split: files.table(names) for split, files in found.items()}, intake


def _check_classes(name: str, train: Sequence[str], test: Sequence[str]) -> None:
    if unknown := sorted(set(test) - set(train)):
        raise UserError(
            f"The test split of {name} has the class {unknown[0]!r}, which the train split lacks: "
            "remove its test images or add training images."
        )
    if len(train) == 1:
        raise UserError(
            f"The dataset {name} has a single class, {train[0]!r}, but there must be two to tell apart: put the "
            "images of each class in a folder of its own, directly in train and in test."
        )


def left_beside(folder: Path, taken: Sequence[Path]) -> list[LeftOut]:
    """List what lies in a dataset's folder and belongs to no split.

    Parameters
    ----------
    folder : Path
        The dataset's.
    taken : sequence of Path
        Files and folders of its splits.

    Returns
    -------
    list of LeftOut
        A folder counts the files in it.
    """
    flaw = Flaw(Kind.OTHER, "it is of no split: they are called train and test")
    others = sorted(set(folder.iterdir()) - set(taken))
    return [LeftOut("", str(path), flaw, files=files_within(str(path))) for path in others]


def _is_split(folder: Path, split: str) -> bool:
    return (folder / split).is_dir()


def existing_folder(kind: str, place: str) -> Path:
    """Find a dataset's folder; raises UserError if it is missing or empty."""
    folder = Path(place).expanduser().resolve()
    if not folder.is_dir():
        raise UserError(f"There is no folder {place}: give one that exists, as {kind}:DIR.")
    if not any(folder.iterdir()):
        raise UserError(f"The folder {place} is empty, but a train and a test split were expected: put them there.")
    return folder


def hub(place: str) -> Mapping[str, Dataset]:
    """Load a dataset of the hub; raises UserError if there is none, or no way to it."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", place):
        raise UserError(f"The hub has no dataset called {place!r}: give its owner and name, as hub:OWNER/NAME.")
    try:
        # Asked first, because loading would try an unreachable hub for half a minute.
        HfApi().dataset_info(place, timeout=HUB_TIMEOUT_SECONDS)
    except RepositoryNotFoundError as error:
        raise UserError(
            f"The hub has no dataset {place} that you may read: check its owner and name, "
            "and log in with 'hf auth login' if it is private."
        ) from error
    except OfflineModeIsEnabled:
        pass
    except (OSError, httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError) as error:
        # The last two are what httpx says of a proxy of a kind that it does not know.
        raise _unreachable(place, error) from error
    return _loaded(f"hub:{place}", place, None)


def _unreachable(place: str, error: Exception) -> UserError:
    return UserError(
        f"The Hugging Face hub could not be reached for {place} ({first_line(error)}): check the network, set "
        "HF_HUB_OFFLINE=1 to use a copy loaded earlier, or use parquet:DIR or folder:DIR, which work offline."
    )


def _loaded(name: str, path: str, data_files: Mapping[str, object] | None) -> Mapping[str, Dataset]:
    """Load by the library, with one sentence for whatever it cannot read."""
    # What is read from the hub stays where other programs look for it, and where it is found offline.
    cache = table_cache_dir() if data_files else Path(datasets.config.HF_DATASETS_CACHE)
    place = {"cache_dir": str(cache)} if data_files else {}
    try:
        if data_files:
            private_folder(cache, leave_existing=True)
        splits: Mapping[str, Dataset] = datasets.load_dataset(path, data_files=data_files, **place)
    except ConnectionError as error:
        raise _unreachable(path, error) from error
    except (OSError, ValueError, TypeError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        if refused := refused_copy(name, error, cache):
            raise refused from error
        reason = first_line(error.__cause__ or error)
        raise UserError(f"The dataset {name} cannot be read ({reason}): check its files.") from error
    return splits
