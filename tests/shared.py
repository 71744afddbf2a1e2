"""What several tests need and is costly to make: made once for all of pytest's processes."""

import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(tmp_path_factory, name, make):
    """Have the first process that asks make something, and the others wait for it.

    Parameters
    ----------
    tmp_path_factory : pytest.TempPathFactory
        Knows the folder of this run of pytest.
    name : str
        What it is called; the name of its folder.
    make : callable
        Fills the folder that it is given. If it fails, so do all who ask, at once and with its words. What a
        process that was killed left behind is made anew.

    Returns
    -------
    Path
        The folder.
    """
    base = tmp_path_factory.getbasetemp()
    # Each process of xdist has a folder of its own in one that they share.
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, made, failed = (Path(base) / f"{name}{end}" for end in ("", ".made", ".failed"))
    with FileLock(base / f"{name}.lock"):
        if failed.exists():
            pytest.fail(f"{name} could not be made: {failed.read_text()}")
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            try:
                make(folder)
            except BaseException as error:
                failed.write_text(repr(error))
                raise
            made.touch()
    return folder
