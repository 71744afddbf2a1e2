"""Which columns of a table are the image and the label, and what its classes are called."""

from __future__ import annotations

import numpy as np
from datasets import ClassLabel, Dataset, Image, Value

from fedcof.data.image_dataset import ImageDataset
from fedcof.embedding.images import column_values
from fedcof.errors import UserError, unknown_name

# What image classification datasets on the hub call their columns; finer labels go before coarser ones.
IMAGE_COLUMNS = ("image", "img", "images", "pixel_values")


LABEL_COLUMNS = ("label", "labels", "fine_label", "target", "targets", "class", "class_id", "category")


def with_image_column(name: str, train: Dataset, test: Dataset, wanted: str) -> tuple[Dataset, Dataset]:
    """Find the column of images in both splits, and call it ``image``; raises UserError if none can be meant."""
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


def with_label_column(name: str, train: Dataset, test: Dataset, wanted: str) -> ImageDataset:
    """Find the column of labels in both splits, number its classes, and check them; raises UserError."""
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
    _check_two_classes(loaded)
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


def _check_two_classes(loaded: ImageDataset) -> None:
    numbers = np.unique(loaded.labels("train"))
    if len(numbers) == 1:
        raise UserError(
            f"All training images of {loaded.name} are of one class, {loaded.class_names[numbers[0]]!r}, but a "
            "classifier needs two: add images of another class, or set label-column to another column."
        )
