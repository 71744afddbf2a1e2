"""A simulation's uploads kept as they come: packed into few files, and marked with what made their features."""

from __future__ import annotations

import hashlib
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np

from fedcof.data.problem import fingerprint_of, problem_of, split_features
from fedcof.run.config import RunConfig
from fedcof.statistics.base import Statistics
from fedcof.wire.arrays import num_bytes
from fedcof.wire.codec import Sent
from server.upload_store import UploadStore

# A pack is read and written as a whole where one of its clients is forgotten.
BYTES_PER_PACK = 2**26
CLIENTS_PER_PACK = 2000
ROWS_LOOKED_AT = 64


class Keeper:
    """Keeps what simulated clients send.

    Parameters
    ----------
    store : UploadStore
        Where to. What an earlier run left there is forgotten: its clients are asked anew.
    """

    def __init__(self, store: UploadStore) -> None:
        self._store = store
        self._waiting: list[tuple[str, Sent, Statistics]] = []
        self._bytes = 0
        store.clear()

    def take(self, client: int, sent: Sent, statistics: Statistics) -> None:
        """Take an accepted upload, and write it once there are many.

        Parameters
        ----------
        client : int
            The client's number.
        sent, statistics
            Its upload as it was sent, and read.
        """
        self._waiting.append((str(client), sent, statistics))
        self._bytes += num_bytes(sent.arrays)
        if self._bytes >= BYTES_PER_PACK or len(self._waiting) >= CLIENTS_PER_PACK:
            self.finish()

    def finish(self) -> None:
        """Write those that wait."""
        if self._waiting:
            self._store.keep_many(self._waiting)
        self._waiting, self._bytes = [], 0


def store_of(folder: Path, config: RunConfig) -> UploadStore:
    """Give the store of a run, which refuses what was made with another backbone, transform or class list.

    Parameters
    ----------
    folder : Path
        The run's folder.
    config : RunConfig
        The run.

    Returns
    -------
    UploadStore
        With the run's fingerprint and class names, for which its backbone is loaded.
    """
    return UploadStore(folder, config, _fingerprint_of(config), problem_of(config).class_names)


def discard(store: UploadStore) -> None:
    """Remove a store with all that it keeps, and the folder of stores if it was the last."""
    shutil.rmtree(store.folder, ignore_errors=True)
    with suppress(OSError):
        store.folder.parent.rmdir()


def _fingerprint_of(config: RunConfig) -> str:
    if not config.data.is_precomputed or config.data.encoder:
        return fingerprint_of(config)
    # Features in a folder have no name: some of them tell them from another encoder's.
    features = split_features(config, "train").features
    places = np.linspace(0, max(len(features) - 1, 0), ROWS_LOOKED_AT).astype(np.int64)
    looked_at = np.ascontiguousarray(features[places[: len(features)]])
    digest = hashlib.sha256(f"{features.shape}".encode() + looked_at.tobytes()).hexdigest()
    return config.embedding.fingerprint(digest)
