"""A node's own images: a folder of classes, or a table of paths and labels, read by the class names agreed on."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import datasets
from PIL import Image

from fedcof.data.class_list import class_names_of, places_of
from fedcof.data.image_dataset import ImageDataset
from fedcof.data.node_table import files_of_table, is_table
from fedcof.errors import UserError


def load_node_images(data: str, class_names: tuple[str, ...]) -> datasets.Dataset:
    """Read what images a node has, without decoding any.

    Parameters
    ----------
    data : str
        A folder with a folder of image files for each class; or a table, ``.csv`` or ``.parquet``, with the columns
        ``path`` (relative to the table) and ``label`` (a class's name).
    class_names : tuple of str
        Names of the C classes in the order of their ids.

    Returns
    -------
    datasets.Dataset
        Columns ``image`` and ``label`` (its class's id), in the order of the files, or of the table's lines.

    Raises
    ------
    UserError
        If there is no such place, a table lacks a column, or a class is not one of those agreed on.
    """
    path = Path(data).expanduser()
    if path.is_dir():
        files, names = _files_of_folder(path)
    elif is_table(path):
        files, names = files_of_table(path)
    else:
        raise UserError(
            f"There are no images at {data}: give a folder with a folder for each class, or a .csv or .parquet "
            "table."
        )
    distinct = sorted(set(names))
    ids = dict(zip(distinct, places_of(class_names, distinct), strict=True))
    for name, place in ids.items():
        if place < 0:
            raise UserError(
                f"The class {name!r} of {data} is not one of the {len(class_names)} that the federation agreed on "
                f"({_some(class_names)}): rename or remove it."
            )
    columns = {"image": files, "label": [ids[name] for name in names]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    return datasets.Dataset.from_dict(columns, features=features)


@lru_cache(maxsize=2)
def shared_node_dataset(classes: str, test_data: str) -> ImageDataset:
    """Describe a federation whose training images lie on its nodes, once per process.

    Parameters
    ----------
    classes : str
        See :func:`class_names_of`.
    test_data : str
        The server's own test images, as for :func:`load_node_images`; empty for none.

    Returns
    -------
    ImageDataset
        With an empty training split.

    Raises
    ------
    UserError
        As the two functions.
    """
    names = class_names_of(classes)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    empty = datasets.Dataset.from_dict({"image": [], "label": []}, features=features)
    test = load_node_images(test_data, names) if test_data else empty
    return ImageDataset("nodes", empty, test, names)


def _files_of_folder(folder: Path) -> tuple[list[str], list[str]]:
    suffixes = set(Image.registered_extensions())
    files = [
        file
        for name in sorted(folder.iterdir())
        if name.is_dir()
        for file in sorted(name.rglob("*"))
        if file.suffix.lower() in suffixes and file.is_file()
    ]
    return [str(file) for file in files], [file.relative_to(folder).parts[0] for file in files]


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:5]) + (", ..." if len(listed) > 5 else "")
