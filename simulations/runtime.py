"""Flower's runtime: an own SuperLink, for simulations with Ray, and how to reach it."""

from __future__ import annotations

import http.client
import os
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import tomli_w

from fedcof.errors import UserError
from simulations.environment import inherited_environment
from simulations.processes import guarded, signals_ignored, signals_raise, stop

CONNECTION_NAME = "simulation"
# Before it answers the SuperLink may compute for so long, however busy the machine, or do nothing for so long.
START_SECONDS = 60.0
# Of a core: less than this is no start that a busy machine slows down, but the idling of one that will not answer.
LEAST_SHARE = 0.01

_POLL_SECONDS = 0.05
_CLUSTER_SECONDS = 5.0

# A socket's path may have 103 bytes on some systems, of which Ray's session takes 68 and our own folder 16.
_LONGEST_TEMPORARY_FOLDER = 19

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True, order=True)
class Resources:
    """What a Flower run may use.

    Attributes
    ----------
    num_supernodes : int
        Simulated SuperNodes.
    client_num_cpus : int
        CPU cores of each client at work; as many clients work at once as this leaves room for.
    client_num_gpus : float
        Share of a GPU of each client at work.
    """

    num_supernodes: int
    client_num_cpus: int = 1
    client_num_gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.num_supernodes < 1 or self.client_num_cpus < 1 or self.client_num_gpus < 0:
            raise UserError(
                "A simulation needs at least one SuperNode, at least one CPU core a client and no negative share of"
                f" a GPU, but was given {self.num_supernodes}, {self.client_num_cpus} and {self.client_num_gpus}."
            )

    def federation_config(self) -> str:
        """Write the resources as the value of ``flwr run --federation-config``."""
        return (
            f"num-supernodes={self.num_supernodes} client-resources-num-cpus={self.client_num_cpus} "
            f"client-resources-num-gpus={float(self.client_num_gpus)}"
        )


