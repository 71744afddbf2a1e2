"""What a library's exception says, short enough to be part of a sentence."""

from __future__ import annotations

from fedcof.errors import UserError

REASON_CHARACTERS = 160


def reason(error: Exception) -> str:
    """Pick the first line that says something: torch begins with one that ends in a colon.

    Parameters
    ----------
    error : Exception
        What a library raised.

    Returns
    -------
    str
        At most 160 characters, without a full stop.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    line = lines[1] if lines[0].endswith(":") and len(lines) > 1 else lines[0]
    return line[:REASON_CHARACTERS].rstrip(".: ")


def unsuitable_size(name: str, image_size: int, said: str) -> UserError:
    """Make the error for an image size that a backbone does not take.

    Parameters
    ----------
    name : str
        The backbone.
    image_size : int
        In pixels.
    said : str
        What is wrong with it.

    Returns
    -------
    UserError
        To be raised by the caller.
    """
    return UserError(
        f"The backbone {name} cannot be built at image-size {image_size} ({said}): use image-size=0 for the "
        "model's own."
    )
