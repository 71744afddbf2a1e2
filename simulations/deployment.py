"""A real federation on one machine: a SuperLink with TLS and node authentication, and SuperNodes of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import datasets

from clients.own_commands import path_with_commands
from fedcof.data.class_list import classes_text
from fedcof.data.image_dataset import ImageDataset
from fedcof.data.node_table import write_table
from fedcof.data.problem import dataset_of
from fedcof.data.section import NODES
from fedcof.data.virtual_clients import client_indices
from fedcof.embedding.images import rgb_images
from fedcof.errors import UserError
from fedcof.files import write_whole
from fedcof.keys import Scalar
from fedcof.run.config import RunConfig
from fedcof.run.protocol import DATA
from fedcof.run.results import RunResult, load_results
from server.reporting import FAILURE_FILE_NAME
from simulations.bundle import stage_app
from simulations.credentials import AUTHORITY, SERVER, SERVER_KEY, write_certificates, write_node_key
from simulations.door import nginx_command, open_door
from simulations.node_supervision import NodeSettings
from simulations.nursery import Nursery
from simulations.processes import guarded, signals_ignored, signals_raise, stop
from simulations.runtime import Connection, flower_environment, reserved_port, start_superlink
from simulations.submission import run_app

CONNECTION_NAME = "federation"
LOOPBACK = "127.0.0.1"
CLASSES_FILE_NAME = "classes.txt"
TABLE_FILE_NAME = "images.parquet"
IMAGES_FOLDER_NAME = "images"
IMAGES_AT_ONCE = 256

# The command flwr takes one key at a time, and seconds to import for each.
_REGISTER = """
import sys
from flwr.cli.app import app

for key in sys.argv[2:]:
    if status := app(["supernode", "register", key, sys.argv[1]], standalone_mode=False):
        sys.exit(status)
"""


@dataclass
class LocalFederation:
    """A running SuperLink with its SuperNodes.

    Attributes
    ----------
    connection : Connection
        The SuperLink.
    secrets : Path
        Folder of the certificates and keys.
    superlink : subprocess.Popen or None
        The SuperLink itself, once it has been started.
    nodes : dict of str to subprocess.Popen
        The SuperNodes, by their names.
    door : str
        HOST:PORT that nodes call; empty for the SuperLink's own.
    """

    connection: Connection
    secrets: Path
    superlink: subprocess.Popen[str] | None = None
    nodes: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    door: str = ""

    def start_superlink(self) -> None:
        """Start the SuperLink, on the database that it left behind if it has run before."""
        options = ["--database", str(self.connection.working_directory / "state.db"), "--enable-supernode-auth"]
        options += ["--ssl-ca-certfile", str(self.secrets / AUTHORITY)]
        options += ["--ssl-certfile", str(self.secrets / SERVER), "--ssl-keyfile", str(self.secrets / SERVER_KEY)]
        self.superlink = start_superlink(self.connection, *options)

    def new_key(self, name: str, register: bool = True) -> Path:
        """Make a node's key, and let the SuperLink know it.

        Parameters
        ----------
        name : str
            The node's name.
        register : bool
            Whether the SuperLink is told.

        Returns
        -------
        Path
            The private key.
        """
        path = self.secrets / f"{name}.key"
        write_node_key(path)
        if register:
            self._register([path])
        return path

    def new_keys(self, names: Sequence[str]) -> list[Path]:
        """Make the keys of several nodes, and let the SuperLink know them, in the time that one takes.

        Parameters
        ----------
        names : sequence of str
            The nodes' names.

        Returns
        -------
        list of Path
            The private keys.
        """
        paths = [self.new_key(name, register=False) for name in names]
        self._register(paths)
        return paths

    def start_node(
        self, name: str, key: Path, node_config: Mapping[str, Scalar], own_app: bool = True
    ) -> subprocess.Popen[str]:
        """Start a SuperNode.

        Parameters
        ----------
        name : str
            The node's name, which its log has too.
        key : Path
            Its private key.
        node_config : mapping
            What is in its node-config, apart from the name.
        own_app : bool
            Whether the app of the node's own installation answers, and not the one that the server ships.

        Returns
        -------
        subprocess.Popen
            The SuperNode.
        """
        with self.log_of(name).open("a", encoding="utf-8") as log, reserved_port() as port:
            settings = self._settings_of(name, key, node_config, port.getsockname()[1])
            self.nodes[name] = self.connection.popen(
                *settings.command(),
                stdout=log.fileno(),
                stderr=subprocess.STDOUT,
                variables={"FLWR_HOME": str(settings.home), **self._commands(own_app)},
            )
        return self.nodes[name]

    def start_nodes(self, nursery: Nursery, nodes: Mapping[str, tuple[Path, Mapping[str, Scalar]]]) -> None:
        """Start many SuperNodes with their own app.

        Parameters
        ----------
        nursery : Nursery
            Has their processes.
        nodes : mapping of str to (Path, mapping)
            Private key and node-config of each, by its name.
        """
        with ExitStack() as held:
            # All at once, so that no two get the same.
            ports = [held.enter_context(reserved_port()).getsockname()[1] for _ in nodes]
        for (name, (key, node_config)), port in zip(nodes.items(), ports, strict=True):
            settings = self._settings_of(name, key, node_config, port)
            nursery.start_node(settings.command(), settings.home, self.log_of(name))

    def open_door(self, nginx: str) -> None:
        """Have nodes come through nginx from now on.

        Parameters
        ----------
        nginx : str
            Its command.
        """
        with reserved_port() as reserved:
            port = reserved.getsockname()[1]
        open_door(self.connection, port, nginx)
        self.door = f"{LOOPBACK}:{port}"

    def _settings_of(self, name: str, key: Path, node_config: Mapping[str, Scalar], port: int) -> NodeSettings:
        assert self.connection.certificates is not None
        home = self.connection.home / "nodes" / name
        home.mkdir(parents=True, exist_ok=True)
        superlink = self.door or self.connection.address
        return NodeSettings(superlink, self.connection.certificates, key, {"name": name, **node_config}, home, port)

    def _commands(self, own_app: bool) -> dict[str, str]:
        if not own_app:
            return {}
        folder = self.connection.working_directory / "commands"
        return {"PATH": path_with_commands(folder, self.connection.environment["PATH"])}

    def log_of(self, name: str) -> Path:
        """Name the file in which a SuperNode's log goes."""
        return self.connection.working_directory / f"{name}.log"

    def _register(self, keys: Sequence[Path]) -> None:
        command = [sys.executable, "-c", _REGISTER, self.connection.name, *(f"{key}.pub" for key in keys)]
        process = self.connection.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said = process.communicate()[0]
        if process.returncode:
            raise UserError(f"flwr supernode register failed and said {said.strip()[-200:]!r}.")


