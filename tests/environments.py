"""Environments in which the digits run is tried; run this file to try each, and for a table of what came of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
# As pip's own script does it: nothing of the checkout is on the path but for what PYTHONPATH says.
COMMAND = [sys.executable, "-c", "from fedcof_command import main; main()"]
TINY = ["-c", "backbone=test_efficientnet", "-c", "weights=none", "-c", "image-size=32"]
NOBODY_LISTENS = "127.0.0.1:9"


@dataclass(frozen=True)
class Surroundings:
    """What a command is started in.

    Attributes
    ----------
    variables : dict
        Environment variables; None for one that is not set.
    files : dict
        Content of files, by their path from where the user stands.
    before : list of str
        A command that starts the command.
    """

    variables: dict[str, str | None] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    before: list[str] = field(default_factory=list)


PROXIES = {f"{kind}_proxy": f"http://{NOBODY_LISTENS}" for kind in ("http", "https", "grpc")}
SOCKS = {"ALL_PROXY": f"socks5://{NOBODY_LISTENS}", "all_proxy": f"socks://{NOBODY_LISTENS}/"}
NO_EXCEPTIONS = {"NO_PROXY": None, "no_proxy": None}
ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
THEIRS = {
    f"theirs/{path}": "raise RuntimeError('this is not fedcof')\n"
    for path in ("server.py", "fedcof.py", "clients/__init__.py", "simulations/__init__.py", "simulations/cli.py")
}
ENVIRONMENTS = {
    "as it is": Surroundings(),
    "development mode": Surroundings({"PYTHONDEVMODE": "1"}),
    "warnings shown": Surroundings({"PYTHONWARNINGS": "always"}),
    "warnings raised": Surroundings({"PYTHONWARNINGS": "error"}),
    "a locale of ASCII": Surroundings(ASCII),
    "a locale of Latin-1": Surroundings({**ASCII, "PYTHONIOENCODING": "latin-1"}),
    "40 columns": Surroundings({"COLUMNS": "40"}),
    "60 columns": Surroundings({"COLUMNS": "60"}),
    "80 columns": Surroundings({"COLUMNS": "80"}),
    "a dumb terminal": Surroundings({"TERM": "dumb", "COLUMNS": "0", "NO_COLOR": "1"}),
    "HTTP proxies": Surroundings({**PROXIES, **{k.upper(): v for k, v in PROXIES.items()}, **NO_EXCEPTIONS}),
    "SOCKS proxies": Surroundings({**SOCKS, **NO_EXCEPTIONS}),
    "a relative FEDCOF_CACHE": Surroundings({"FEDCOF_CACHE": "cache of mine"}),
    "a relative XDG_CACHE_HOME": Surroundings({"FEDCOF_CACHE": None, "XDG_CACHE_HOME": "xdg"}),
    "a relative TMPDIR": Surroundings({"TMPDIR": "."}),
    "no HOME": Surroundings({"HOME": None}),
    "a HOME that is not there": Surroundings({"HOME": "/proc/nowhere"}),
    "a user without a name": Surroundings(
        {"HOME": None, "USER": None, "LOGNAME": None},
        before=["unshare", "--map-user=12345", "--map-group=12345"],
    ),
    "modules of our names": Surroundings({"PYTHONPATH": "theirs"}, THEIRS),
    "all at once": Surroundings(
        {
            **ASCII,
            **PROXIES,
            **SOCKS,
            **NO_EXCEPTIONS,
            "PYTHONDEVMODE": "1",
            "COLUMNS": "40",
            "FEDCOF_CACHE": "cache of mine",
            "HOME": None,
            "PYTHONPATH": "theirs",
        },
        THEIRS,
    ),
}


def run_in(
    surroundings: Surroundings, folder: Path, *arguments: str, cache: Path | None = None
) -> tuple[int, str, str]:
    """Run the command in an environment.

    Parameters
    ----------
    surroundings : Surroundings
        The environment.
    folder : Path
        Where the user stands; gets the environment's files.
    *arguments : str
        The command's.
    cache : Path, optional
        What FEDCOF_CACHE is, unless the environment says otherwise.

    Returns
    -------
    tuple of (int, str, str)
        Exit status, standard output and standard error.
    """
    for path, content in surroundings.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    variables = {**os.environ, "FEDCOF_CACHE": str(cache or folder / "cache"), **surroundings.variables}
    path = [surroundings.variables.get("PYTHONPATH"), str(ROOT)]
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    environment = {name: value for name, value in variables.items() if value is not None}
    command = [*surroundings.before, *COMMAND, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def accuracies(output: str) -> dict[str, str]:
    """Read methods and accuracies off a printed table, whatever its borders are."""
    rows = [re.split(r"[│|┃?]", line)[1:] for line in output.splitlines()]
    cells = [[cell.strip() for cell in row] for row in rows]
    return {
        row[0]: next((cell for cell in row if re.match(r"\d+\.\d\d", cell)), "")
        for row in cells
        if row and row[0].startswith("fed")
    }


def main() -> None:
    """Try the environments named on the command line, or all; the cache is shared where it is not the subject."""
    names = sys.argv[1:] or list(ENVIRONMENTS)
    print("| environment | exit status | accuracies % | s | last words |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for number, name in enumerate(names):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            started = time.perf_counter()
            status, output, errors = run_in(
                ENVIRONMENTS[name], folder, "compare", "digits", *TINY, cache=Path(scratch) / "cache"
            )
            seconds = time.perf_counter() - started
            last = errors.strip().splitlines()[-1:] or [""]
            print(f"| {name} | {status} | {accuracies(output)} | {seconds:.0f} | {last[0]} |", flush=True)


if __name__ == "__main__":
    main()
