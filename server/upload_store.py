"""Uploads kept on disk, of nodes and of simulated clients, so that solving again or going on asks nobody twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from logging import getLogger
from pathlib import Path

from fedcof import UserError
from fedcof.data.class_list import class_names_of, classes_text
from fedcof.embedding.section import NO_TRANSFORM, TRANSFORMS
from fedcof.files import private_folder, write_whole
from fedcof.run.config import RunConfig
from fedcof.statistics.base import Statistics
from fedcof.wire.codec import Sent
from server.kept_files import (
    DAMAGED,
    PACK_PREFIX,
    PREFIX,
    SUFFIX,
    KeptUpload,
    file_of_node,
    file_of_pack,
    node_of_file,
    noted_of,
    read_arrays,
    read_noted,
    write_node,
    write_pack,
)

FOLDER_NAME = "uploads"
CONFIG_FILE_NAME = "run-config.json"

logger = getLogger("flwr")

ReadNoted = Callable[[Path], list[KeptUpload]]


class UploadStore:
    """The uploads of one federation and one kind of statistics, each read in one order: that of the clients.

    Parameters
    ----------
    folder : Path
        The run's folder; what is asked otherwise there has a folder of its own within it.
    config : RunConfig
        The run.
    fingerprint : str, optional
        That of the backbone which the server has for it: uploads of another, by whatever name, are not read.
    class_names : sequence of str, optional
        What the run's labels stand for; those of nodes stand in its run-config.
    """

    def __init__(
        self, folder: Path, config: RunConfig, fingerprint: str = "", class_names: Sequence[str] = ()
    ) -> None:
        self.config, self._fingerprint = config, fingerprint
        names = class_names or (class_names_of(config.data.classes) if config.data.classes else ())
        self._classes = _digest(list(names)) if names else ""
        asked = _asked_for(config)
        same = (kept for kept, found in _kept_folders(folder) if _asked_for(found) == asked)
        self.folder = next(same, folder / FOLDER_NAME / f"{config.method.chosen.kind}-{_digest(asked)}")

    def keep(self, name: str, sent: Sent, data_state: str = "", statistics: Statistics | None = None) -> None:
        """Put an accepted upload on disk, in one step.

        Parameters
        ----------
        name : str
            The node's name.
        sent : Sent
            The upload as it was sent.
        data_state : str
            What the node said of its data, by which it is told whether that has changed since.
        statistics : Statistics, optional
            The upload read, whose rows and samples are noted.
        """
        self._prepare()
        noted = noted_of(name, file_of_node(name), sent, statistics, data_state=data_state, **self._checked_by())
        write_node(self.folder, noted, sent)

    def keep_many(self, uploads: Iterable[tuple[str, Sent, Statistics]]) -> None:
        """Put uploads of simulated clients on disk, in one file and one step.

        Parameters
        ----------
        uploads : iterable of (str, Sent, Statistics)
            Number of each client as text, its upload as it was sent, and read.
        """
        self._prepare()
        packs = sorted(self.folder.glob(f"{PACK_PREFIX}*{SUFFIX}"))
        last = int(packs[-1].stem.removeprefix(PACK_PREFIX)) if packs else -1
        file = file_of_pack(last + 1)
        checked = self._checked_by()
        noted = [(noted_of(name, file, sent, read, **checked), sent) for name, sent, read in uploads]
        if noted:
            write_pack(self.folder, noted)

    def correct(self, upload: KeptUpload, sent: Sent, statistics: Statistics) -> None:
        """Put another upload in the place of a kept one, as if it had come at its time.

        Parameters
        ----------
        upload : KeptUpload
            The one that is replaced.
        sent : Sent
            What takes its place.
        statistics : Statistics
            The same, read.
        """
        noted = noted_of(
            upload.name,
            upload.file,
            sent,
            statistics,
            arrived=upload.arrived,
            data_state=upload.data_state,
            **self._checked_by(),
        )
        if upload.file.startswith(PACK_PREFIX):
            self._rewrite_pack(upload.file, {upload.name: (noted, sent)})
        else:
            write_node(self.folder, noted, sent)

    def remove(self, name: str) -> None:
        """Forget an upload, so that its node is asked again.

        Parameters
        ----------
        name : str
            The node's name, or the client's number.
        """
        (self.folder / file_of_node(name)).unlink(missing_ok=True)
        for pack in self.folder.glob(f"{PACK_PREFIX}*{SUFFIX}"):
            if any(upload.name == name for upload in read_noted(pack)):
                self._rewrite_pack(pack.name, {name: None})

    def clear(self) -> None:
        """Forget all uploads, because the clients are all asked anew."""
        for path in self._files():
            path.unlink(missing_ok=True)

    @property
    def is_empty(self) -> bool:
        """Whether there is no upload, be it a damaged one."""
        return not self._files()

    def names(self) -> list[str]:
        """List those whose upload is kept, in their order."""
        own = {node_of_file(path.name) for path in self.folder.glob(f"{PREFIX}*{SUFFIX}")}
        packs = self.folder.glob(f"{PACK_PREFIX}*{SUFFIX}")
        packed = {upload.name for pack in packs for upload in read_noted(pack) if upload.name}
        return self._in_order(own | packed)

    def uploads(self, read: ReadNoted = read_noted) -> dict[str, KeptUpload]:
        """List what is known of all kept uploads.

        Parameters
        ----------
        read : callable
            Reads what is noted in a file, perhaps remembering it.

        Returns
        -------
        dict of str to KeptUpload
            By name, in the order in which they are always added up: simulated clients by their number, nodes by
            their name.

        Raises
        ------
        UserError
            If a pack is damaged, so that nobody knows whose uploads are missing.
        """
        found: dict[str, KeptUpload] = {}
        for path in self._files():
            with suppress(FileNotFoundError):
                found |= {upload.name: upload for upload in read(path)}
        if "" in found:
            raise UserError(
                f"The file {self.folder / found[''].file} is damaged ({found[''].damage}), and nobody knows whose "
                "uploads it held: run the simulation again."
            )
        return {name: found[name] for name in self._in_order(found)}

    def read(self, name: str, data_state: str = "") -> Sent | None:
        """Read an upload.

        Parameters
        ----------
        name : str
            The node's name, or the client's number.
        data_state : str, optional
            What the node says of its data now.

        Returns
        -------
        Sent or None
            As it was sent; None if there is none, or it has to be asked for again, because it is damaged, or of
            data, a backbone or classes that have changed since.
        """
        try:
            upload = self._find(name)
            if upload is None:
                return None
            if reason := upload.damage or self.objection(upload, data_state):
                logger.warning("The kept upload of %s is not used: %s. It is asked for again.", name, reason)
                return None
            return self.load([upload])[0]
        except FileNotFoundError:
            return None
        except DAMAGED as error:
            logger.warning("The kept upload of %s is damaged (%s): it is asked for again.", name, error)
            return None

    def load(self, uploads: Sequence[KeptUpload]) -> list[Sent]:
        """Read uploads for a run that can ask for none of them again.

        Parameters
        ----------
        uploads : sequence of KeptUpload
            Any that :meth:`uploads` lists.

        Returns
        -------
        list of Sent
            As they were sent, in their order.

        Raises
        ------
        UserError
            If one is damaged, or of another backbone, transform or class list than the run's.
        """
        self.check(uploads)
        by_file: dict[str, list[KeptUpload]] = {}
        for upload in uploads:
            by_file.setdefault(upload.file, []).append(upload)
        found: dict[str, Sent] = {}
        for file, held in by_file.items():
            try:
                arrays = read_arrays(self.folder / file, [upload.name for upload in held])
            except DAMAGED as error:
                raise _unusable(held[0].name, self.folder, f"its file {file} is damaged ({error})") from error
            found |= {upload.name: Sent(own, upload.tag) for upload, own in zip(held, arrays, strict=True)}
        return [found[upload.name] for upload in uploads]

    def check(self, uploads: Iterable[KeptUpload]) -> None:
        """Refuse uploads that cannot be used in this run; raises UserError."""
        for upload in uploads:
            if reason := upload.damage or self.objection(upload):
                raise _unusable(upload.name, self.folder, reason)

    def objection(self, upload: KeptUpload, data_state: str = "") -> str:
        """Say why a kept upload cannot be used in this run.

        Parameters
        ----------
        upload : KeptUpload
            What is known of it. Where something is not, as in uploads of earlier versions, it is taken to be the
            same.
        data_state : str, optional
            What its node says of its data now.

        Returns
        -------
        str
            A clause; empty if it can.
        """
        if _differ(upload.data_state, data_state):
            return "its data has changed since"
        if _differ(upload.fingerprint, self._fingerprint):
            return _other_features(upload.fingerprint, self._fingerprint)
        if _differ(upload.classes, self._classes):
            return "it is of another class list than the run's"
        if _differ(upload.asked, self.folder.name):
            return f"it was kept in the folder {upload.asked}, of other settings"
        return ""

    def _find(self, name: str) -> KeptUpload | None:
        own = self.folder / file_of_node(name)
        if own.exists():
            return read_noted(own)[0]
        return self.uploads().get(name)

    def _files(self) -> list[Path]:
        """List packs in their order, then nodes' files, which are taken before a pack that has the name too."""
        if not self.folder.exists():
            return []
        by_name = {path.name: path for path in self.folder.iterdir() if path.suffix == SUFFIX}
        names = sorted(by_name, key=lambda name: (name.startswith(PREFIX), name))
        return [by_name[name] for name in names if name.startswith((PACK_PREFIX, PREFIX))]

    def _in_order(self, names: Iterable[str]) -> list[str]:
        def place(name: str) -> tuple[int, str]:
            is_number = not self.config.data.on_nodes and name.isascii() and name.isdecimal()
            return (int(name) if is_number else -1), name

        return sorted(names, key=place)

    def _prepare(self) -> None:
        # They are what nodes gave to the server and to nobody else.
        private_folder(self.folder)
        if not (self.folder / CONFIG_FILE_NAME).exists():
            write_whole(self.folder / CONFIG_FILE_NAME, json.dumps(self.config.to_mapping(), indent=1))

    def _checked_by(self) -> dict[str, str]:
        return {"fingerprint": self._fingerprint, "classes": self._classes, "asked": self.folder.name}

    def _rewrite_pack(self, file: str, changes: dict[str, tuple[KeptUpload, Sent] | None]) -> None:
        noted = read_noted(self.folder / file)
        arrays = read_arrays(self.folder / file, [upload.name for upload in noted])
        held = {upload.name: (upload, Sent(own, upload.tag)) for upload, own in zip(noted, arrays, strict=True)}
        left = [one for one in {**held, **changes}.values() if one is not None]
        if left:
            write_pack(self.folder, left)
        else:
            (self.folder / file).unlink()


