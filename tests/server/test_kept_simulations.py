"""Uploads of simulated clients: kept where asked, in few files, and solved again to the last bit without some."""


import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from clients.app import app as client_app
from fedcof.run.config import RunConfig
from fedcof.run.results import append_result
from server import resolving
from server.federation import Federation
from server.resolving import solve_again
from server.run import execute
from server.selection import Selection
from tests.server.in_memory_grid import InMemoryGrid

CLIENTS, CLASSES, DIM = 12, 4, 8
FLOAT32 = {"upload": "given", "encoding": "float32", "groups": 3}
CODED = {"upload": "given", "encoding": "coded", "groups": 3}


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Features of four classes that overlap."""
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "features"
    folder.mkdir()
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((CLASSES, DIM)) * 1.2
    for split, count in (("train", 480), ("test", 200)):
        labels = np.arange(count) % CLASSES
        features = centres[labels] + generator.standard_normal((count, DIM)) * (1 + np.arange(DIM) / 4)
        np.save(folder / f"{split}_features.npy", features.astype(np.float32))
        np.save(folder / f"{split}_labels.npy", labels)
    return f"features:{folder}"


def config_of(dataset, **values):
    settings = {"num_clients": CLIENTS, "partition": "iid", "keep_uploads": True, "quorum": 0.5}
    return RunConfig(dataset=dataset, **{**settings, **values})


def run(config, folder, failing=()):
    """Execute a run; clients that fail are as if there never had been any."""
    grid = InMemoryGrid(client_app, CLIENTS, run_config=config.to_mapping(), failing=failing)
    result = execute(Federation(grid, CLIENTS), config, folder, "", lambda: None)
    append_result(folder, result)
    return result


def head_in(folder):
    return load_file(folder / "head.safetensors")


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert torch.equal(array, other[name]), name


@pytest.mark.parametrize("form", [FLOAT32, CODED, {}], ids=["float32", "coded", "best"])
@pytest.mark.parametrize(
    "solved", [{"estimator": "per-class", "head": "ridge"}, {"estimator": "pooled", "head": "ridge"}, {}]
)
@pytest.mark.parametrize("cached", [False, True])
def test_without_a_client_it_is_the_federation_that_never_had_it(
    dataset, tmp_path, monkeypatch, form, solved, cached
):
    if cached:
        monkeypatch.setattr(resolving, "FEWEST_UPLOADS", 1)
    config = config_of(dataset, **form, **solved)
    run(config, tmp_path / "all")
    run(config.replaced(keep_uploads=False), tmp_path / "never", failing=[3])
    solve_again(tmp_path / "all", {}, "everybody")
    assert_same_bits(head_in(tmp_path / "all" / "everybody"), head_in(tmp_path / "all"))
    for _ in range(2):
        again = solve_again(tmp_path / "all", {}, "without", Selection(without=("3",)))
        assert_same_bits(head_in(tmp_path / "all" / "without"), head_in(tmp_path / "never"))
    assert (again.clients, again.without) == (CLIENTS - 1, {"3": "named by --without"})
    assert again.accuracy is not None
