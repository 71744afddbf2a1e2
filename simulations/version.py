"""The version of fedcof that runs: the installed package's, or the checkout's."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

from fedcof.errors import UserError

NAME = "fedcof"
CHECKOUT = Path(__file__).parent.parent


def version() -> str:
    """Say the version.

    Returns
    -------
    str
        Name and number, and where the number is from if fedcof is not installed as a package.

    Raises
    ------
    UserError
        If there is neither a package nor a checkout.
    """
    try:
        return f"{NAME} {installed_version(NAME)}"
    except PackageNotFoundError:
        description = CHECKOUT / "pyproject.toml"
    if not description.is_file():
        raise UserError(f"The files in {CHECKOUT} are no installed package and no checkout: install fedcof.")
    number = tomllib.loads(description.read_text(encoding="utf-8"))["project"]["version"]
    return f"{NAME} {number}, run from a checkout without being installed."