def stores_below(folder: Path) -> list[tuple[Path, RunConfig]]:
    """Find the runs below a folder that have kept uploads.

    Parameters
    ----------
    folder : Path
        Output folder of one run, or of a comparison.

    Returns
    -------
    list of (Path, RunConfig)
        Folder of each run, and the configuration that uploads were first asked with there.
    """
    places = sorted({path.parent.parent.parent for path in folder.rglob(f"{FOLDER_NAME}/*/{CONFIG_FILE_NAME}")})
    return [(place, config) for place in places for config in kept_configs(place)]


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
    dealt = [] if config.data.on_nodes else [config.data.num_clients]
    return [config.method.chosen.kind, config.upload_values(), *dealt]


def _digest(values: list[object] | list[str]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:8]


def _differ(found: str, now: str) -> bool:
    return bool(found and now and found != now)


def _other_features(found: str, expected: str) -> str:
    """Say what of a fingerprint differs: the backbone, or what is done to its features."""
    (backbone, transform), (own, ours) = _taken_apart(found), _taken_apart(expected)
    if backbone == own:
        return f"what was done to its features is {transform!r}, and in the run {ours!r}"
    return f"it was made with another backbone ({found[:12]}, and the run's is {expected[:12]})"


def _taken_apart(fingerprint: str) -> tuple[str, str]:
    backbone, _, transform = fingerprint.rpartition("-")
    return (backbone, transform) if transform in TRANSFORMS else (fingerprint, NO_TRANSFORM)


def _unusable(name: str, folder: Path, reason: str) -> UserError:
    return UserError(
        f"The kept upload of {name} in {folder} cannot be used, because {reason}: give the run what it was made "
        "with, or run the federation again."
    )
