"""What a simulated round costs: FedCOF's against that of a Flower app that does nothing, at several sizes.

Both go through the same Flower and Ray, with as many nodes and messages, and both first wait until every node has
answered once. ``round`` is what then passes within the ServerApp, FedCOF's up to the classifier and its accuracy;
``wall`` is all that a user waits for.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
import tomli_w
from rich.table import Table

from fedcof.errors import UserError
from fedcof.run.config import RunConfig
from server.federation import CLIENTS_PER_MESSAGE
from simulations.benchmarks.federations import GeneratedFeatures, chosen_clients, client_sizes, write_federation
from simulations.benchmarks.peaks import peak_of
from simulations.benchmarks.watching import watched
from simulations.flower_runs import MOST_NODES
from simulations.runner import execute_runs
from simulations.runtime import Resources, simulation_superlink
from simulations.submission import submit
from simulations.terminal import console

CLIENTS = [100, 1000, 9275]

IDLE_APP = """
import json
import time
from pathlib import Path

from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

client_app = ClientApp()
server_app = ServerApp()


@client_app.query()
def query(message, context):
    return Message(RecordDict(), reply_to=message)


def ask(grid, nodes):
    waiting = set(grid.push_messages([Message(RecordDict(), node, "query") for node in nodes]))
    replies = 0
    while waiting:
        arrived = {reply.metadata.reply_to_message_id for reply in grid.pull_messages(waiting)}
        waiting -= arrived
        replies += len(arrived)
        if not arrived:
            time.sleep(0.02)
    return replies


@server_app.main()
def main(grid, context):
    config = context.run_config
    while len(nodes := list(grid.get_node_ids())) < config["nodes"]:
        time.sleep(0.1)
    ask(grid, nodes)
    started = time.perf_counter()
    replies = ask(grid, [nodes[i % len(nodes)] for i in range(config["messages"])])
    Path(config["output"]).write_text(json.dumps({"seconds": time.perf_counter() - started, "replies": replies}))
"""


@dataclass
class PeakMemory:
    """The most memory that processes held, in megabytes.

    Attributes
    ----------
    driver : float
        Largest resident size of Flower's simulation process, which holds the ServerApp and drives Ray.
    worker : float
        Largest resident size of a Ray worker; the pages of a mapped file count with each process that reads them.
    """

    driver: float = 0.0
    worker: float = 0.0


@dataclass
class Cost:
    """What one app's round cost.

    Attributes
    ----------
    round_seconds, wall_seconds : float
        Within the ServerApp, and for the whole command.
    memory : PeakMemory
        Of its processes.
    """

    round_seconds: float
    wall_seconds: float
    memory: PeakMemory


@dataclass
class Comparison:
    """One size of federation.

    Attributes
    ----------
    clients, samples, rows, nodes, messages : int
        Clients, their samples and class means, the nodes that host them, and messages to those.
    fedcof, idle : Cost
        Of FedCOF and of the app that does nothing.
    ratios : dict of str to float
        FedCOF's over the idle app's: ``round``, ``wall`` and ``driver`` (memory).
    milliseconds_per_client : float
        FedCOF's round over the clients.
    accuracy : float or None
        Of the classifier, to see that there was one.
    uplink_bytes : int
        From all clients.
    """

    clients: int
    samples: int
    rows: int
    nodes: int
    messages: int
    fedcof: Cost
    idle: Cost
    accuracy: float | None
    uplink_bytes: int
    milliseconds_per_client: float = field(init=False)
    ratios: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        self.milliseconds_per_client = 1000 * self.fedcof.round_seconds / self.clients
        self.ratios = {
            "round": self.fedcof.round_seconds / self.idle.round_seconds,
            "wall": self.fedcof.wall_seconds / self.idle.wall_seconds,
            "driver": self.fedcof.memory.driver / self.idle.memory.driver,
        }


def compare(num_clients: int, sizes_file: Path | None, folder: Path) -> Comparison:
    """Run one round both ways.

    Parameters
    ----------
    num_clients : int
        Clients.
    sizes_file : Path, optional
        See :func:`simulations.benchmarks.federations.client_sizes`.
    folder : Path
        Where to put the federation and the results.

    Returns
    -------
    Comparison
        What they cost.
    """
    federation = write_federation(folder / "features", chosen_clients(client_sizes(sizes_file), num_clients))
    nodes = min(num_clients, MOST_NODES)
    messages = num_messages(num_clients, nodes)
    idle = idle_round(nodes, messages, folder)
    fedcof, accuracy, uplink_bytes = fedcof_round(federation, folder)
    sizes = num_clients, federation.num_samples, federation.num_rows, nodes, messages
    return Comparison(*sizes, fedcof, idle, accuracy, uplink_bytes)


def num_messages(num_clients: int, nodes: int) -> int:
    """Count the messages that a federation's clients take: a node's share of them in as few as it may."""
    hosted = [0] * nodes
    for client in range(num_clients):
        hosted[client * nodes // num_clients] += 1
    return sum(math.ceil(clients / CLIENTS_PER_MESSAGE) for clients in hosted)


def fedcof_round(federation: GeneratedFeatures, folder: Path) -> tuple[Cost, float | None, int]:
    """Run FedCOF; gives its cost, the classifier's accuracy and the bytes that went up."""
    config = RunConfig(
        dataset=federation.dataset,
        partition="natural",
        num_clients=federation.num_clients,
        shrinkage=0.1,
        broadcast=False,
    )
    started = time.perf_counter()
    with peak_memory() as memory:
        (result,) = execute_runs({"run": config}, folder / "results")
    cost = Cost(result.seconds, time.perf_counter() - started, memory)
    return cost, result.accuracy, result.uplink_bytes


