"""What is an image, decided by content and never by a file's name: the one place that all sources of images ask."""

from __future__ import annotations

import importlib
import io
import math
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

import PIL.Image

from fedcof.embedding.flaws import Flaw, Kind
from fedcof.embedding.images import why_undecodable
from fedcof.errors import first_line

HEIF = "HEIF"
with suppress(ImportError):
    importlib.import_module("pillow_heif").register_heif_opener()


# Documents, drawings, films and tables that Pillow opens or has a stub for.
_NO_IMAGES = {"EPS", "WMF", "PDF", "MPEG", "BUFR", "GRIB", "HDF5", "FPX", "MIC"}
# Tried first, because nearly all images are of these.
_COMMON = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
# What begins so and cannot be read is a damaged image. Other formats begin with little that tells them from data.
_SIGNATURES = (
    b"\xff\xd8\xff",
    b"\x89PNG",
    b"GIF87a",
    b"GIF89a",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"8BPS",
    b"\0\0\0\x0cjP  \r\n",
)
_OTHERS = (
    (b"%PDF", Kind.NO_IMAGE, "a PDF document"),
    (b"%!PS", Kind.NO_IMAGE, "a PostScript document"),
    (b"\xc5\xd0\xd3\xc6", Kind.NO_IMAGE, "a PostScript document"),
    (b"\xd0\xcf\x11\xe0", Kind.NO_IMAGE, "an Office document or a database of thumbnails"),
    (b"PK\x03\x04", Kind.NO_IMAGE, "a zip archive or an Office document"),
    (b"\0\x05\x16\x07", Kind.NO_IMAGE, "an AppleDouble file"),
    (b"\xd7\xcd\xc6\x9a", Kind.NO_IMAGE, "a drawing"),
    (b"\x89HDF", Kind.NO_IMAGE, "an HDF5 file"),
    (b"\x93NUMPY", Kind.NO_IMAGE, "an array of numpy"),
    (b"\x1aE\xdf\xa3", Kind.NO_IMAGE, "it is a film"),
    (b"\0\0\x01\xb3", Kind.NO_IMAGE, "it is a film"),
    (b"\0\0\x01\xba", Kind.NO_IMAGE, "it is a film"),
    (b"\xff\x0a", Kind.FORMAT, "JPEG XL, which Pillow does not read"),
    (b"\0\0\0\x0cJXL ", Kind.FORMAT, "JPEG XL, which Pillow does not read"),
)
_RAW = "it is a camera's raw file, of which Pillow reads only the preview"
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_HEAD, _TAIL = 512, 64
# Where strips and tiles begin, and how long they are.
_TIFF_PARTS = ((273, 279), (324, 325))
_DNG_VERSION, _SUBFILE_TYPE, _SUB_IFDS = 50706, 254, 330


def flaw_of(source: Path | bytes, thorough: bool = False) -> Flaw | None:
    """Find out whether something is an image that can be embedded, from its header and its end.

    Parameters
    ----------
    source : Path or bytes
        A file, or its content.
    thorough : bool
        Whether to decode it, which finds all that is wrong with it and takes ten times as long or more.

    Returns
    -------
    Flaw or None
        None for an image. Formats whose beginning says little, or whose end says nothing, are decoded in any case.
    """
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            head = file.read(_HEAD)
            if not head:
                return Flaw(Kind.EMPTY, "it is empty")
            return _other_kind(head) or _flaw_of_image(file, head, source, thorough)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "there is no such file" if missing else f"it cannot be read ({error.strerror})"
        return Flaw(Kind.MISSING if missing else Kind.UNREADABLE, reason)


def is_called_an_image(name: str) -> bool:
    """Whether a file's name says that it was meant as an image: if it is none, something went wrong.

    Parameters
    ----------
    name : str
        A file's name.

    Returns
    -------
    bool
        Whether it ends as those of images do.
    """
    return Path(name).suffix.lower() in _suffixes()


def reader() -> str:
    """Name what reads images here: what is known of files is known of it alone."""
    return f"Pillow {PIL.__version__}{' with HEIF' if HEIF in _formats() else ''}"


@cache
def _formats() -> tuple[str, ...]:
    PIL.Image.init()
    others = sorted(set(PIL.Image.OPEN) - _NO_IMAGES - set(_COMMON))
    return (*_COMMON, *others)


@cache
def _suffixes() -> frozenset[str]:
    formats = set(_formats())
    return frozenset(suffix for suffix, name in PIL.Image.registered_extensions().items() if name in formats)