@dataclass(frozen=True)
class Connection:
    """A running SuperLink, as ``flwr`` knows it.

    Attributes
    ----------
    name, address : str
        Name in Flower's configuration, and host and port on the loopback interface.
    working_directory : Path
        Folder of everything that the SuperLink writes.
    environment : mapping of str to str
        Environment variables of every process that takes part.
    certificates : Path or None
        The authority that signed the SuperLink's certificate; None where it speaks plain text, on loopback.
    processes : list of subprocess.Popen
        Those that were started from here.
    unanswered : list of subprocess.Popen
        The SuperLink, until it has answered for the first time.
    """

    name: str
    address: str
    working_directory: Path
    environment: Mapping[str, str]
    certificates: Path | None = None
    processes: list[subprocess.Popen[str]] = field(default_factory=list, repr=False)
    unanswered: list[subprocess.Popen[str]] = field(default_factory=list, repr=False)

    @property
    def home(self) -> Path:
        """Flower's private home; being unique, it also marks the processes."""
        return self.working_directory / "flower-home"

    @property
    def start_directory(self) -> Path:
        """Empty folder to start in: Ray's workers look for modules there before they look into the app."""
        return self.working_directory / "start"

    @property
    def log(self) -> Path:
        """What the SuperLink itself says."""
        return self.working_directory / "superlink.log"

    def prepare(self) -> None:
        """Make the folders, and note the SuperLink in Flower's configuration."""
        self.start_directory.mkdir(parents=True, exist_ok=True)
        self.home.mkdir(exist_ok=True)
        superlink: dict[str, object] = {"address": self.address}
        superlink |= {"root-certificates": str(self.certificates)} if self.certificates else {"insecure": True}
        config = tomli_w.dumps({"superlink": {self.name: superlink}})
        (self.home / "config.toml").write_text(config, encoding="utf-8")

    def popen(
        self,
        *command: str,
        stdout: int,
        stderr: int,
        variables: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.Popen[str]:
        """Start one of Flower's commands apart from the terminal, whose Ctrl-C is ours to pass on."""
        process = subprocess.Popen(
            [str(flower_command(command[0])), *command[1:]],
            cwd=self.start_directory,
            env={**self.environment, **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            pass_fds=pass_fds,
        )
        self.processes.append(process)
        return process


@contextmanager
def simulation_superlink(
    working_directory: Path, ray_address: str = "", variables: Mapping[str, str] | None = None, wait: bool = True
) -> Iterator[Connection]:
    """Run a SuperLink of one's own, and stop all that it started in the end, whatever that end is.

    SIGTERM and SIGHUP raise ``SystemExit`` meanwhile if nobody else handles them.

    Parameters
    ----------
    working_directory : Path
        Folder for Flower's home and logs; a new one for every SuperLink.
    ray_address : str, optional
        HOST:PORT of a Ray cluster to use, which is left running; by default every run starts its own Ray here.
    variables : mapping of str to str, optional
        What else the environment of all its processes holds.
    wait : bool
        Whether to wait here until it answers; otherwise the first app that is submitted waits for it.

    Yields
    ------
    Connection
        The SuperLink, ready for :func:`simulations.submission.submit`.

    Raises
    ------
    UserError
        If Flower is not installed, its SuperLink does not start, or nothing answers at the cluster's address.
    """
    if ray_address:
        _check_cluster(ray_address)
    working_directory = working_directory.absolute()
    with signals_raise(), _ray_folder() as ray_folder, reserved_port() as reserved:
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        environment = flower_environment(working_directory) | _ray_environment(ray_folder, ray_address)
        environment |= variables or {}
        connection = Connection(CONNECTION_NAME, address, working_directory, environment)
        connection.prepare()
        with guarded(connection.home, ray_folder):
            try:
                start = start_superlink if wait else launch_superlink
                start(connection, "--simulation", "--insecure")
                yield connection
            finally:
                with signals_ignored():
                    stop(connection.processes, connection.home)


def flower_command(name: str) -> Path:
    """Find a command of this environment, whose folder need not be on the user's path; raises UserError."""
    found = shutil.which(name, path=_command_path())
    if found is None:
        raise UserError(
            f"The command {name} was expected beside {sys.executable}: install fedcof with pip in that environment."
        )
    return Path(found)


def _command_path() -> str:
    return os.pathsep.join(
        [str(Path(sys.executable).parent), sysconfig.get_path("scripts"), os.environ.get("PATH", "")]
    )


def flower_environment(working_directory: Path) -> dict[str, str]:
    """Make the environment that all of Flower's processes inherit.

    Parameters
    ----------
    working_directory : Path
        Folder of everything that they write.

    Returns
    -------
    dict of str to str
        The present one, with a Flower home of its own, no reports, and no other Ray.
    """
    return inherited_environment() | {
        "FLWR_HOME": str(working_directory / "flower-home"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.25",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": _command_path(),
    }


def _ray_environment(folder: Path, address: str) -> dict[str, str]:
    """Keep a Ray of one's own to oneself: it listens on all interfaces, and would join any Ray it finds noted."""
    if address:
        return {"RAY_ADDRESS": address}
    return {
        "RAY_TMPDIR": str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # Those workers could not serve the clients, which need an environment of their own.
        "RAY_prestart_worker_first_driver": "0",
    }


@contextmanager
def _ray_folder() -> Iterator[Path]:
    wanted = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    parent = wanted if len(os.fsencode(wanted)) <= _LONGEST_TEMPORARY_FOLDER else "/tmp"
    with tempfile.TemporaryDirectory(prefix="fedcof-", dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def reserved_port() -> Iterator[socket.socket]:
    """Hold a free port: bound but not listening, it is given to nobody who does not ask for it by number."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        yield reserved


def _check_cluster(address: str) -> None:
    """Knock at a cluster, because Ray itself tries for minutes and then says little."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CLUSTER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"No Ray cluster answers at {address} ({error}): start one with ray start --head, and give the address"
            " that it prints."
        ) from error


def start_superlink(connection: Connection, *options: str) -> subprocess.Popen[str]:
    """Start the SuperLink and wait until it answers.

    Parameters
    ----------
    connection : Connection
        Where it is to answer.
    *options : str
        Its other options.

    Returns
    -------
    subprocess.Popen
        The SuperLink.

    Raises
    ------
    UserError
        If it ends, or computes or idles for a minute, before it answers.
    """
    process = launch_superlink(connection, *options)
    await_answer(connection, connection.unanswered.pop())
    return process


def launch_superlink(connection: Connection, *options: str) -> subprocess.Popen[str]:
    """Start the SuperLink without waiting for it; see :func:`start_superlink`."""
    host, port = connection.address.split(":")
    command = ["flower-superlink", "--disable-runtime-dependency-installation", *options]
    with connection.log.open("a", encoding="utf-8") as log:
        process = connection.popen(
            *command, "--host", host, "--port", port, stdout=log.fileno(), stderr=subprocess.STDOUT
        )
    connection.unanswered.append(process)
    return process


def await_answer(connection: Connection, superlink: subprocess.Popen[str]) -> None:
    """Wait until a SuperLink answers, as long as it lives and does something; raises UserError."""
    host, port = connection.address.split(":")
    worked, seen, since = 0.0, 0.0, time.monotonic()
    while superlink.poll() is None and worked < START_SECONDS and time.monotonic() < since + START_SECONDS:
        if _is_healthy(host, int(port), connection.certificates):
            return
        worked = _cpu_seconds(superlink.pid)
        if worked >= seen + LEAST_SHARE * START_SECONDS:
            seen, since = worked, time.monotonic()
        time.sleep(_POLL_SECONDS)
    said = connection.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = ANSI.sub("", said[-1]) if said else "nothing"
    raise UserError(
        f"Flower's SuperLink ended, or computed or idled for {START_SECONDS:.0f} s, before it answered, and its"
        f" last words were {last!r}; check that flower-superlink runs in this environment."
    )


def _cpu_seconds(process: int) -> float:
    try:
        times = psutil.Process(process).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _is_healthy(host: str, port: int, certificates: Path | None) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=1)
    if certificates:
        context = ssl.create_default_context(cafile=certificates)
        connection = http.client.HTTPSConnection(host, port, timeout=1, context=context)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
