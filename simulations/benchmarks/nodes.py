"""What a real federation on one machine costs: ``fedcof deploy-local`` with more and more nodes.

``wall`` is from the start of the command to its end, ``CPU`` what all its processes computed. ``memory`` is the
most that all of them held at one time, each page that several share counted once (PSS, which Linux alone tells).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from rich.table import Table

from fedcof.errors import UserError
from fedcof.run.results import load_results
from simulations.benchmarks.start import COMMAND
from simulations.benchmarks.watching import watched_together
from simulations.terminal import console

NODES = [3, 10, 20]
ACCEPTED = "accepted"


@dataclass(frozen=True)
class Deployment:
    """What one federation cost.

    Attributes
    ----------
    nodes, accepted : int
        Nodes that were started, and those whose upload was used.
    wall, cpu : float
        Seconds of the command, and those that its processes computed.
    memory : float
        Bytes that all processes held at most at one time.
    processes : int
        How many they were then.
    accuracy : float or None
        Of the classifier, to see that there was one.
    """

    nodes: int
    accepted: int
    wall: float
    cpu: float
    memory: int
    processes: int
    accuracy: float | None


class Load:
    """What processes compute and hold, looked at again and again."""

    def __init__(self) -> None:
        self._cpu: dict[tuple[int, float], float] = {}
        self.memory, self.processes = 0, 0

    @property
    def cpu(self) -> float:
        """Seconds of all that were seen; of a process's last quarter of a second some may be missing."""
        return sum(self._cpu.values())

    def look(self, processes: list[psutil.Process]) -> None:
        """Note what they compute, and what they hold together.

        Parameters
        ----------
        processes : list of psutil.Process
            All that there are now.
        """
        together = 0
        for process in processes:
            with suppress(psutil.Error):
                times = process.cpu_times()
                self._cpu[process.pid, process.create_time()] = times.user + times.system
                together += share_of_memory(process)
        if together > self.memory:
            self.memory, self.processes = together, len(processes)


def share_of_memory(process: psutil.Process) -> int:
    """Bytes of a process, of each page the share that falls to it; all it has where the system does not tell."""
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    share = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
    return share or int(process.memory_info().rss)


def measure(nodes: int, folder: Path, settings: list[str]) -> Deployment:
    """Run one federation, with no features from earlier ones.

    Parameters
    ----------
    nodes : int
        How many.
    folder : Path
        Where to put its features and results.
    settings : list of str
        What to set on top of the scenario ``digits``.

    Returns
    -------
    Deployment
        What it cost.

    Raises
    ------
    UserError
        If the command fails.
    """
    options = [option for setting in settings for option in ("-c", setting)]
    command = [*COMMAND, "deploy-local", "digits", "--nodes", str(nodes), *options, "--output", str(folder / "run")]
    load, started = Load(), time.perf_counter()
    with watched_together(load.look):
        # In a group of its own, to be told from this process.
        process = subprocess.run(
            command,
            env={**os.environ, "FEDCOF_CACHE": str(folder / "cache")},
            capture_output=True,
            text=True,
            start_new_session=True,
            check=False,
        )
        wall = time.perf_counter() - started
    if process.returncode:
        raise UserError(f"The command failed ({process.stderr.strip()}): run fedcof deploy-local by hand.")
    result = load_results(folder / "run")[-1]
    accepted = sum(node.outcome == ACCEPTED for node in result.nodes)
    return Deployment(nodes, accepted, wall, load.cpu, load.memory, load.processes, result.accuracy)


def table_of(deployments: list[Deployment]) -> Table:
    """Make a table of what was measured."""
    table = Table("Nodes", "Took part", "Wall s", "CPU s", "Memory GB", "Processes", "Accuracy %")
    for one in deployments:
        figures = f"{one.wall:.1f}", f"{one.cpu:.1f}", f"{one.memory / 1e9:.2f}", str(one.processes)
        accuracy = "" if one.accuracy is None else f"{100 * one.accuracy:.2f}"
        table.add_row(str(one.nodes), str(one.accepted), *figures, accuracy)
    return table


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(prog="python -m simulations.benchmarks.nodes", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON and no table")
    parser.add_argument("--nodes", default=",".join(map(str, NODES)), help="how many, with commas between")
    parser.add_argument("-c", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    try:
        with redirect_stdout(sys.stderr), tempfile.TemporaryDirectory(prefix="fedcof-benchmark-") as folder:
            counts = map(int, arguments.nodes.split(","))
            deployments = [measure(nodes, Path(folder) / str(nodes), arguments.settings) for nodes in counts]
    except UserError as error:
        sys.exit(str(error))
    if arguments.json:
        sys.stdout.write(json.dumps(list(map(asdict, deployments)), indent=2) + "\n")
    else:
        console.print(table_of(deployments))


if __name__ == "__main__":
    main()