def _other_kind(head: bytes) -> Flaw | None:
    """Recognise what is no image, or of a format without a reader, by how it begins."""
    for signature, kind, reason in _OTHERS:
        if head.startswith(signature):
            return Flaw(kind, f"it is {reason}")
    if head[4:8] == b"ftyp":
        return _in_a_container(head)
    if head[40:44] == b" EMF":
        return Flaw(Kind.NO_IMAGE, "it is a drawing")
    if head.startswith(b"RIFF") and head[8:12] != b"WEBP" and len(head) >= 12:
        return Flaw(Kind.NO_IMAGE, "it is a film or a sound")
    if head[128:132] == b"DICM":
        return Flaw(Kind.FORMAT, "it is DICOM, which Pillow does not read: convert it to PNG")
    return Flaw(Kind.FORMAT, _RAW) if head.startswith(b"II*\0") and head[8:10] == b"CR" else None


def _in_a_container(head: bytes) -> Flaw | None:
    """Tell HEIC, AVIF and films apart, which begin alike."""
    brands = head[8 : max(int.from_bytes(head[:4]), 12)]
    if b"avif" in brands or b"avis" in brands:
        if "AVIF" in _formats():
            return None
        return Flaw(Kind.FORMAT, "it is AVIF, which this Pillow does not read: install pillow 11.3 or newer")
    if brands[:4] in _HEIC_BRANDS:
        if HEIF in _formats():
            return None
        return Flaw(Kind.FORMAT, "it is HEIC, which needs an extra: pip install 'fedcof[heif]'")
    return Flaw(Kind.NO_IMAGE, "it is a film")


def _flaw_of_image(file: IO[bytes], head: bytes, source: Path | bytes, thorough: bool) -> Flaw | None:
    known = head.startswith(_SIGNATURES) or head[8:12] == b"WEBP" or head[4:8] == b"ftyp"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = PIL.Image.open(file, formats=_formats())
    except Exception as error:  # Pillow's readers raise whatever they trip over.
        return _unopened(error, head, known)
    if min(image.size) < 1:
        return Flaw(Kind.BROKEN, f"it has no pixels ({image.width} x {image.height})")
    if image.format == "TIFF" and _is_raw(image):
        return Flaw(Kind.FORMAT, _RAW)
    if not thorough and _ends_whole(image, file, head):
        return None
    reason = why_undecodable(source)
    if not reason:
        return None
    return Flaw(Kind.BROKEN, reason) if known else _no_image(head)


def _unopened(error: Exception, head: bytes, known: bool) -> Flaw:
    if isinstance(error, PIL.Image.DecompressionBombError):
        most = 2 * (PIL.Image.MAX_IMAGE_PIXELS or 0) / 1e6
        return Flaw(Kind.BROKEN, f"it has more than the {most:.0f} million pixels that are safe to decode")
    if not known:
        return _no_image(head)
    unknown = isinstance(error, PIL.UnidentifiedImageError)
    return Flaw(Kind.BROKEN, "its header is damaged" if unknown else first_line(error))


def _no_image(head: bytes) -> Flaw:
    if b"<svg" in head:
        return Flaw(Kind.NO_IMAGE, "it is a drawing")
    return Flaw(Kind.NO_IMAGE, "it is a text" if _is_text(head) else "it is of no kind that is known for images")


def _is_text(head: bytes) -> bool:
    try:
        return "\0" not in head.decode()
    except UnicodeDecodeError as error:
        # The head may end within a character.
        return len(head) == _HEAD and error.start > _HEAD - 4 and b"\0" not in head


def _is_raw(image: Any) -> bool:  # noqa: ANN401
    tags = image.tag_v2
    return _DNG_VERSION in tags or (_SUB_IFDS in tags and bool(tags.get(_SUBFILE_TYPE, 0) & 1))


def _ends_whole(image: Any, file: IO[bytes], head: bytes) -> bool:  # noqa: ANN401
    """Whether an image ends as its format says. If not it may still decode: some write things behind it."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(size - _TAIL, 0))
    tail = file.read()
    whole = False
    match image.format:
        case "JPEG" | "MPO":
            whole = tail.rstrip(b"\0\r\n ").endswith(b"\xff\xd9")
        case "PNG":
            whole = b"IEND\xaeB`\x82" in tail
        case "GIF":
            whole = tail.rstrip(b"\0").endswith(b";")
        case "WEBP":
            whole = int.from_bytes(head[4:8], "little") + 8 <= size
        case "BMP":
            whole = int.from_bytes(head[2:6], "little") == size
        case "TIFF":
            # What such grey means is seen from its values alone.
            whole = image.mode not in ("I", "F") and _last_byte_of_tiff(image) <= size
    return whole


def _last_byte_of_tiff(image: Any) -> float:  # noqa: ANN401
    for offsets, lengths in _TIFF_PARTS:
        parts = image.tag_v2.get(offsets, ()), image.tag_v2.get(lengths, ())
        if parts[0] and len(parts[0]) == len(parts[1]):
            return max(map(sum, zip(*parts, strict=True)))
    return math.inf
