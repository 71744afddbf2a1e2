"""The command in this process, and a small dataset of image files."""

import sys

import numpy as np
import pytest
from flwr.supercore.task_identity import TaskIdentity
from PIL import Image

from simulations import cli
from tests.server.in_memory_grid import InMemoryGrid


@pytest.fixture
def fedcof(monkeypatch, capsys, tmp_path):
    """Run the command; gives its exit status and what it printed to standard error."""
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fedcof", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as leave:
            return leave.code or 0, capsys.readouterr().err
        return 0, capsys.readouterr().err

    return run


@pytest.fixture
def in_memory(monkeypatch, tmp_path):
    """Execute a run on nodes in memory, a client each: what Flower and Ray are to come to, without them."""
    from clients.app import app
    from server.federation import Federation
    from server.run import execute

    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    for name in ("_run_id", "_task_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)

    def run(config, output):
        nodes = config.data.num_clients
        grid = InMemoryGrid(app, nodes, run_config=config.to_mapping())
        return execute(Federation(grid, nodes), config, output, "")

    return run


@pytest.fixture
def image_folder(tmp_path):
    """Twelve training and four test images of two classes, dark and bright."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for class_id, name in enumerate(("dark", "bright")):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 100, (32, 32, 3), dtype=np.uint8) + 150 * class_id
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "images"
