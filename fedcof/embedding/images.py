"""Images as RGB: the one decoder that training, nodes and prediction share, and columns read without decoding."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from datasets import Dataset, Image
from numpy.typing import NDArray

from fedcof.embedding.flaws import UndecodableImageError
from fedcof.errors import first_line

# What decode_image does, in words: for whoever has to do the same elsewhere, with an exported model.
DECODING = (
    "first frame; turned upright by the EXIF orientation; transparency dropped, not blended; 16-bit grey divided "
    "by 256; integer grey of 32 bits taken as 8 bits if its largest value is at most 255, else as 16 bits; "
    "floating-point grey multiplied by 255 if its largest value is at most 1; all else as Pillow converts it to RGB"
)

# Files of these kinds hold 8 or 16 bits a channel, which have never been decoded otherwise.
UNCHANGED_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp")
UNCHANGED_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"RIFF")
CHANGED = b"decoder 2"

# Pillow opens these with mode I although their grey has 16 bits, scaled to all of them.
SIXTEEN_BIT_FORMATS = ("PNG", "PPM")


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
    """Decode the images of a table; see :func:`decode_image`.

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
    encoded = encoded_images(dataset)
    return [
        _decoded(image, row, dataset)
        for row, image in zip(rows, encoded[rows]["image"] if rows else [], strict=True)
    ]


def encoded_images(dataset: Dataset) -> Dataset:
    """Give the column of images as it is stored.

    Parameters
    ----------
    dataset : datasets.Dataset
        A split of an :class:`ImageDataset`, or a selection of its rows.

    Returns
    -------
    datasets.Dataset
        Its one column ``image`` has a mapping of ``bytes`` and ``path`` for each row.
    """
    # A format set on the dataset would turn the encoded bytes into something else.
    return dataset.select_columns("image").with_format(None).cast_column("image", Image(decode=False))


def _decoded(encoded: Mapping[str, Any] | None, row: int, dataset: Dataset) -> PIL.Image.Image:
    content, path = (encoded or {}).get("bytes"), (encoded or {}).get("path")
    where = f"The image {path or f'row {row} of {len(dataset)}'} of the {dataset.split or 'given'} split"
    source: str | bytes = content if content is not None else path or ""
    if not (source or path):
        raise UndecodableImageError(
            f"{where} is missing, but every row needs one: remove the row or give it an image."
        )
    return decode_image(source, where)


def decode_image(source: Path | str | bytes, called: str = "") -> PIL.Image.Image:
    """Decode an image as RGB with 8 bits a channel, the same way wherever it is used.

    It is turned upright by its EXIF orientation. Of an animation the first frame is taken; transparency is dropped,
    so that a pixel keeps the colour that it has beneath. Grey of 16 bits is divided by 256. Other grey does not say
    what is white: 32-bit integers count as 8 bits if none is above 255 and as 16 bits if one is, floating-point
    numbers as shares of white if none is above 1 and as 8 bits if one is.

    Parameters
    ----------
    source : Path, str or bytes
        An image file, or its place as a table of images has it, or its content.
    called : str
        What to call the image in an error's sentence; its path unless given.

    Returns
    -------
    PIL.Image.Image
        In RGB.

    Raises
    ------
    UserError
        If there is no such file, it cannot be decoded, or it holds numbers that are no grey by the above.
    """
    try:
        return _as_rgb(Image().decode_example(_encoded(source)))
    except (
        Exception
    ) as error:  # Pillow's decoders raise whatever they trip over: OSError, SyntaxError, struct.error
        name = called or ("The image" if isinstance(source, bytes) else f"The image {source}")
        raise UndecodableImageError(
            f"{name} cannot be read ({_reason(error)}): replace it by a whole image file, or leave it out."
        ) from error


def why_undecodable(source: Path | str | bytes) -> str:
    """Decode an image to find out what keeps it from being used.

    Parameters
    ----------
    source : Path, str or bytes
        See :func:`decode_image`.

    Returns
    -------
    str
        A clause; empty if nothing does.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _as_rgb(Image().decode_example(_encoded(source)))
    except Exception as error:
        return _reason(error)
    return ""


def _reason(error: Exception) -> str:
    # Pillow's own words would name an address in memory.
    unknown = isinstance(error, PIL.UnidentifiedImageError)
    return "it is of no kind that Pillow knows" if unknown else first_line(error)


def decoding_key(encoded: Mapping[str, Any]) -> bytes:
    """Tell features of today's decoder from those that an earlier one gave for the same image.

    Parameters
    ----------
    encoded : mapping
        A table's ``bytes`` and ``path`` of an image, not decoded.

    Returns
    -------
    bytes
        Empty for files of a kind that every version has decoded alike.
    """
    content: bytes | None = encoded["bytes"]
    if content is None:
        unchanged = str(encoded["path"]).lower().endswith(UNCHANGED_SUFFIXES)
    else:
        unchanged = content.startswith(UNCHANGED_SIGNATURES)
    return b"" if unchanged else CHANGED


def _encoded(source: Path | str | bytes) -> dict[str, str | bytes | None]:
    """Give an image as the library decodes it: upright, and from its content.

    A file's content is read here, because Pillow maps an uncompressed TIFF from disk if it opens it by its path,
    and scrambles it if it has to be turned. What is no file, the library may still find at an address.
    """
    if isinstance(source, bytes):
        return {"bytes": source, "path": None}
    if isinstance(source, Path) or Path(source).is_file():
        return {"bytes": Path(source).read_bytes(), "path": None}
    return {"bytes": None, "path": source}


def _as_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode.startswith("I"):
        image = _integer_grey(image)
    elif image.mode == "F":
        image = _floating_grey(image)
    # It changes no pixel, but Pillow warns of a palette that has it.
    image.info.pop("transparency", None)
    return image.convert("RGB")


def _integer_grey(image: PIL.Image.Image) -> PIL.Image.Image:
    values = np.asarray(image)
    if image.mode == "I" and image.format not in SIXTEEN_BIT_FORMATS:
        _check_range(values, 65535, "0 to 255 or 0 to 65535")
        if values.max() <= 255:
            return PIL.Image.fromarray(values.astype(np.uint8))
    # Pillow cuts 16-bit grey values off at 255 instead of scaling them.
    return PIL.Image.fromarray((values // 256).astype(np.uint8))


def _floating_grey(image: PIL.Image.Image) -> PIL.Image.Image:
    values = np.asarray(image)
    _check_range(values, 255, "0 to 1 or 0 to 255")
    return PIL.Image.fromarray(np.rint(values * 255).astype(np.uint8)) if values.max() <= 1 else image


def _check_range(values: NDArray[np.generic], white: int, known: str) -> None:
    lowest, highest = values.min(), values.max()
    if not (lowest >= 0 and highest <= white):
        raise ValueError(f"its grey goes from {lowest:g} to {highest:g}, where {known} was expected")
