"""The command ``fedcof``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from fedcof.errors import UserError, refused_by_system
from fedcof.printable import printable
from simulations.environment import settle
from simulations.federation_cli import federation, forget, solve

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

cache = typer.Typer(help="The features and partitions that runs keep on disk.", no_args_is_help=True)
app.add_typer(cache, name="cache")


def _complete_scenario(typed: str) -> list[str]:
    from simulations.scenario import scenario_names

    return [name for name in scenario_names() if name.startswith(typed)]


def _complete_key(typed: str) -> list[tuple[str, str]]:
    from fedcof.run.config import RunConfig

    return [(name, known.meaning) for name, known in RunConfig.declared().items() if name.startswith(typed)]


def _complete_setting(typed: str) -> list[tuple[str, str]]:
    return [(f"{name}=", meaning) for name, meaning in _complete_key(typed)]


_SCENARIO = typer.Argument(
    help="A scenario's name or the path of its TOML file.", show_default="digits", autocompletion=_complete_scenario
)
Scenario = Annotated[str, _SCENARIO]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "-c",
        metavar="KEY=VALUE",
        help="Set a run-config key; fedcof settings lists them.",
        autocompletion=_complete_setting,
    ),
]


def _at_home(path: Path | None) -> Path | None:
    """Take a tilde for the user's home: no shell does behind an equal sign."""
    if path is None or not str(path).startswith("~"):
        return path
    from simulations.scenario import at_home

    return at_home(path)


Output = Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the results.", callback=_at_home)]


Classes = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="The only classes there are: names separated by commas, or a file with a name a line.",
    ),
]
Frequencies = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="How frequent each class is, a name and a count a line; others are never predicted.",
        callback=_at_home,
    ),
]
Client = Annotated[
    int | None,
    typer.Option(metavar="N", help="As frequent as on this client of the simulation, counted from 0."),
]


def _show_version(asked: bool) -> None:
    if asked:
        from simulations.version import version

        print(version())
        raise typer.Exit


@app.callback()
def _of_the_whole_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Training-free federated learning on Flower and Ray."""


@app.command()
def simulate(
    scenario: Annotated[str | None, _SCENARIO] = None,
    settings: Settings = None,
    output: Output = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Go on with the run in this folder, which was interrupted.")
    ] = None,
) -> None:
    """Run one federation on Flower and Ray, and write its classifier."""
    from simulations import commands
    from simulations.results_folder import results_folder
    from simulations.scenario import DEFAULT_SCENARIO

    if resume:
        if output:
            raise UserError("A run goes on in its own folder: give --resume or --output, and not both.")
        with results_folder(resume) as folder:
            commands.resume(folder, scenario, settings or [])
    else:
        scenario = scenario or DEFAULT_SCENARIO
        with results_folder(output, scenario) as folder:
            commands.simulate(scenario, settings or [], folder)


@app.command()
def compare(
    scenario: Scenario = "digits",
    settings: Settings = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Methods, separated by commas; fedcof:paper is FedCOF as its paper has it.",
            show_default="the scenario's, or fedncm:paper,fedcof:paper,fedcof",
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Seeds, separated by commas.", show_default="the scenario's, or 0")
    ] = None,
    output: Output = None,
) -> None:
    """Compare methods, seeds and lists of values (-c alpha=[0.1,1.0]); with --output an interrupted one goes on.

    A run that cannot be made is listed with the reason, the others are made, and the exit status is 1.
    """
    from simulations import commands
    from simulations.results_folder import results_folder
    from simulations.scenario import compared

    all_methods, all_seeds = compared(scenario)
    chosen = all_methods if methods is None else _items(methods)
    with results_folder(output, scenario) as folder:
        failed = commands.compare(
            scenario, settings or [], chosen, all_seeds if seeds is None else _items(seeds), folder
        )
    if failed:
        raise typer.Exit(1)


@app.command()
def predict(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Output folder of a run.")],
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE...", help="Image files, folders of them, and patterns such as 'DIR/**/*.png'."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File for the predictions, .csv or .json.")
    ] = None,
    classes: Classes = None,
    frequencies: Frequencies = None,
    client: Client = None,
) -> None:
    """Classify image files with a saved run (the most accurate of its folder)."""
    from simulations import predict_command
    from simulations.narrowing import Narrowing

    predict_command.show_predictions(folder, images, output, Narrowing(classes, frequencies, client))


@app.command("deploy-local")
def deploy_local(
    scenario: Scenario = "digits",
    nodes: Annotated[int, typer.Option(min=1, help="SuperNodes to start.")] = 3,
    settings: Settings = None,
    output: Output = None,
) -> None:
    """Try a real federation on this machine: TLS, node authentication, nodes with folders of their own."""
    from simulations import commands
    from simulations.results_folder import results_folder

    with results_folder(output, scenario) as folder:
        commands.deploy_local(scenario, settings or [], nodes, folder)


app.command()(federation)
app.command()(solve)
app.command()(forget)


@app.command()
def certificates(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the files go.")],
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names and addresses of the server.")],
) -> None:
    """Make the server's certificate, and the authority that signs it."""
    from simulations.credentials import write_certificates

    write_certificates(folder, names)
    print(
        printable(
            f"Give {folder / 'ca.crt'} to every node, and keep {folder / 'ca.key'} on a machine that is offline."
        )
    )