@contextmanager
def local_federation(working_directory: Path) -> Iterator[LocalFederation]:
    """Run a secured SuperLink on a free port of the loopback address, and stop all that was started in the end.

    Parameters
    ----------
    working_directory : Path
        Folder for everything that Flower writes, and for the keys.

    Yields
    ------
    LocalFederation
        Without a node yet.

    Raises
    ------
    UserError
        If the SuperLink does not start.
    """
    working_directory = working_directory.absolute()
    secrets = working_directory / "secrets"
    write_certificates(secrets, ["localhost", LOOPBACK])
    with signals_raise(), reserved_port() as reserved, TemporaryDirectory(prefix="fedcof-") as nothing:
        address = f"{LOOPBACK}:{reserved.getsockname()[1]}"
        environment = flower_environment(working_directory)
        connection = Connection(
            CONNECTION_NAME, address, working_directory, environment, certificates=secrets / AUTHORITY
        )
        connection.prepare()
        federation = LocalFederation(connection, secrets)
        with guarded(connection.home, Path(nothing)):
            try:
                federation.start_superlink()
                reserved.close()
                yield federation
            finally:
                with signals_ignored():
                    stop(connection.processes, connection.home)


def deploy_local(
    config: RunConfig, num_nodes: int, output: Path, on_line: Callable[[str], None]
) -> list[RunResult]:
    """Deal a dataset to folders, start a node on each, run the app on them, and stop everything.

    Parameters
    ----------
    config : RunConfig
        What to run; its dataset and partition say what the nodes hold.
    num_nodes : int
        How many nodes.
    output : Path
        Folder for the results, with the nodes' folders in ``nodes`` and the server's test images in ``test``.
    on_line : callable
        Called with every line of Flower's log.

    Returns
    -------
    list of RunResult
        The run's.

    Raises
    ------
    UserError
        If something does not start, or the run fails.
    """
    output = output.absolute()
    with _whole_federation(output):
        folders = write_node_folders(config, num_nodes, output)
    values = nodes_run_config(config, num_nodes, output)
    with (
        TemporaryDirectory(prefix="fedcof-") as scratch,
        local_federation(Path(scratch)) as federation,
        closing(Nursery(federation.connection, num_nodes)) as nursery,
    ):
        if nginx := nginx_command():
            federation.open_door(nginx)
        app = stage_app(Path(scratch) / "app")
        keys = federation.new_keys([folder.name for folder in folders])
        own = [{DATA: str(folder / TABLE_FILE_NAME)} for folder in folders]
        federation.start_nodes(
            nursery,
            {folder.name: (key, data) for folder, key, data in zip(folders, keys, own, strict=True)},
        )
        try:
            run_app(federation.connection, app, values, None, on_line)
        except UserError as error:
            failure = output / FAILURE_FILE_NAME
            if failure.exists():
                raise UserError(failure.read_text(encoding="utf-8")) from error
            raise
    return load_results(output)


