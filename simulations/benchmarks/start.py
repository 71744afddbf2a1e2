"""What a user waits for: ``fedcof compare`` on kept features, against a Flower app that does nothing.

Both go through the same Flower and Ray, on as many nodes. ``wall`` is from the start of the command to its end;
``CPU`` is what all its processes took together, which says more on a machine that does other work too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import psutil
from rich.table import Table

from fedcof.errors import UserError
from simulations.benchmarks.rounds import run_idle_app
from simulations.benchmarks.watching import watched
from simulations.scenario import configure
from simulations.terminal import console

COMMAND = [sys.executable, "-c", "from simulations.cli import main; main()"]


@dataclass(frozen=True)
class Seconds:
    """What one command took.

    Attributes
    ----------
    wall, cpu : float
        Seconds from its start to its end, and those that its processes computed.
    """

    wall: float
    cpu: float


@dataclass(frozen=True)
class Start:
    """The command and the idle app, one after the other.

    Attributes
    ----------
    fedcof, idle : Seconds
        What each took.
    """

    fedcof: Seconds
    idle: Seconds

    @property
    def ratio(self) -> float:
        """The command's wall time over the idle app's."""
        return self.fedcof.wall / self.idle.wall


def measure(folder: Path, repeats: int, settings: list[str]) -> list[Start]:
    """Measure both, in turn.

    Parameters
    ----------
    folder : Path
        Where to put the results.
    repeats : int
        How often.
    settings : list of str
        What to set on top of the scenario ``digits``.

    Returns
    -------
    list of Start
        One each time. The features are computed before the first, if need be.

    Raises
    ------
    UserError
        If the command fails.
    """
    nodes = configure("digits", settings).data.num_clients
    _compare(folder / "first", settings)
    starts = []
    for number in range(repeats):
        idle = timed(lambda n=number: run_idle_app(nodes, nodes, folder / f"idle-{n}"))  # type: ignore[misc]
        fedcof = timed(lambda n=number: _compare(folder / f"run-{n}", settings))  # type: ignore[misc]
        starts.append(Start(fedcof, idle))
    return starts


def timed(work: Callable[[], object]) -> Seconds:
    """Time some work, and the processes that it starts.

    Parameters
    ----------
    work : callable
        What to do.

    Returns
    -------
    Seconds
        What it took; of the CPU time a process's last quarter of a second may be missing.
    """
    cpu: dict[tuple[int, float], float] = {}

    def look(process: psutil.Process) -> None:
        times = process.cpu_times()
        cpu[process.pid, process.create_time()] = times.user + times.system

    started = time.perf_counter()
    with watched(look):
        work()
        wall = time.perf_counter() - started
    return Seconds(wall, sum(cpu.values()))


def _compare(output: Path, settings: list[str]) -> None:
    options = [option for setting in settings for option in ("-c", setting)]
    command = [*COMMAND, "compare", "digits", *options, "--output", str(output)]
    # In a group of its own, to be told from this process.
    process = subprocess.run(
        command, env=dict(os.environ), capture_output=True, text=True, start_new_session=True, check=False
    )
    if process.returncode:
        raise UserError(f"The command failed ({process.stderr.strip()}): run fedcof compare by hand.")


def table_of(starts: list[Start]) -> Table:
    """Make a table of what was measured, with the medians."""
    table = Table("", "Wall s", "Idle s", "Ratio", "CPU s", "Idle CPU s")
    for number, start in enumerate(starts, start=1):
        table.add_row(str(number), *_cells(start.fedcof, start.idle, start.ratio))
    fedcof = Seconds(median(s.fedcof.wall for s in starts), median(s.fedcof.cpu for s in starts))
    idle = Seconds(median(s.idle.wall for s in starts), median(s.idle.cpu for s in starts))
    table.add_row("median", *_cells(fedcof, idle, median(start.ratio for start in starts)))
    return table


def _cells(fedcof: Seconds, idle: Seconds, ratio: float) -> list[str]:
    return [f"{fedcof.wall:.1f}", f"{idle.wall:.1f}", f"{ratio:.2f}", f"{fedcof.cpu:.1f}", f"{idle.cpu:.1f}"]


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(prog="python -m simulations.benchmarks.start", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON and no table")
    parser.add_argument("--repeats", type=int, default=3, help="how often each is measured")
    parser.add_argument("-c", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    try:
        with redirect_stdout(sys.stderr), tempfile.TemporaryDirectory(prefix="fedcof-benchmark-") as folder:
            starts = measure(Path(folder), arguments.repeats, arguments.settings)
    except UserError as error:
        sys.exit(str(error))
    if arguments.json:
        entries = [{**asdict(start), "ratio": start.ratio} for start in starts]
        sys.stdout.write(json.dumps(entries, indent=2) + "\n")
    else:
        console.print(table_of(starts))


if __name__ == "__main__":
    main()
