"""Tables of images: columns read without decoding, and images decoded as RGB."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import PIL.Image
from datasets import Dataset, Image
from numpy.typing import NDArray

from fedcof.errors import UserError, first_line


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
            f"{where} cannot be read ({first_line(error)}): replace it by a whole image file, or remove it."
        ) from error


def _as_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode.startswith("I"):
        # Pillow cuts 16-bit grey values off at 255 instead of scaling them.
        image = PIL.Image.fromarray((np.asarray(image) // 256).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")
