"""The start of the command: what each process imports, and names that are imported when asked for."""

import subprocess
import sys

import pytest

import fedcof

HEAVY = {"torch", "timm", "datasets", "sklearn", "flwr_datasets", "matplotlib", "torchvision", "pandas"}


def imported_by(statement):
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return HEAVY & set(done.stdout.split())


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import fedcof", set()),
        ("from fedcof import UserError", set()),
        ("import simulations.cli", set()),
        ("import simulations.commands", set()),  # The SuperLink is started with no more than this.
        ("import simulations.flower_runs", {"torch"}),
        ("from simulations.scenario import configure; configure('digits', [])", {"torch"}),
        ("import clients.client_app", set()),
        ("import clients.app", {"torch"}),
        ("import server.app", {"torch"}),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(statement, allowed):
    assert imported_by(statement) <= allowed


def test_every_name_is_there_and_listed():
    for name in fedcof.__all__:
        assert getattr(fedcof, name).__name__ == name
    assert set(fedcof.__all__) <= set(dir(fedcof))
    assert set(fedcof.__all__) == set(fedcof._HOMES)
    with pytest.raises(AttributeError, match="no attribute 'FedCoF'"):
        _ = fedcof.FedCoF
    with pytest.raises(ImportError, match="FedCoF"):
        from fedcof import FedCoF  # noqa: F401
