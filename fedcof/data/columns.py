"""Which columns of a table are the image and the label, and what its classes are called."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Image, Value
from numpy.typing import NDArray

from fedcof.data.arrow_columns import labels_in, missing_rows, names_classes, usually_names_classes
from fedcof.data.image_dataset import ImageDataset
from fedcof.data.labels import SplitLabels, matched_labels
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
    _check_in_test(name, "image", column, test, _holds_images)
    return tuple(_renamed(split, column, "image").cast_column("image", Image()) for split in (train, test))


def _holds_images(feature: object) -> bool:
    if isinstance(feature, Value):
        return bool(feature.dtype in ("binary", "large_binary"))
    return isinstance(feature, Image) or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})


def with_label_column(name: str, train: Dataset, test: Dataset, wanted: str) -> ImageDataset:
    """Find the column of labels in both splits, and match their classes by name; raises UserError."""
    column = _chosen_column(name, "label", train, wanted, _label_candidates(train), LABEL_COLUMNS)
    if not names_classes(train.features[column]):
        raise UserError(
            f"The column {column} of {name} holds no labels but {train.features[column]}: "
            "set label-column to one of whole numbers, texts or truth values."
        )
    _check_in_test(name, "label", column, test, names_classes)
    train, test = (_renamed(split, column, "label") for split in (train, test))
    labels = [_labels_of(name, split) for split in (train, test)]
    class_names, *ids = matched_labels(name, *labels)
    _check_two_classes(name, ids[0], class_names)
    train, test = (_with_ids(split, of, class_names) for split, of in zip((train, test), ids, strict=True))
    return ImageDataset(name, train, test, class_names)


def _label_candidates(train: Dataset) -> list[str]:
    """List the columns that may hold labels; truth values and floats only where nothing else does."""
    for holds_labels in (usually_names_classes, names_classes):
        found = [
            column
            for column, feature in train.features.items()
            if isinstance(feature, ClassLabel) or (column in LABEL_COLUMNS and holds_labels(feature))
        ]
        if found:
            return found
    return []


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


def _check_in_test(name: str, role: str, column: str, test: Dataset, holds: Callable[[object], bool]) -> None:
    if not holds(test.features.get(column)):
        raise UserError(
            f"The test split of {name} has no column {column} of {role}s, as its train split has: "
            "call and write the columns of both alike."
        )


def _labels_of(name: str, split: Dataset) -> SplitLabels:
    column, called = _arrow(split), split.split or "given"
    missing = len(missing_rows(column))
    if missing:
        raise UserError(f"In {name} {missing} rows of the {called} split have no label: remove or label them.")
    return labels_in(f"the {called} split of {name}", column, split.features["label"])


def _check_two_classes(name: str, ids: NDArray[np.int64], class_names: tuple[str, ...]) -> None:
    if (ids == ids[0]).all():
        raise UserError(
            f"All training images of {name} are of one class, {class_names[ids[0]]!r}, but a classifier needs two: "
            "add images of another class, or set label-column to another column."
        )


def _with_ids(split: Dataset, ids: NDArray[np.int64], class_names: tuple[str, ...]) -> Dataset:
    """Give a split the ids of its classes for its labels."""
    column = _arrow(split)
    if pa.types.is_integer(column.type) and np.array_equal(column.to_numpy(), ids):
        return split
    # Casting the column instead would write every image anew.
    return split.remove_columns("label").add_column("label", ids, feature=ClassLabel(names=list(class_names)))


def _arrow(split: Dataset) -> pa.ChunkedArray:
    return split.select_columns("label").with_format("arrow")[:]["label"]
