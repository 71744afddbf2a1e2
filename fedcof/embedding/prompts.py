"""What is said of a class to a text tower: one template, or a named set of them."""

from __future__ import annotations

from types import MappingProxyType

from fedcof.errors import UserError

PLACE_OF_NAME = "{}"

# The seven of OpenAI's eighty for ImageNet that its notebook "Prompt_Engineering_for_ImageNet" found to do best.
CLIP_7 = "clip-7"
TEMPLATE_SETS = MappingProxyType(
    {
        CLIP_7: (
            "itap of a {}.",
            "a bad photo of the {}.",
            "a origami {}.",
            "a photo of the large {}.",
            "a {} in a video game.",
            "art of the {}.",
            "a photo of the small {}.",
        )
    }
)
DEFAULT_TEMPLATES = CLIP_7


def templates(chosen: str) -> tuple[str, ...]:
    """Read what a user chose to say of classes.

    Parameters
    ----------
    chosen : str
        A text with ``{}`` for a class's name, or a name in :data:`TEMPLATE_SETS`.

    Returns
    -------
    tuple of str
        At least one, each with ``{}``.

    Raises
    ------
    UserError
        If it is neither.
    """
    if chosen in TEMPLATE_SETS:
        return TEMPLATE_SETS[chosen]
    if PLACE_OF_NAME not in chosen:
        raise UserError(
            f"The prompt {chosen!r} has no {PLACE_OF_NAME} where a class's name goes: write for example "
            f"'a photo of a {PLACE_OF_NAME}', or name a set of prompts: {', '.join(TEMPLATE_SETS)}."
        )
    return (chosen,)


def said(template: str, class_name: str) -> str:
    """Put a class's name into a template, with spaces for its underscores."""
    return template.replace(PLACE_OF_NAME, class_name.replace("_", " "))


def prompts(chosen: str, class_name: str) -> list[str]:
    """List what is said of a class.

    Parameters
    ----------
    chosen : str
        See :func:`templates`.
    class_name : str
        An underscore is a space.

    Returns
    -------
    list of str
        One text for each template, in their order.

    Raises
    ------
    UserError
        If the choice is no template and no name of a set.
    """
    return [said(template, class_name) for template in templates(chosen)]