@contextmanager
def _whole_federation(output: Path) -> Iterator[None]:
    """Leave nothing of a federation that could not be written whole: its folder would be taken for one."""
    places = [output / name for name in ("nodes", "test") if not (output / name).exists()]
    try:
        yield
    except BaseException:
        for place in places:
            shutil.rmtree(place, ignore_errors=True)
        raise


def nodes_run_config(config: RunConfig, num_nodes: int, output: Path) -> dict[str, Scalar]:
    """Make the run-config of a federation whose images lie in the folders that were written.

    Parameters
    ----------
    config : RunConfig
        The run.
    num_nodes : int
        How many nodes.
    output : Path
        Where they are, and where the results go.

    Returns
    -------
    dict
        Keys and values for ``flwr run``.
    """
    values = config.replaced(
        dataset=NODES,
        classes=str(output / CLASSES_FILE_NAME),
        test_data=str(output / "test" / TABLE_FILE_NAME),
        num_clients=num_nodes,
        output=str(output),
    ).to_mapping()
    defaults = RunConfig.defaults()
    return {key: value for key, value in values.items() if value != defaults[key]}


def write_node_folders(config: RunConfig, num_nodes: int, output: Path) -> list[Path]:
    """Deal a dataset's images to folders.

    Parameters
    ----------
    config : RunConfig
        Names the dataset and the partition.
    num_nodes : int
        How many folders.
    output : Path
        Gets ``nodes/site-N`` and ``test``, each with a table ``images.parquet`` of its files ``images/NUMBER.png``
        and their classes; and ``classes.txt``.

    Returns
    -------
    list of Path
        The nodes' folders.

    Raises
    ------
    UserError
        If the dataset cannot be dealt like that.
    """
    if (output / "nodes").exists():
        raise UserError(f"The folder {output} holds a federation already: name a new one with --output.")
    dataset = dataset_of(config)
    parts = client_indices(config)
    output.mkdir(parents=True, exist_ok=True)
    write_whole(output / CLASSES_FILE_NAME, classes_text(dataset.class_names) + "\n")
    width = len(str(num_nodes - 1))
    folders = [output / "nodes" / f"site-{number:0{width}d}" for number in range(num_nodes)]
    for folder, indices in zip(folders, parts, strict=True):
        _write_images(dataset, dataset.train, "train", indices.tolist(), folder)
    _write_images(dataset, dataset.test, "test", range(len(dataset.test)), output / "test")
    return folders


def _write_images(
    dataset: ImageDataset, images: datasets.Dataset, split: str, indices: Sequence[int], folder: Path
) -> None:
    labels = dataset.labels(split)
    # In the order of folders of classes, on which depends who keeps what for evaluation.
    ordered = sorted(indices, key=lambda index: (dataset.class_names[int(labels[index])], index))
    files = [f"{IMAGES_FOLDER_NAME}/{index:07d}.png" for index in ordered]
    (folder / IMAGES_FOLDER_NAME).mkdir(parents=True)
    for start in range(0, len(ordered), IMAGES_AT_ONCE):
        images_now = rgb_images(images, ordered[start : start + IMAGES_AT_ONCE])
        for file, image in zip(files[start : start + IMAGES_AT_ONCE], images_now, strict=True):
            image.save(folder / file)
    # Names of classes are no names of folders: they may hold a slash, or nothing.
    names = [dataset.class_names[int(labels[index])] for index in ordered]
    write_table(folder / TABLE_FILE_NAME, files, names)
