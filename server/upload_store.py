"""Uploads kept on disk as they arrive, so that solving again, or going on after a crash, needs no node twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from logging import getLogger
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedcof.data.class_list import class_names_of
from fedcof.files import write_whole
from fedcof.run.config import RunConfig

FOLDER_NAME = "uploads"
CONFIG_FILE_NAME = "run-config.json"
PREFIX, SUFFIX = "node-", ".safetensors"

# What an upload depends on, with the names of the classes.
KEYS = [
    "dataset",
    "backbone",
    "weights",
    "image-size",
    "groups",
    "encoding",
    "rounding-noise",
    "bytes-per-client",
    "bytes-per-class",
    "client-test-share",
    "seed",
]
PRIVACY_KEYS = ["epsilon", "delta", "clip-norm"]

logger = getLogger("flwr")

Arrays = Mapping[str, NDArray[Any]]


class UploadStore:
    """The uploads of one federation and one kind of statistics.

    Parameters
    ----------
    folder : Path
        The run's folder; what is asked otherwise there has a folder of its own within it.
    config : RunConfig
        The run.
    """

    def __init__(self, folder: Path, config: RunConfig) -> None:
        classes = class_names_of(config.classes) if config.classes else ()
        values = [classes, *(config.to_mapping()[key] for key in KEYS)]
        if config.epsilon:
            values += [config.to_mapping()[key] for key in PRIVACY_KEYS]
        kind = "moments" if config.method == "fed3r" else "means"
        digest = hashlib.sha256(json.dumps([kind, values]).encode()).hexdigest()[:8]
        self.folder = folder / FOLDER_NAME / f"{kind}-{digest}"
        self._config = config

    def keep(self, name: str, arrays: Arrays) -> None:
        """Put an accepted upload on disk, in one step.

        Parameters
        ----------
        name : str
            The node's name.
        arrays : mapping of str to ndarray
            The upload as it was sent.
        """
        if not (self.folder / CONFIG_FILE_NAME).exists():
            write_whole(self.folder / CONFIG_FILE_NAME, json.dumps(self._config.to_mapping(), indent=1))
        write_whole(self._path(name), save({key: np.ascontiguousarray(array) for key, array in arrays.items()}))

    def remove(self, name: str) -> None:
        """Forget an upload, so that its node is asked again.

        Parameters
        ----------
        name : str
            The node's name.
        """
        self._path(name).unlink(missing_ok=True)

    def names(self) -> list[str]:
        """List the nodes whose upload is kept, in their order."""
        files = self.folder.glob(f"{PREFIX}*{SUFFIX}")
        return sorted(unquote(file.name.removeprefix(PREFIX).removesuffix(SUFFIX)) for file in files)

    def read(self, name: str) -> Arrays | None:
        """Read an upload.

        Parameters
        ----------
        name : str
            The node's name.

        Returns
        -------
        mapping of str to ndarray, or None
            As it was sent; None if there is none, or it is damaged and so has to be asked for again.
        """
        path = self._path(name)
        try:
            return load(path.read_bytes())
        except FileNotFoundError:
            return None
        except (SafetensorError, ValueError) as error:
            logger.warning("The kept upload of %s is damaged (%s): it is asked for again.", name, error)
            return None

    def _path(self, name: str) -> Path:
        return self.folder / f"{PREFIX}{quote(name, safe='')}{SUFFIX}"


def kept_configs(folder: Path) -> list[RunConfig]:
    """Find the runs whose uploads a folder keeps.

    Parameters
    ----------
    folder : Path
        A run's folder.

    Returns
    -------
    list of RunConfig
        The configuration that each kind of uploads was first asked with.
    """
    files = sorted((folder / FOLDER_NAME).glob(f"*/{CONFIG_FILE_NAME}"))
    return [RunConfig.from_mapping(json.loads(file.read_text())) for file in files]
