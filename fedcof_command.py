"""The command's entry: it finds our packages, and says which file of the user's stands in another package's way.

It lies beside the packages because their names are common: where PYTHONPATH has another ``server`` or
``simulations``, nothing in ours would ever be reached.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

PACKAGES = ("fedcof", "clients", "server", "simulations")


def take_our_packages(folder: Path) -> None:
    """Import our packages from where they are installed, whatever comes before that on the path.

    Parameters
    ----------
    folder : Path
        The folder with the packages.
    """
    for name in PACKAGES:
        spec = PathFinder.find_spec(name, [str(folder)])
        if spec and spec.loader and name not in sys.modules:
            sys.modules[name] = module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])


def main() -> None:
    """Run the command ``fedcof``."""
    try:
        from simulations.cli import main as command

        command()
    except Exception as error:
        intruder = intruding_file()
        if intruder is None:
            raise
        said = (str(error).splitlines() or [""])[0].rstrip(".")
        sys.exit(
            f"fedcof: The file {intruder} was imported in the place of a package that other programs need"
            f" ({type(error).__name__}: {said}): rename it, or take its folder out of PYTHONPATH."
        )


def intruding_file() -> str | None:
    """Find a module that was imported from PYTHONPATH, or from where the user stands, and hides another.

    Returns
    -------
    str or None
        Its file; None where no module hides another.
    """
    named = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    theirs = {str(Path(entry).absolute()) for entry in [*named, os.curdir]}
    others = [entry for entry in sys.path if str(Path(entry).absolute()) not in theirs]
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not file or "." in name or name in PACKAGES:
            continue
        folder = Path(file).absolute().parent
        if str(folder.parent if Path(file).name == "__init__.py" else folder) not in theirs:
            continue
        hidden = PathFinder.find_spec(name, others)
        if hidden and hidden.origin:
            return file
    return None


# Also in the processes that multiprocessing starts, which import the command's script anew.
take_our_packages(Path(__file__).absolute().parent)
