"""Names of open_clip's models as backbones: ``open_clip:NAME``, ``open_clip:NAME/TAG``, ``open_clip``."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from fedcof.errors import UserError

OPEN_CLIP = "open_clip"
_PREFIX = f"{OPEN_CLIP}:"
_QUICK = "-quickgelu"


@dataclass(frozen=True)
class ClipName:
    """What a backbone's name says of a model of open_clip.

    Attributes
    ----------
    architecture : str
        As ``open_clip.list_models()`` has it; empty for the model that a folder describes.
    tag : str
        Which of its weights, as ``open_clip.list_pretrained_tags_by_model`` has it; empty for those not said.
    """

    architecture: str
    tag: str


def is_open_clip(name: str) -> bool:
    """Whether a backbone's name is that of a model of open_clip."""
    return name == OPEN_CLIP or name.startswith(_PREFIX)


def parsed(name: str) -> ClipName:
    """Read a backbone's name; whether there is such a model is for :func:`checked_name`.

    Parameters
    ----------
    name : str
        For example ``open_clip:ViT-B-32/laion2b_s34b_b79k``.

    Returns
    -------
    ClipName
        Its parts.
    """
    architecture, _, tag = name.removeprefix(OPEN_CLIP).removeprefix(":").partition("/")
    return ClipName(architecture, tag)


def check_open_clip(name: str) -> None:
    """Check that the extra that reads a CLIP backbone is installed; raises UserError."""
    if not find_spec(OPEN_CLIP):
        raise UserError(
            f"The backbone {name} is a CLIP model, which a package that is not installed reads: "
            "pip install 'fedcof[clip]', or choose another backbone."
        )


def open_clip_package(name: str) -> ModuleType:
    """Import open_clip.

    Parameters
    ----------
    name : str
        The backbone that asks for it.

    Returns
    -------
    module
        ``open_clip``.

    Raises
    ------
    UserError
        If it is not installed.
    """
    check_open_clip(name)
    # timm comes first: imported by open_clip it would bring torch's compiler along.
    import_module("fedcof.embedding.light_timm")
    with without_its_logging():
        return import_module(OPEN_CLIP)


@contextmanager
def without_its_logging() -> Iterator[None]:
    """Keep open_clip from setting up the root logger, to which it logs whether or not anyone has done so."""
    nobody = logging.NullHandler()
    logging.root.addHandler(nobody)
    try:
        yield
    finally:
        logging.root.removeHandler(nobody)


def checked_name(package: ModuleType, name: str) -> ClipName:
    """Read a backbone's name and look it up.

    Parameters
    ----------
    package : module
        ``open_clip``.
    name : str
        The backbone's name.

    Returns
    -------
    ClipName
        Its parts.

    Raises
    ------
    UserError
        If open_clip has no such model, or no such weights of it.
    """
    chosen = parsed(name)
    if not chosen.architecture:
        return chosen
    known = package.list_models()
    if chosen.architecture not in known:
        close = difflib.get_close_matches(chosen.architecture, known, n=4, cutoff=0.4)
        suggestion = f", for example {', '.join(close)}" if close else ""
        raise UserError(
            f"Unknown backbone {name!r}: after {_PREFIX} goes one of the {len(known)} names in "
            f"open_clip.list_models(){suggestion}, and after a slash one of its weights."
        )
    tags = package.list_pretrained_tags_by_model(chosen.architecture)
    if chosen.tag and not package.is_pretrained_cfg(chosen.architecture, chosen.tag):
        raise UserError(
            f"Unknown weights {chosen.tag!r} of {_PREFIX}{chosen.architecture}: "
            + (f"choose one of {', '.join(tags)}." if tags else "open_clip knows none, so set weights to a file.")
        )
    return chosen


def suitable_tags(package: ModuleType, architecture: str) -> list[str]:
    """List the weights that were trained with a model's own activation.

    Parameters
    ----------
    package : module
        ``open_clip``.
    architecture : str
        One of its models.

    Returns
    -------
    list of str
        Tags; none is missing but those that the variant with the other activation has.
    """
    tags = package.list_pretrained_tags_by_model(architecture)
    return [tag for tag in tags if not package.is_pretrained_cfg(f"{architecture}{_QUICK}", tag)]


def check_activation(package: ModuleType, chosen: ClipName, tag: str) -> None:
    """See to it that a model computes with the activation that its weights were trained with.

    OpenAI's weights, and some that began from them, have a sigmoid in place of GELU; nothing in a file tells.

    Parameters
    ----------
    package : module
        ``open_clip``.
    chosen : ClipName
        The model.
    tag : str
        Whose weights it is to have.

    Raises
    ------
    UserError
        If the weights belong to the model of the other activation.
    """
    quick = f"{chosen.architecture}{_QUICK}"
    if package.is_pretrained_cfg(quick, tag):
        own = suitable_tags(package, chosen.architecture)
        instead = f", or choose others of its weights: {', '.join(own[:3])}" if own else ""
        raise UserError(
            f"The weights {tag} of {chosen.architecture} were trained with another activation, QuickGELU, and "
            f"would give other features: set backbone to {_PREFIX}{quick}/{tag}{instead}."
        )
