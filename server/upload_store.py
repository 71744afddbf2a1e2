"""Uploads kept on disk as they arrive, so that solving again, or going on after a crash, needs no node twice."""

from __future__ import annotations

import hashlib
import json
from logging import getLogger
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedcof.data.class_list import class_names_of, classes_text
from fedcof.files import private_folder, write_whole
from fedcof.run.config import RunConfig
from fedcof.run.protocol import FINGERPRINT
from fedcof.wire.codec import Sent

FOLDER_NAME = "uploads"
CONFIG_FILE_NAME = "run-config.json"
PREFIX, SUFFIX = "node-", ".safetensors"

TAG, DATA_STATE = "tag", "data-state"
_WORDS = {DATA_STATE: "data", FINGERPRINT: "backbone"}

logger = getLogger("flwr")


class UploadStore:
    """The uploads of one federation and one kind of statistics.

    Parameters
    ----------
    folder : Path
        The run's folder; what is asked otherwise there has a folder of its own within it.
    config : RunConfig
        The run.
    fingerprint : str, optional
        That of the backbone which the server has for it: uploads of another, by whatever name, are not read.
    """

    def __init__(self, folder: Path, config: RunConfig, fingerprint: str = "") -> None:
        self._config, self._fingerprint = config, fingerprint
        asked = _asked_for(config)
        same = (kept for kept, found in _kept_folders(folder) if _asked_for(found) == asked)
        digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:8]
        self.folder = next(same, folder / FOLDER_NAME / f"{config.method.chosen.kind}-{digest}")

    def keep(self, name: str, sent: Sent, data_state: str = "") -> None:
        """Put an accepted upload on disk, in one step.

        Parameters
        ----------
        name : str
            The node's name.
        sent : Sent
            The upload as it was sent.
        data_state : str
            What the node said of its data, by which it is told whether that has changed since.
        """
        # They are what nodes gave to the server and to nobody else.
        private_folder(self.folder)
        if not (self.folder / CONFIG_FILE_NAME).exists():
            write_whole(self.folder / CONFIG_FILE_NAME, json.dumps(self._config.to_mapping(), indent=1))
        arrays = {key: np.ascontiguousarray(array) for key, array in sent.arrays.items()}
        noted = {TAG: sent.tag, DATA_STATE: data_state, FINGERPRINT: self._fingerprint}
        write_whole(self._path(name), save(arrays, noted))

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

    def read(self, name: str, data_state: str = "") -> Sent | None:
        """Read an upload.

        Parameters
        ----------
        name : str
            The node's name.
        data_state : str, optional
            What the node says of its data now.

        Returns
        -------
        Sent or None
            As it was sent; None if there is none, or it has to be asked for again, because it is damaged, or of
            data or a backbone that has changed since.
        """
        path = self._path(name)
        try:
            with safe_open(path, framework="np") as file:
                noted = file.metadata() or {}
                for key, now in ((DATA_STATE, data_state), (FINGERPRINT, self._fingerprint)):
                    # Where either is unknown, as in uploads of earlier versions, it is taken to be the same.
                    if now and noted.get(key, now) not in ("", now):
                        logger.info(
                            "The %s of %s has changed since its upload: it is asked again.", _WORDS[key], name
                        )
                        return None
                return Sent({key: file.get_tensor(key) for key in file.keys()}, noted.get(TAG, ""))  # noqa: SIM118
        except FileNotFoundError:
            return None
        except (SafetensorError, ValueError, OSError) as error:
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
    return [config for _, config in _kept_folders(folder)]


def _kept_folders(folder: Path) -> list[tuple[Path, RunConfig]]:
    files = sorted((folder / FOLDER_NAME).glob(f"*/{CONFIG_FILE_NAME}"))
    return [(file.parent, _kept_config(json.loads(file.read_text(encoding="utf-8")))) for file in files]


def _kept_config(values: dict[str, object]) -> RunConfig:
    return RunConfig.from_mapping(RunConfig.of_any_version(values))


def _asked_for(config: RunConfig) -> list[object]:
    """List what an upload depends on: its kind, and the values of the keys that change it."""
    if config.data.classes:
        config = config.replaced(classes=classes_text(class_names_of(config.data.classes)))
    return [config.method.chosen.kind, config.upload_values()]
