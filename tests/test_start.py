"""The start of the command: what each process imports, and names that are imported when asked for."""

import subprocess
import sys

import pytest

import fedcof

HEAVY = {"torch", "timm", "datasets", "sklearn", "flwr_datasets", "matplotlib", "torchvision", "pandas"}


def imported_by(statements):
    """Execute statements in one new process; gives what of the heavy is there after each."""
    code = "import sys\n" + "".join(f"{statement}\nprint(*sys.modules)\n" for statement in statements)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return [HEAVY & set(line.split()) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("allowed", "statements"),
    [
        (
            set(),
            [
                "import fedcof",
                "from fedcof import UserError",
                "import simulations.cli",
                "import simulations.commands",  # The SuperLink is started with no more than this.
                "import clients.client_app",
            ],
        ),
        (
            {"torch"},
            [
                "import simulations.flower_runs",
                "from simulations.scenario import configure; configure('digits', [])",
                "import clients.app",
                "import server.app",
            ],
        ),
    ],
    ids=["nothing", "torch"],
)
def test_nothing_heavy_is_imported_before_it_is_needed(allowed, statements):
    found = imported_by(statements)
    assert [what for what in zip(statements, found, strict=True) if what[1] - allowed] == []


def test_every_name_is_there_and_listed():
    for name in fedcof.__all__:
        assert getattr(fedcof, name).__name__ == name
    assert set(fedcof.__all__) <= set(dir(fedcof))
    assert set(fedcof.__all__) == set(fedcof._HOMES)
    with pytest.raises(AttributeError, match="no attribute 'FedCoF'"):
        _ = fedcof.FedCoF
    with pytest.raises(ImportError, match="FedCoF"):
        from fedcof import FedCoF  # noqa: F401
