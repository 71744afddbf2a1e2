"""Image datasets by name: where they come from, and which of their columns are the image and the label."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import datasets
import httpx
import numpy as np
import PIL.Image
from datasets import ClassLabel, Dataset, Features, Image, NamedSplit, Value
from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from fedcof.errors import UserError, unknown_name

DATASETS = ["digits", "parquet:DIR", "folder:DIR", "hub:OWNER/NAME", "features:DIR"]

# What image classification datasets on the hub call their columns; finer labels go before coarser ones.
IMAGE_COLUMNS = ("image", "img", "images", "pixel_values")
LABEL_COLUMNS = ("label", "labels", "fine_label", "target", "targets", "class", "class_id", "category")

HUB_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class ImageDataset:
    """A training and a test split of labelled images.

    Attributes
    ----------
    name : str
        The name it was loaded by.
    train, test : datasets.Dataset
        Columns ``image`` (``datasets.Image``) and ``label`` (a whole number from 0), and the source's others.
    class_names : tuple of str
        What each label stands for.
    """

    name: str
    train: Dataset
    test: Dataset
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """Number of classes, those without a sample included."""
        return len(self.class_names)

    def labels(self, split: str) -> NDArray[np.int64]:
        """Read the labels of a split without decoding any image.

        Parameters
        ----------
        split : {"train", "test"}
            Which part of the dataset.

        Returns
        -------
        ndarray
            Class of each sample (n,), int64.

        Raises
        ------
        UserError
            If the split is neither.
        """
        if split not in ("train", "test"):
            raise unknown_name("split", split, ["train", "test"])
        return column_values(self.train if split == "train" else self.test, "label").astype(np.int64, copy=False)


def load_image_dataset(name: str, image_column: str = "", label_column: str = "") -> ImageDataset:
    """Load a dataset by its name.

    Images are not decoded here: a damaged file shows when :func:`rgb_images` comes to it. Features that were
    computed elsewhere (``features:DIR``) have no images; :mod:`fedcof.precomputed` reads them.

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
        train, test = _with_image_column(name, train, test, image_column)
        return _with_label_column(name, train, test, label_column)


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


def column_values(dataset: Dataset, column: str) -> NDArray[np.generic]:
    """Read a column of numbers or texts, without decoding any image.

    Parameters
    ----------
    dataset : datasets.Dataset
        A split of an :class:`ImageDataset`, or a selection of its rows.
    column : str
        Which column.

    Returns
    -------
    ndarray
        One value per row (n,), of the column's own dtype.
    """
    values: NDArray[np.generic] = dataset.select_columns(column).with_format("arrow")[:][column].to_numpy()
    return values


def rgb_images(dataset: Dataset, indices: Iterable[int]) -> list[PIL.Image.Image]:
    """Decode images, turned upright by their EXIF tag, as RGB.

    Parameters
    ----------
    dataset : datasets.Dataset
        A split of an :class:`ImageDataset`, or a selection of its rows.
    indices : iterable of int
        Rows to decode.

    Returns
    -------
    list of PIL.Image.Image
        One RGB image per index, in the order of the indices, of the source's sizes.

    Raises
    ------
    UserError
        If an image is missing or cannot be decoded; the sentence names its file, or its row where it has none.
    """
    rows = [int(index) for index in indices]
    # A format set on the dataset would turn the encoded bytes into something else.
    encoded = dataset.select_columns("image").with_format(None).cast_column("image", Image(decode=False))
    return [
        _decoded(image, row, dataset)
        for row, image in zip(rows, encoded[rows]["image"] if rows else [], strict=True)
    ]


