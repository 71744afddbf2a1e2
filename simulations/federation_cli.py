"""The commands on what a run has kept: list the federation, solve it again, forget a client."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_DIR = typer.Argument(metavar="DIR", help="Output folder of a run on nodes, or of a simulation that keeps uploads.")


def federation(folder: Annotated[Path, _DIR]) -> None:
    """List the uploads that a folder keeps, and what was made with them."""
    from simulations import federation_command

    federation_command.show_federation(folder)


def solve(
    folder: Annotated[Path, _DIR],
    settings: Annotated[
        list[str] | None,
        typer.Option("-c", metavar="KEY=VALUE", help="Set a run-config key that is looked at after the uploads."),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Leave a client out; several times for several.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Take this client; several times for several.")
    ] = None,
    as_of: Annotated[
        str, typer.Option(metavar="DATE", help="Take what had come by then: the end of that day, or a time.")
    ] = "",
) -> None:
    """Solve again from the uploads that a run has kept, or some of them; nobody is asked."""
    from server.selection import Selection
    from simulations import federation_command
    from simulations.results_folder import results_folder

    selection = Selection(tuple(without or ()), tuple(only or ()), as_of)
    with results_folder(folder) as claimed:
        federation_command.solve(claimed, settings or [], selection)


def forget(
    folder: Annotated[Path, _DIR],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The node's name, or the simulated client's number.")],
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class", metavar="LABEL", help="Forget its samples of this class alone; several times for more."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before files are removed.")] = False,
) -> None:
    """Remove a client's upload and all that was made with it, and solve again without."""
    from simulations import federation_command
    from simulations.results_folder import results_folder

    with results_folder(folder) as claimed:
        federation_command.forget(claimed, name, classes or [], yes)