@app.command("node-key")
def node_key(path: Annotated[Path, typer.Argument(metavar="FILE", help="Where the private key goes.")]) -> None:
    """Make the key by which a node is known."""
    from simulations.credentials import write_node_key

    print(printable(f"Send {write_node_key(path)} to the server's owner, and the other file to nobody."))


_SUPERLINK = typer.Option("--superlink", metavar="HOST:PORT", help="The server.")
_AUTHORITY = typer.Option("--ca", metavar="FILE", help="The authority's certificate.")
_KEY = typer.Option("--key", metavar="FILE", help="The node's private key.")
_NODE_SETTINGS = typer.Option(
    "-n", metavar="KEY=VALUE", help="The node's name, data, state and policy (docs/policy.md)."
)


@app.command()
def node(
    superlink: Annotated[str, _SUPERLINK],
    settings: Annotated[list[str], _NODE_SETTINGS],
    authority: Annotated[Path, _AUTHORITY] = Path("ca.crt"),
    key: Annotated[Path, _KEY] = Path("node.key"),
    port: Annotated[int, typer.Option(help="Port of the node's own, on loopback.")] = 9094,
) -> None:
    """Run a node with data of its own: it answers by its own installation, and is started again if it goes deaf."""
    from simulations import node_commands

    node_commands.run(superlink, authority, key, settings, port)


@app.command("check-node")
def check_node(
    superlink: Annotated[str, _SUPERLINK],
    settings: Annotated[list[str], _NODE_SETTINGS],
    authority: Annotated[Path, _AUTHORITY] = Path("ca.crt"),
    key: Annotated[Path, _KEY] = Path("node.key"),
) -> None:
    """Look at all that a node needs: policy, data, key, disk, address, port, certificate, clock."""
    from simulations import node_commands

    node_commands.check_node(superlink, authority, key, settings)


@app.command("check-server")
def check_server(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the certificates.")],
    superlink: Annotated[str, _SUPERLINK],
) -> None:
    """Look at all that a server needs: certificate, keys, disk, address, port."""
    from simulations import node_commands

    node_commands.check_server(folder, superlink)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Output folder of a run.")],
    file_format: Annotated[str, typer.Option("--format", help="timm or onnx.")] = "timm",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="What to write.")] = None,
    classes: Classes = None,
    frequencies: Frequencies = None,
    client: Client = None,
) -> None:
    """Write backbone and head of a run (the most accurate of its folder) as one model."""
    from simulations import commands
    from simulations.narrowing import Narrowing

    commands.export_model(folder, file_format, output, Narrowing(classes, frequencies, client))


@app.command()
def report(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Output folder of runs.")]) -> None:
    """Write a table, plots and one self-contained HTML page for a folder of runs."""
    from simulations import commands

    commands.report(folder)


@app.command("settings")
def show_settings(
    key: Annotated[
        str | None, typer.Argument(help="One run-config key.", show_default="all", autocompletion=_complete_key)
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/settings.md.")] = False,
) -> None:
    """List what can be set with -c: every key with its default, what it takes, and what it means."""
    from simulations import settings_command

    settings_command.show_settings(key, markdown)


@cache.command("list")
def list_cache() -> None:
    """List what is kept, and where."""
    from simulations import cache_command

    cache_command.show_cache()


@cache.command("clear")
def clear_cache() -> None:
    """Delete what is kept; the next run computes it again."""
    from simulations import cache_command

    cache_command.empty_cache()


def main() -> None:
    """Run the command; a user's error is one sentence on standard error and exit status 2."""
    # What we start on this machine reports to nobody unless the user has said so.
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    try:
        try:
            settle()
            app()
        except OSError as error:
            raise refused_by_system(error) from error
        except UnicodeEncodeError as error:
            raise UserError(
                f"The text {error.object!r} has bytes that are no UTF-8, and files and messages are written in it: "
                "rename that file or folder, or set LC_ALL=C.UTF-8."
            ) from error
    except UserError as error:
        print(f"fedcof: {printable(error)}", file=sys.stderr)
        sys.exit(2)


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]
