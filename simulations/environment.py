"""The environment that the command was given: what it lacks is made up for, and Flower gets what suits it."""

from __future__ import annotations

import os
import pwd
import sys
import warnings
from importlib.util import find_spec
from io import TextIOWrapper
from pathlib import Path

from fedcof.errors import UserError

# They name folders, and Flower's processes start in another one than the command.
FOLDER_VARIABLES = (
    "FEDCOF_CACHE",
    "XDG_CACHE_HOME",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_DATASETS_CACHE",
    "TORCH_HOME",
    "MPLCONFIGDIR",
    "RAY_TMPDIR",
    "TMPDIR",
)
# They make Python talkative, slow or strict; what Flower's commands print is read, and their warnings are not ours.
DEVELOPMENT_VARIABLES = {
    "PYTHONASYNCIODEBUG",
    "PYTHONDEBUG",
    "PYTHONDEVMODE",
    "PYTHONDUMPREFS",
    "PYTHONINSPECT",
    "PYTHONMALLOC",
    "PYTHONMALLOCSTATS",
    "PYTHONOPTIMIZE",
    "PYTHONPROFILEIMPORTTIME",
    "PYTHONSTARTUP",
    "PYTHONTRACEMALLOC",
    "PYTHONVERBOSE",
    "PYTHONWARNDEFAULTENCODING",
    "PYTHONWARNINGS",
}
# gRPC alone reads these, and with its own list of exceptions it would not look at the others'.
_PROXIES_OF_GRPC = {"grpc_proxy", "no_grpc_proxy"}
# Where Python looks before it looks into the list of users.
_NAMES_OF_THE_USER = ("LOGNAME", "USER", "LNAME", "USERNAME")
_LOOPBACK = ["127.0.0.1", "localhost"]


def settle() -> None:
    """Make up for what the command's environment lacks, before anything else is imported.

    Raises
    ------
    UserError
        If a variable that names a folder begins with the home of nobody.
    """
    _open_missing_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A locale that has not every character is no reason to lose a result.
            stream.reconfigure(errors="replace")
    _resolve_folders()
    _name_the_user()


def _open_missing_streams() -> None:
    """Point standard streams that were closed nowhere: the next file opened would otherwise take their place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _resolve_folders() -> None:
    """Make folders that were named from where the user stands the same for whoever asks from elsewhere."""
    for name in FOLDER_VARIABLES:
        if value := os.environ.get(name):
            os.environ[name] = _whole_path(name, value)


def _whole_path(name: str, value: str) -> str:
    try:
        return str(Path(value).expanduser().absolute())
    except RuntimeError as error:
        raise UserError(
            f"The variable {name} is {value!r}, but nobody's home is called that: give the folder's whole path."
        ) from error


def _name_the_user() -> None:
    """Name a user who is a number without an entry among the users, as in many containers, and give him a home."""
    if not any(os.environ.get(name) for name in _NAMES_OF_THE_USER):
        try:
            pwd.getpwuid(os.getuid())
        except KeyError:
            os.environ["LOGNAME"] = f"user-{os.getuid()}"
    try:
        Path.home()
    except RuntimeError:
        # Libraries would make a folder called ~ where they stand.
        if cache := os.environ.get("FEDCOF_CACHE"):
            os.environ["HOME"] = str(Path(cache) / "home")


def show_warnings() -> None:
    """Have warnings shown where they were to be raised: a library's are no failure of a run, nor of its import."""
    if any(option.startswith("error") for option in sys.warnoptions):
        warnings.simplefilter("default")
        os.environ["PYTHONWARNINGS"] = "default"


def inherited_environment() -> dict[str, str]:
    """Give what Flower's processes inherit of the environment.

    Returns
    -------
    dict of str to str
        Without Python's development switches, other Rays, colours, and proxies that Flower's library for HTTP
        refuses to start with; loopback is never reached through a proxy, and paths are absolute.
    """
    left_out = {*DEVELOPMENT_VARIABLES, *_PROXIES_OF_GRPC, "RAY_ADDRESS", "FORCE_COLOR"}
    environment = {
        name: value for name, value in os.environ.items() if name not in left_out and _is_usable(name, value)
    }
    # Relative paths would mean other folders once the processes start elsewhere.
    environment |= {
        name: _whole_path(name, environment[name]) for name in FOLDER_VARIABLES if environment.get(name)
    }
    if "PYTHONPATH" in environment:
        entries = environment["PYTHONPATH"].split(os.pathsep)
        environment["PYTHONPATH"] = os.pathsep.join(str(Path(entry).absolute()) for entry in entries)
    for name in ("NO_PROXY", "no_proxy"):
        environment[name] = ",".join(filter(None, [*_LOOPBACK, environment.get(name)]))
    # Lines are to come one by one through the pipe, in letters that not every locale can write.
    return environment | {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", "PYTHONUTF8": "1"}


def _is_usable(name: str, value: str) -> bool:
    """Say whether a variable is no proxy, or one of a kind that httpx takes: it fails on others before it asks."""
    if not name.lower().endswith("_proxy") or name.lower() == "no_proxy":
        return True
    scheme = value.partition("://")[0].lower() if "://" in value else "http"
    return scheme in {"http", "https"} or (scheme in {"socks5", "socks5h"} and find_spec("socksio") is not None)
