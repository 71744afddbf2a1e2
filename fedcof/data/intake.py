"""What a dataset takes of what lies on disk, and what it leaves out and why: nothing is left out silently."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fedcof.data.section import SKIP
from fedcof.embedding.flaws import Flaw, Kind
from fedcof.errors import UserError
from fedcof.files import write_whole

LEFT_OUT_FILE_NAME = "left_out.csv"
_SHOWN = 5


@dataclass(frozen=True)
class LeftOut:
    """Something that is not taken.

    Attributes
    ----------
    split : str
        The split that it lies in.
    place : str
        Its path, or its row.
    flaw : Flaw
        Why.
    label : str
        The class that it would have been of; empty where it has none.
    is_bad : bool
        Whether it was meant as an image, so that something went wrong with it.
    files : int
        How many files it is: those within it, if it is a folder.
    """

    split: str
    place: str
    flaw: Flaw
    label: str = ""
    is_bad: bool = False
    files: int = 1


@dataclass(frozen=True)
class Intake:
    """What a dataset takes and leaves out.

    Attributes
    ----------
    taken : mapping
        For each split the number of images of each class that has any, in the order of the classes.
    left_out : tuple of LeftOut
        All that is not taken; what lies beside the splits has an empty name for its split.
    files : mapping
        For each split the names of the tables that it is read from, where it is.
    """

    taken: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()
    files: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def bad_by_class(self) -> list[tuple[str, str, int]]:
        """Count the bad images that are left out: split, class, and how many."""
        counts = Counter((each.split, each.label) for each in self.left_out if each.is_bad)
        return [(split, label, count) for (split, label), count in sorted(counts.items())]

    def summary(self) -> list[str]:
        """Say in a line for each split what is taken and what is left out, and in one what lies beside them."""
        lines = [f"{split}: {self._taken_of(split)}; {self._left_out_of(split)}" for split in self.taken]
        if any(not each.split for each in self.left_out):
            lines.append(f"beside {' and '.join(self.taken)}: {self._left_out_of('')}")
        return lines

    def _taken_of(self, split: str) -> str:
        classes, files = self.taken[split], self.files.get(split)
        images = sum(classes.values())
        named = f" ({some(map(written, classes))})" if classes else ""
        return (
            f"{images:,} image{'s' * (images != 1)} of {len(classes):,} class{'es' * (len(classes) != 1)}{named}"
            f"{f' in {some(files)}' if files else ''}"
        )

    def _left_out_of(self, split: str) -> str:
        counts: Counter[Kind] = Counter()
        for each in self.left_out:
            if each.split == split:
                counts[each.flaw.kind] += each.files
        if not counts:
            return "nothing left out"
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in counts.most_common())
        return f"{counts.total():,} left out: {kinds}"


class BadImagesError(UserError):
    """Images that cannot be used, all of them.

    Attributes
    ----------
    left_out : tuple of LeftOut
        What is left out of the dataset, they among it.
    """

    def __init__(self, sentence: str, left_out: Sequence[LeftOut] = ()) -> None:
        super().__init__(sentence)
        self.left_out = tuple(left_out)


def csv_of(left_out: Iterable[LeftOut]) -> str:
    """Write what is left out as CSV.

    Parameters
    ----------
    left_out : iterable of LeftOut
        What to write.

    Returns
    -------
    str
        Columns split, place and reason.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["split", "place", "reason"])
    # A name that is no UTF-8 has halves of characters in it, which no file can be written with.
    lines.writerows([each.split, written(each.place), each.flaw.reason] for each in left_out)
    return text.getvalue()


def write_left_out(left_out: Sequence[LeftOut], folder: Path) -> None:
    """Keep the list of what is left out beside the results; where nothing is, no list of an earlier run stays.

    Parameters
    ----------
    left_out : sequence of LeftOut
        What to list.
    folder : Path
        Folder for the results; made if missing.
    """
    path = folder / LEFT_OUT_FILE_NAME
    if left_out:
        write_whole(path, csv_of(left_out))
    else:
        path.unlink(missing_ok=True)


@contextmanager
def bad_images_listed(folder: Path) -> Iterator[None]:
    """Where images turn out to be bad, list all of them beside the results.

    Parameters
    ----------
    folder : Path
        Folder for the results; made if missing.

    Raises
    ------
    UserError
        In a BadImagesError's place, that also names the list.
    """
    try:
        yield
    except BadImagesError as error:
        write_left_out(error.left_out, folder)
        raise UserError(f"{str(error).rstrip('.')}; all are listed in {folder / LEFT_OUT_FILE_NAME}.") from error


def check_bad_images(name: str, left_out: Sequence[LeftOut], bad_images: str, root: str = "") -> None:
    """Refuse a dataset with images that cannot be used, unless they are to be left out.

    Parameters
    ----------
    name : str
        What to call the dataset.
    left_out : sequence of LeftOut
        What it leaves out.
    bad_images : {"error", "skip"}
        What to do about bad ones.
    root : str
        What their places begin with, which need not be said of each.

    Raises
    ------
    BadImagesError
        That names the first of them, and counts all.
    """
    bad = [each for each in left_out if each.is_bad]
    if not bad or bad_images == SKIP:
        return
    first = "; ".join(f"{written(each.place.removeprefix(root))}: {each.flaw.reason}" for each in bad[:_SHOWN])
    others = f"; and {len(bad) - _SHOWN:,} more" if len(bad) > _SHOWN else ""
    raise BadImagesError(
        f"{len(bad):,} image{'s' * (len(bad) != 1)} of {name} cannot be used ({first}{others}): mend or remove "
        "them, or set bad-images to skip to leave them out.",
        left_out,
    )


def check_no_class_lost(name: str, split: str, classes: Iterable[str], taken: Mapping[str, int]) -> None:
    """Refuse a dataset a class of which has lost all its images.

    Parameters
    ----------
    name, split : str
        What to call the dataset and its split.
    classes : iterable of str
        Classes that have a folder or rows there.
    taken : mapping of str to int
        Images of each class that has any.

    Raises
    ------
    UserError
        That names such classes.
    """
    lost = [known for known in classes if not taken.get(known)]
    if lost:
        raise UserError(
            f"In {name} no image is left of {len(lost)} class{'es' * (len(lost) != 1)} of the {split} split "
            f"({some(map(written, lost))}): put images there, or remove the class."
        )


def some(names: Iterable[str]) -> str:
    """List names, the first five of them."""
    listed = list(names)
    return ", ".join(listed[:_SHOWN]) + (", ..." if len(listed) > _SHOWN else "")


def written(place: str) -> str:
    """Give a name as text that any file can be written with: what is no UTF-8 in it is escaped."""
    return place.encode(errors="backslashreplace").decode()
