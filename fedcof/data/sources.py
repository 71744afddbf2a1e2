"""Where image datasets come from: packaged, parquet files, folders, the hub."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
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

from fedcof.data.table_cache import refused_copy, table_cache_dir
from fedcof.errors import UserError, first_line

HUB_TIMEOUT_SECONDS = 10.0


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
    folder = _existing_folder("parquet", place)
    files = {split: sorted(map(str, folder.glob(f"{split}*.parquet"))) for split in ("train", "test")}
    for split, found in files.items():
        if not found:
            raise UserError(f"The folder {place} has no {split}*.parquet: put the {split} split's files there.")
    return _loaded(f"parquet:{place}", "parquet", {split: list(map(glob.escape, files[split])) for split in files})


def image_folder(place: str) -> Mapping[str, Dataset]:
    """Find the image files of a folder; raises UserError if a split is missing."""
    folder = _existing_folder("folder", place)
    for split in ("train", "test"):
        if not any((folder / split).glob("*/*")):
            raise UserError(
                f"The folder {place} has no images under {split}/CLASS/: "
                f"put the {split} split's images there, one folder for each class."
            )
    # By patterns of our own: the library's would take train/test_tube/ for a part of the test split.
    return _loaded(
        f"folder:{place}",
        "imagefolder",
        {split: f"{glob.escape(str(folder / split))}/**" for split in ("train", "test")},
    )


def _existing_folder(kind: str, place: str) -> Path:
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
        splits: Mapping[str, Dataset] = datasets.load_dataset(path, data_files=data_files, **place)
    except ConnectionError as error:
        raise _unreachable(path, error) from error
    except (OSError, ValueError, TypeError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        if refused := refused_copy(name, error, cache):
            raise refused from error
        reason = first_line(error.__cause__ or error)
        raise UserError(f"The dataset {name} cannot be read ({reason}): check its files.") from error
    return splits