def _decoded(encoded: Mapping[str, object] | None, row: int, dataset: Dataset) -> PIL.Image.Image:
    place = (encoded or {}).get("path") or f"row {row} of {len(dataset)}"
    where = f"The image {place} of the {dataset.split or 'given'} split"
    if encoded is None or not (encoded.get("bytes") or encoded.get("path")):
        raise UserError(f"{where} is missing, but every row needs one: remove the row or give it an image.")
    try:
        return _as_rgb(Image().decode_example(encoded))
    except (
        Exception
    ) as error:  # Pillow's decoders raise whatever they trip over: OSError, SyntaxError, struct.error
        raise UserError(
            f"{where} cannot be read ({_first_line(error)}): replace it by a whole image file, or remove it."
        ) from error


def _as_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode.startswith("I"):
        # Pillow cuts 16-bit grey values off at 255 instead of scaling them.
        image = PIL.Image.fromarray((np.asarray(image) // 256).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def _digits(_: str) -> dict[str, Dataset]:
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


def _parquet(place: str) -> Mapping[str, Dataset]:
    folder = _existing_folder("parquet", place)
    files = {split: sorted(map(str, folder.glob(f"{split}*.parquet"))) for split in ("train", "test")}
    for split, found in files.items():
        if not found:
            raise UserError(f"The folder {place} has no {split}*.parquet: put the {split} split's files there.")
    return _loaded(f"parquet:{place}", "parquet", {split: list(map(glob.escape, files[split])) for split in files})


def _folder(place: str) -> Mapping[str, Dataset]:
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


def _hub(place: str) -> Mapping[str, Dataset]:
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
    except (OSError, httpx.HTTPError) as error:
        raise _unreachable(place, error) from error
    return _loaded(f"hub:{place}", place, None)


def _unreachable(place: str, error: Exception) -> UserError:
    return UserError(
        f"The Hugging Face hub could not be reached for {place} ({_first_line(error)}): check the network, set "
        "HF_HUB_OFFLINE=1 to use a copy loaded earlier, or use parquet:DIR or folder:DIR, which work offline."
    )


def _loaded(name: str, path: str, data_files: Mapping[str, object] | None) -> Mapping[str, Dataset]:
    """Load by the library, with one sentence for whatever it cannot read."""
    try:
        splits: Mapping[str, Dataset] = datasets.load_dataset(path, data_files=data_files)
    except ConnectionError as error:
        raise _unreachable(path, error) from error
    except (OSError, ValueError, TypeError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = _first_line(error.__cause__ or error)
        raise UserError(f"The dataset {name} cannot be read ({reason}): check its files.") from error
    return splits


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")


def _train_and_test(name: str, splits: Mapping[str, Dataset]) -> tuple[Dataset, Dataset]:
    train, test = splits.get("train"), splits.get("test", splits.get("validation"))
    for split, found in (("train", train), ("test", test)):
        if found is None or len(found) == 0:
            raise UserError(
                f"The dataset {name} has no {split} split with images in it, but only {', '.join(splits)}: "
                "both a train and a test split are needed."
            )
    return train, test


def _with_image_column(name: str, train: Dataset, test: Dataset, wanted: str) -> tuple[Dataset, Dataset]:
    candidates = [column for column, feature in train.features.items() if _holds_images(feature)]
    column = _chosen_column(name, "image", train, wanted, candidates, IMAGE_COLUMNS)
    if column not in candidates:
        raise UserError(
            f"The column {column} of {name} holds no images but {train.features[column]}: "
            "set image-column to one that does."
        )
    return tuple(_renamed(split, column, "image").cast_column("image", Image()) for split in (train, test))


def _holds_images(feature: object) -> bool:
    if isinstance(feature, Value):
        return bool(feature.dtype in ("binary", "large_binary"))
    return isinstance(feature, Image) or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})


def _with_label_column(name: str, train: Dataset, test: Dataset, wanted: str) -> ImageDataset:
    candidates = [
        column
        for column, feature in train.features.items()
        if isinstance(feature, ClassLabel) or (column in LABEL_COLUMNS and _holds_labels(feature))
    ]
    column = _chosen_column(name, "label", train, wanted, candidates, LABEL_COLUMNS)
    if not _holds_labels(train.features[column]):
        raise UserError(
            f"The column {column} of {name} holds no labels but {train.features[column]}: "
            "set label-column to one of whole numbers or texts."
        )
    train, test = (_renamed(split, column, "label") for split in (train, test))
    for split in (train, test):
        _check_no_label_missing(name, split)
    if train.features["label"].dtype in ("string", "large_string"):
        train, test = _with_numbered_classes(name, train, test)
    loaded = ImageDataset(name, train, test, _class_names(train))
    _check_labels(loaded)
    return loaded


def _holds_labels(feature: object) -> bool:
    dtype = getattr(feature, "dtype", "")
    return isinstance(feature, ClassLabel | Value) and ("int" in dtype or dtype in ("string", "large_string"))


def _chosen_column(
    name: str, role: str, train: Dataset, wanted: str, candidates: list[str], usual: tuple[str, ...]
) -> str:
    """Find the column asked for, or the only one that can be meant."""
    if wanted:
        if wanted not in train.column_names:
            raise unknown_name(f"{role}-column", wanted, train.column_names)
        return wanted
    likely = [column for column in candidates if column in usual] if len(candidates) > 1 else candidates
    if len(likely) == 1:
        return likely[0]
    if candidates:
        raise UserError(
            f"The dataset {name} has several columns that may be the {role}, {', '.join(candidates)}: "
            f"set {role}-column to one of them."
        )
    raise UserError(
        f"The dataset {name} has no column that is clearly the {role}, only {', '.join(train.column_names)}: "
        f"set {role}-column if one of them is, or choose another dataset."
    )


def _renamed(split: Dataset, column: str, name: str) -> Dataset:
    if column == name:
        return split
    return (split.remove_columns(name) if name in split.column_names else split).rename_column(column, name)


def _check_no_label_missing(name: str, split: Dataset) -> None:
    missing = split.select_columns("label").with_format("arrow")[:]["label"].null_count
    if missing:
        raise UserError(f"In {name} {missing} rows of the {split.split} split have no label: remove or label them.")


def _with_numbered_classes(name: str, train: Dataset, test: Dataset) -> tuple[Dataset, Dataset]:
    """Replace text labels by their place in the alphabetical order of the training classes."""
    names = sorted(train.unique("label"))
    unknown = sorted(set(test.unique("label")) - set(names))
    if unknown:
        raise UserError(
            f"The test split of {name} has the class {unknown[0]!r}, which the train split lacks: "
            "remove its test images or add training images."
        )
    feature = ClassLabel(names=names)
    numbered = []
    for split in (train, test):
        numbers = np.searchsorted(np.array(names), column_values(split, "label").astype(str)).astype(np.int64)
        # Casting the column instead would write every image anew.
        numbered.append(split.remove_columns("label").add_column("label", numbers, feature=feature))
    return numbered[0], numbered[1]


def _class_names(train: Dataset) -> tuple[str, ...]:
    feature = train.features["label"]
    if isinstance(feature, ClassLabel):
        return tuple(feature.names)
    return tuple(str(number) for number in range(int(column_values(train, "label").max()) + 1))


def _check_labels(loaded: ImageDataset) -> None:
    train, test = loaded.labels("train"), loaded.labels("test")
    lowest = int(min(train.min(), test.min()))
    if lowest < 0:
        raise UserError(
            f"The dataset {loaded.name} has the label {lowest}, but labels are counted from 0: "
            "remove rows without a class, or set label-column to another column."
        )
    if not isinstance(loaded.train.features["label"], ClassLabel) and train.min() > 0:
        raise UserError(
            f"The lowest label of {loaded.name} is {train.min()}, but labels must be counted from 0: "
            "number them anew, or set label-column to another column."
        )
    if max(train.max(), test.max()) >= loaded.num_classes:
        raise UserError(
            f"The test split of {loaded.name} has the label {test.max()}, but the classes of its train split end "
            f"at {loaded.num_classes - 1}: remove those test images or add training images."
        )


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


_SOURCES = {"digits": _digits, "parquet": _parquet, "folder": _folder, "hub": _hub}
