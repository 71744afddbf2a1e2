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
from traceback import walk_tb

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
        from simulations.environment import show_warnings

        show_warnings()
        from simulations.cli import main as command

        command()
    except Exception as error:
        intruder = intruding_file(error)
        if intruder is None:
            raise
        said = (str(error).splitlines() or [""])[0].rstrip(".")
        sys.exit(
            f"fedcof: The file {intruder} was imported in the place of a package that other programs need"
            f" ({type(error).__name__}: {said}): rename it, or take its folder out of PYTHONPATH."
        )


def intruding_file(error: BaseException) -> str | None:
    """Find a module that was imported from PYTHONPATH, or from where the user stands, and hides another.

    Parameters
    ----------
    error : BaseException
        What came of it; a module that raises it while it is imported is among those that are no longer known.

    Returns
    -------
    str or None
        Its file; None where no module hides another.
    """
    named = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    theirs = {Path(entry).absolute() for entry in [*named, os.curdir]}
    others = [entry for entry in sys.path if Path(entry).absolute() not in theirs]
    files = [frame.f_code.co_filename for frame, _ in walk_tb(error.__traceback__)]
    files += [file for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))]
    for file in files:
        path = Path(file).absolute()
        path = path.parent if path.name == "__init__.py" else path
        hidden = PathFinder.find_spec(path.stem, others) if path.parent in theirs else None
        if hidden and hidden.origin and path.stem not in (*PACKAGES, Path(__file__).stem):
            return file
    return None


# Also in the processes that multiprocessing starts, which import the command's script anew.
take_our_packages(Path(__file__).absolute().parent)
