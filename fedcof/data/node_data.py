"""A node's own images: a folder of classes, or a table of paths and labels, read by the class names agreed on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import datasets

from fedcof.data.agreed_names import agreed_names
from fedcof.data.class_list import class_names_of
from fedcof.data.image_dataset import ImageDataset
from fedcof.data.image_files import ImageFiles, by_parts, without_flawed_files
from fedcof.data.intake import Intake, check_bad_images, check_no_class_lost
from fedcof.data.node_table import files_of_table, is_table
from fedcof.data.section import ERROR
from fedcof.embedding.flaws import Kind
from fedcof.errors import UserError


@dataclass(frozen=True)
class NodeImages:
    """A node's images.

    Attributes
    ----------
    images : datasets.Dataset
        Columns ``image`` and ``label`` (its class's id), in the order of the files, or of the table's lines.
    intake : Intake
        What was taken, and what was left out.
    """

    images: datasets.Dataset
    intake: Intake


def load_node_images(data: str, class_names: tuple[str, ...]) -> datasets.Dataset:
    """Read what images a node has, all of which must be such that can be used.

    Parameters
    ----------
    data, class_names
        See :func:`read_node_images`.

    Returns
    -------
    datasets.Dataset
        See :class:`NodeImages`.

    Raises
    ------
    UserError
        As :func:`read_node_images`.
    """
    return read_node_images(data, class_names).images


def read_node_images(
    data: str, class_names: tuple[str, ...], bad_images: str = ERROR, thorough: bool = False, split: str = "train"
) -> NodeImages:
    """Read what images a node has, and what it has beside them.

    Parameters
    ----------
    data : str
        A folder with a folder of images for each class; or a table, ``.csv`` or ``.parquet``, with the columns
        ``path`` (relative to the table) and ``label`` (a class's name).
    class_names : tuple of str
        Names of the C classes in the order of their ids.
    bad_images : {"error", "skip"}
        What to do about images that cannot be used.
    thorough : bool
        Whether every image is decoded to find them.
    split : str
        What to call them.

    Returns
    -------
    NodeImages
        Those that can be used.

    Raises
    ------
    UserError
        If there is no such place, a table lacks a column, a class is not one of those agreed on or has lost all its
        images; as :class:`fedcof.data.intake.BadImagesError` if images cannot be used.
    """
    path = Path(data).expanduser()
    if path.is_dir():
        found = ImageFiles(path, split, by_parts, thorough)
        files, names, left_out = found.files, found.labels, found.left_out
        agreed = agreed_names(data, names, class_names)
    elif is_table(path):
        files, names = files_of_table(path)
        agreed = agreed_names(data, names, class_names)
        files, names, left_out = without_flawed_files(files, names, split, thorough)
    else:
        raise UserError(
            f"There are no images at {data}: give a folder with a folder for each class, or a .csv or .parquet "
            "table."
        )
    check_bad_images(data, left_out, bad_images, f"{path if path.is_dir() else path.parent}/")
    counts = Counter(agreed[name] for name in names)
    # A folder without any file is that of a class that the node has none of.
    had = {agreed.get(each.label, each.label) for each in left_out if each.flaw.kind is not Kind.HIDDEN}
    check_no_class_lost(data, split, [name for name in class_names if name in had], counts)
    ids = {name: number for number, name in enumerate(class_names)}
    columns = {"image": files, "label": [ids[agreed[name]] for name in names]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    images = datasets.Dataset.from_dict(columns, features=features)
    taken = {name: counts[name] for name in class_names if counts[name]}
    return NodeImages(images, Intake({split: taken}, tuple(left_out)))


@lru_cache(maxsize=2)
def shared_node_dataset(
    classes: str, test_data: str, bad_images: str = ERROR, thorough: bool = False
) -> ImageDataset:
    """Describe a federation whose training images lie on its nodes, once per process.

    Parameters
    ----------
    classes : str
        See :func:`class_names_of`.
    test_data : str
        The server's own test images, as for :func:`read_node_images`; empty for none.
    bad_images, thorough
        See :func:`read_node_images`.

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
    if not test_data:
        return ImageDataset("nodes", empty, empty, names)
    test = read_node_images(test_data, names, bad_images, thorough, "test")
    return ImageDataset("nodes", empty, test.images, names, test.intake)
