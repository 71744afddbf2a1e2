"""The command in this process, and a small dataset of image files."""

import sys

import numpy as np
import pytest
from PIL import Image

from simulations import cli


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
