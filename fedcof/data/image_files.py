"""Image files as tables: folders of classes and lists of files, with what is left out of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import datasets

from fedcof.data.folder_walk import walk
from fedcof.data.inspection import Flaws, flaws_of_files, flaws_of_rows
from fedcof.data.intake import LeftOut
from fedcof.embedding.flaws import Flaw, Kind
from fedcof.embedding.image_check import is_called_an_image

Order = Callable[[str], tuple[str, ...]]
# What can be wrong with a file that was meant as an image; other formats are images that are just not read.
_DAMAGE = (Kind.BROKEN, Kind.EMPTY, Kind.NO_IMAGE, Kind.UNREADABLE, Kind.MISSING)


def by_path(file: str) -> tuple[str, ...]:
    """Order files by their whole paths, as the datasets library has always done."""
    return (file,)


def by_parts(file: str) -> tuple[str, ...]:
    """Order files folder by folder, as nodes have always done."""
    return Path(file).parts


class ImageFiles:
    """The images of a folder of classes.

    Parameters
    ----------
    folder : Path
        Holds a folder for each class.
    split : str
        What to call it.
    order : callable
        Gives what files are sorted by.
    thorough : bool
        Whether every file is decoded.

    Attributes
    ----------
    files, labels : list of str
        Path and class of each image, in order.
    classes : list of str
        The folders of classes, which may have no image.
    left_out : list of LeftOut
        All else below the folder, in the order of its places.
    """

    def __init__(self, folder: Path, split: str, order: Order, thorough: bool = False) -> None:
        found = walk(folder, split)
        entries = sorted(found.files, key=lambda entry: order(entry[0]))
        flaws = flaws_of_files([file for file, _ in entries], thorough)
        self.split, self.classes, self.left_out = split, sorted(found.classes), found.left_out
        self.files: list[str] = []
        self.labels: list[str] = []
        for place, (file, label) in enumerate(entries):
            flaw = flaws.get(place)
            if flaw is None and label:
                self.files.append(file)
                self.labels.append(label)
                continue
            is_bad = flaw is not None and bool(label) and _is_bad(file, flaw)
            beside = Flaw(Kind.BESIDE, "it lies beside the folders of the classes, and so has no class")
            self.left_out.append(LeftOut(split, file, flaw or beside, label, is_bad))
        self.left_out.sort(key=lambda each: each.place)

    @property
    def taken(self) -> dict[str, int]:
        """Number of images of each class that has any."""
        return dict(sorted(Counter(self.labels).items()))

    def table(self, names: Sequence[str]) -> datasets.Dataset:
        """Make the table of the images.

        Parameters
        ----------
        names : sequence of str
            All classes, in the order of their ids.

        Returns
        -------
        datasets.Dataset
            Columns ``image`` and ``label``.
        """
        ids = {name: number for number, name in enumerate(names)}
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(names))})
        columns = {"image": self.files, "label": [ids[label] for label in self.labels]}
        return datasets.Dataset.from_dict(columns, features=features, split=datasets.NamedSplit(self.split))


def without_flawed_rows(
    images: datasets.Dataset, split: str, name: str, class_names: Sequence[str], thorough: bool
) -> tuple[datasets.Dataset, list[LeftOut]]:
    """Leave the rows without an image out of a table. All of them are bad: a row is meant as an image.

    Parameters
    ----------
    images : datasets.Dataset
        Columns ``image`` and ``label`` (a number).
    split : str
        What to call it.
    name : str
        What to call the dataset.
    class_names : sequence of str
        What each label stands for.
    thorough : bool
        Whether every image is decoded.

    Returns
    -------
    tuple of (Dataset, list of LeftOut)
        The table itself, if nothing is left out of it.
    """
    flaws: Flaws = flaws_of_rows(images, thorough)
    if not flaws:
        return images, []
    labels = images.select_columns("label").with_format("arrow")[:]["label"].to_pylist()
    left_out = [
        LeftOut(split, f"{name}/{split} row {row}", flaw, class_names[int(labels[row])], is_bad=True)
        for row, flaw in flaws.items()
    ]
    return images.select([row for row in range(len(images)) if row not in flaws]), left_out


def without_flawed_files(
    files: Sequence[str], labels: Sequence[str], split: str, thorough: bool
) -> tuple[list[str], list[str], list[LeftOut]]:
    """Leave what is no image out of a list of files. All of it is bad: what is listed is meant as an image.

    Parameters
    ----------
    files, labels : sequence of str
        Path and class of each.
    split : str
        What to call them.
    thorough : bool
        Whether every image is decoded.

    Returns
    -------
    tuple of (list of str, list of str, list of LeftOut)
        Files and classes of the images, and all others.
    """
    flaws = flaws_of_files(files, thorough)
    kept = [place for place in range(len(files)) if place not in flaws]
    left_out = [LeftOut(split, files[place], flaw, labels[place], is_bad=True) for place, flaw in flaws.items()]
    return [files[place] for place in kept], [labels[place] for place in kept], left_out


def _is_bad(file: str, flaw: Flaw) -> bool:
    return flaw.kind is Kind.BROKEN or (flaw.kind in _DAMAGE and is_called_an_image(file))
