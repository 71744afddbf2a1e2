"""Predictions in a file, as CSV or JSON: written as they come, and in its place once all are there."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TextIO

from fedcof.errors import UserError, first_line
from fedcof.files import whole_file
from simulations.prediction import MOST_CLASSES, Prediction

Write = Callable[[Prediction], None]


def check_output(path: Path) -> None:
    """Refuse a place that predictions cannot be written to, before anything is computed.

    Parameters
    ----------
    path : Path
        The file that is asked for.

    Raises
    ------
    UserError
        If its name does not say how to write them, or it is a folder.
    """
    if path.suffix.lower() not in _FORMATS:
        raise UserError(
            f"The name {path} does not say how to write predictions: name a file that ends in "
            f"{' or '.join(_FORMATS)}."
        )
    if path.is_dir():
        raise UserError(f"Predictions cannot be written to {path}, which is a folder: name a file in it.")


@contextmanager
def prediction_file(path: Path) -> Iterator[Write]:
    """Open a file for predictions; it has its name once the block is through, and until then what it was.

    Parameters
    ----------
    path : Path
        The file to write or to replace, see :func:`check_output`; its folder is made if missing.

    Yields
    ------
    callable
        To be called with each prediction.

    Raises
    ------
    UserError
        If it cannot be written.
    """
    try:
        # Half characters, which a name on disk may have, are written as what they stand for.
        with (
            whole_file(path) as unfinished,
            unfinished.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
            _FORMATS[path.suffix.lower()](file) as write,
        ):
            yield write
    except OSError as error:
        raise UserError(
            f"The predictions cannot be written to {path} ({error.strerror or first_line(error)}): name a file "
            "in a folder that can be written and has room."
        ) from error


@contextmanager
def _as_csv(file: TextIO) -> Iterator[Write]:
    """Write a line an image: the likeliest class and its score, the next ones, and what is wrong with the image."""
    lines = csv.writer(file, lineterminator="\n")
    numbers = range(1, MOST_CLASSES + 1)
    lines.writerow(["image", *(f"{name}_{number}" for number in numbers for name in ("class", "score")), "problem"])

    def write(prediction: Prediction) -> None:
        cells = [cell for named in prediction.classes for cell in named]
        cells += [""] * (2 * MOST_CLASSES - len(cells))
        lines.writerow([prediction.image, *cells, prediction.problem])

    yield write


@contextmanager
def _as_json(file: TextIO) -> Iterator[Write]:
    """Write a list with an object an image."""
    separator = "[\n"

    def write(prediction: Prediction) -> None:
        nonlocal separator
        classes = [{"class": name, "score": score} for name, score in prediction.classes]
        values = {"image": str(prediction.image), "classes": classes, "problem": prediction.problem or None}
        file.write(separator + json.dumps(values))
        separator = ",\n"

    yield write
    file.write("[]\n" if separator == "[\n" else "\n]\n")


_FORMATS: dict[str, Callable[[TextIO], AbstractContextManager[Write]]] = {".csv": _as_csv, ".json": _as_json}