def idle_round(nodes: int, messages: int, folder: Path) -> Cost:
    """Run the app that does nothing; gives its cost."""
    started = time.perf_counter()
    with peak_memory() as memory:
        seconds = run_idle_app(nodes, messages, folder)
    return Cost(seconds, time.perf_counter() - started, memory)


def run_idle_app(nodes: int, messages: int, folder: Path) -> float:
    """Run the app that does nothing, as :func:`simulations.runner.execute_runs` would.

    Parameters
    ----------
    nodes, messages : int
        Simulated SuperNodes, and messages to them.
    folder : Path
        Where to put the app and what it writes.

    Returns
    -------
    float
        Seconds of the round, within the ServerApp.

    Raises
    ------
    UserError
        If a reply is missing.
    """
    output = folder / "idle.json"
    app = _stage_idle_app(folder / "idle-app")
    values: dict[str, bool | int | float | str] = {"nodes": nodes, "messages": messages, "output": str(output)}
    with (
        tempfile.TemporaryDirectory(prefix="fedcof-") as scratch,
        simulation_superlink(Path(scratch), wait=False) as connection,
    ):
        submission = submit(connection, app, values, Resources(num_supernodes=nodes))
        submission.follow(lambda line: None, is_done=output.exists)
    answer = json.loads(output.read_text(encoding="utf-8"))
    if answer["replies"] != messages:
        raise UserError(f"The app that does nothing got {answer['replies']} of {messages} replies: measure again.")
    return float(answer["seconds"])


@contextmanager
def peak_memory() -> Iterator[PeakMemory]:
    """Watch the memory of the simulation that is started meanwhile.

    Yields
    ------
    PeakMemory
        Final when the context is left.
    """
    memory = PeakMemory()

    def look(process: psutil.Process) -> None:
        command = " ".join(process.cmdline())
        role = "driver" if "flwr-simulation" in command else "worker" if command.startswith("ray::") else ""
        if role:
            setattr(memory, role, max(getattr(memory, role), peak_of(process.pid) / 1e6))

    with watched(look):
        yield memory


def _stage_idle_app(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "idle.py").write_text(IDLE_APP, encoding="utf-8")
    app = {
        "publisher": "fedcof",
        "components": {"serverapp": "idle:server_app", "clientapp": "idle:client_app"},
        "config": {"nodes": 1, "messages": 1, "output": ""},
    }
    project = {"name": "idle", "version": "0.1.0", "description": "Does nothing", "license": "Apache-2.0"}
    (folder / "pyproject.toml").write_text(
        tomli_w.dumps({"project": project, "tool": {"flwr": {"app": app}}}), encoding="utf-8"
    )
    return folder


def table_of(comparisons: list[Comparison]) -> Table:
    """Make a table of what was measured."""
    titles = "Clients", "Nodes", "Messages", "Round s", "Idle s", "Ratio", "ms/client", "Wall s", "Idle s", "Ratio"
    table = Table(*titles, "Driver MB", "Idle MB", "Ratio", "Worker MB")
    for entry in comparisons:
        fedcof, idle, ratios = entry.fedcof, entry.idle, entry.ratios
        seconds = [f"{fedcof.round_seconds:.1f}", f"{idle.round_seconds:.1f}", f"{ratios['round']:.2f}"]
        wall = [f"{fedcof.wall_seconds:.1f}", f"{idle.wall_seconds:.1f}", f"{ratios['wall']:.2f}"]
        memory = [f"{fedcof.memory.driver:.0f}", f"{idle.memory.driver:.0f}", f"{ratios['driver']:.2f}"]
        counts = map(str, (entry.clients, entry.nodes, entry.messages))
        per_client = f"{entry.milliseconds_per_client:.2f}"
        table.add_row(*counts, *seconds, per_client, *wall, *memory, f"{fedcof.memory.worker:.0f}")
    return table


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON and no table")
    parser.add_argument("--clients", default=",".join(map(str, CLIENTS)), help="sizes, with commas between")
    parser.add_argument("--sizes", type=Path, help="CSV file with a client's number of samples on each line")
    arguments = parser.parse_args()
    try:
        # What is printed in the end is alone on standard output, so that it can be read by a program.
        with redirect_stdout(sys.stderr), tempfile.TemporaryDirectory(prefix="fedcof-benchmark-") as folder:
            comparisons = [
                compare(int(clients), arguments.sizes, Path(folder) / clients)
                for clients in arguments.clients.split(",")
            ]
    except UserError as error:
        sys.exit(str(error))
    if arguments.json:
        sys.stdout.write(json.dumps([asdict(entry) for entry in comparisons], indent=2) + "\n")
    else:
        console.print(table_of(comparisons))


if __name__ == "__main__":
    main()
