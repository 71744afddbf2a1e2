"""The run-config: all sections of one run, read from Flower's flat keys and checked beside one another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, get_type_hints

from fedcof.data.section import DataSection
from fedcof.embedding.section import NO_TRANSFORM, EmbeddingSection
from fedcof.keys import Acts, Changes, Key, Scalar, Section, must_be, unknown_key
from fedcof.merging.section import MergingSection
from fedcof.methods.registry import METHODS
from fedcof.methods.section import MethodSection
from fedcof.privacy.section import PrivacySection
from fedcof.run.execution import ExecutionSection
from fedcof.run.participation import ParticipationSection
from fedcof.run.rules import check_sections_together
from fedcof.run.training import TrainingSection
from fedcof.wire.section import BEST, GIVEN, WireSection


@dataclass(frozen=True, init=False)
class RunConfig:
    """What one run does.

    Parameters
    ----------
    **values : bool, int, float or str
        Run-config keys with ``-`` written as ``_`` (and ``continue_`` for the one that Python keeps for itself);
        those that are missing have their defaults. ``fedcof settings`` lists all of them.

    Raises
    ------
    UserError
        If a key is unknown, a value cannot be what its key means, or values do not go together.
    """

    data: DataSection
    embedding: EmbeddingSection
    method: MethodSection
    wire: WireSection
    privacy: PrivacySection
    participation: ParticipationSection
    training: TrainingSection
    merging: MergingSection
    execution: ExecutionSection

    def __init__(self, **values: Scalar) -> None:
        by_argument = {known.argument: name for name, known in RunConfig.declared().items()}
        by_name = {by_argument.get(name, name.replace("_", "-")): value for name, value in values.items()}
        _known(by_name)
        self._fill(by_name)
        self._check()

    @staticmethod
    def from_mapping(values: Mapping[str, object]) -> RunConfig:
        """Make a run-config of kebab-case keys, with defaults for those that are missing.

        Parameters
        ----------
        values : mapping
            Keys as Flower has them; a number may stand for its text and the other way round.

        Returns
        -------
        RunConfig
            The checked configuration.

        Raises
        ------
        UserError
            If a key is unknown or a value has the wrong type.
        """
        config = RunConfig._unchecked(values)
        config._check()
        return config

    @staticmethod
    def of_any_version(values: Mapping[str, Any]) -> dict[str, Any]:
        """Fill in what a run-config that was kept did in keys that came later.

        Parameters
        ----------
        values : mapping
            Kebab-case keys as this or an earlier version wrote them.

        Returns
        -------
        dict
            The same, with the keys that it lacks and whose default is something else than there was before; and
            with today's default for a key that had an earlier one there, without any effect.
        """
        changed = [key for key in RunConfig.declared().values() if key.earlier is not None]
        filled = {key.name: key.earlier for key in changed} | dict(values)
        # Nobody has set it, but with another default it would be refused as if somebody had.
        left = [key for key in changed if key.refused_without_effect and filled[key.name] == key.earlier]
        without_effect = keys_without_effect(filled) if left and _is_known_method(filled) else set()
        return filled | {key.name: key.default for key in left if key.name in without_effect}

    @staticmethod
    def of_message(values: Mapping[str, object]) -> RunConfig:
        """Make what a client sees of a run: the keys that act on clients, and nothing else of what it is told.

        Parameters
        ----------
        values : mapping
            Any keys; a strategy may put keys of its own beside ours.

        Returns
        -------
        RunConfig
            With each value checked by itself and within its section; what goes with it may be the server's alone.

        Raises
        ------
        UserError
            If a value has the wrong type or is out of range.
        """
        known = RunConfig.declared()
        return RunConfig._unchecked(
            {k: v for k, v in values.items() if k in known and Acts.CLIENT in known[k].acts}
        )

    @staticmethod
    def loosely(values: Mapping[str, object]) -> RunConfig:
        """Read values that need not go together, perhaps of another version.

        Parameters
        ----------
        values : mapping
            Any keys; those that this version does not know are left out, and those that are missing have their
            defaults.

        Returns
        -------
        RunConfig
            To be looked at, not to be run.

        Raises
        ------
        UserError
            If a value has the wrong type.
        """
        config = RunConfig.__new__(RunConfig)
        for name, section in RunConfig.sections().items():
            object.__setattr__(config, name, section.unchecked(values))
        return config

    @staticmethod
    def _unchecked(values: Mapping[str, object]) -> RunConfig:
        known = _known(values)
        config = RunConfig.__new__(RunConfig)
        config._fill({name: known[name].read(value) for name, value in values.items()})
        return config

    def _fill(self, values: Mapping[str, Scalar]) -> None:
        for name, section in RunConfig.sections().items():
            object.__setattr__(self, name, section.of(values))
        if self.training.trains_backbone:
            # The square root has no slope at 0, where rectified features are.
            object.__setattr__(self, "embedding", replace(self.embedding, feature_transform=NO_TRANSFORM))

    def _check(self) -> None:
        check_sections_together(self)
        for known in RunConfig.declared().values():
            value = self.value(known)
            if known.refused_without_effect and value != known.default and not known.has_effect(self):
                where = f", as it acts only where {known.beside.words}" if known.beside else ""
                raise must_be(known.name, value, f"{known.default} for {self.method.name}{where}")

    @staticmethod
    def sections() -> dict[str, type[Section]]:
        """Give all sections by name, in their order."""
        return _sections()

    @staticmethod
    def declared() -> dict[str, Key]:
        """Give all keys by name, in the order of their sections."""
        return _keys()

    @staticmethod
    def defaults() -> dict[str, Scalar]:
        """All keys, in kebab case, with their defaults."""
        return {name: known.default for name, known in RunConfig.declared().items()}

    def value(self, known: Key) -> Scalar:
        """Give this run's value of a key."""
        value: Scalar = getattr(getattr(self, known.section), known.attribute)
        return value

    def to_mapping(self) -> dict[str, Scalar]:
        """All keys, in kebab case, with this run's values."""
        return {name: self.value(known) for name, known in RunConfig.declared().items()}

    def replaced(self, **values: Scalar) -> RunConfig:
        """Make the same run-config with other values.

        Parameters
        ----------
        **values : bool, int, float or str
            As for the constructor.

        Returns
        -------
        RunConfig
            A checked copy.
        """
        ours = {known.argument: self.value(known) for known in RunConfig.declared().values()}
        return RunConfig(**{**ours, **values})

    def for_message(self) -> dict[str, Scalar]:
        """Give what a message to a client carries: the keys that act there, and no path of the server's."""
        return {
            name: self.value(known) for name, known in RunConfig.declared().items() if Acts.CLIENT in known.acts
        }

    @property
    def writing(self) -> WireSection:
        """How uploads are written by this run's method: with all that another section decides filled in."""
        wire = self.wire
        best = wire.upload == BEST and not wire.chooses(self.method.chosen.takes_groups, bool(self.privacy.epsilon))
        return replace(wire, upload=GIVEN) if best else wire

    def with_effect(self, least: Changes = Changes.NOTHING) -> dict[str, Scalar]:
        """Give the values that have an effect beside the others.

        Parameters
        ----------
        least : Changes
            What must depend on them, at least.

        Returns
        -------
        dict
            Keys and values; a key without an effect is missing.
        """
        known = RunConfig.declared().values()
        return {key.name: self.value(key) for key in known if key.changes >= least and key.has_effect(self)}

    def upload_values(self) -> dict[str, Scalar]:
        """Give what uploads depend on; runs that agree in it ask for the same, if for the same kind."""
        known = [known for known in RunConfig.declared().values() if known.changes >= Changes.UPLOAD]
        # Whether a key has an effect may be the method's to say, which takes torch along: defaults need no asking.
        changed = (key for key in known if self.value(key) != key.default)
        return {key.name: key.default for key in known} | {
            key.name: self.value(key) for key in changed if key.has_effect(self)
        }

    def differing_key(self, other: Mapping[str, object]) -> Key | None:
        """Find the first key in which another run is another run, and not the same one computed elsewhere.

        Parameters
        ----------
        other : mapping
            Its keys and values.

        Returns
        -------
        Key or None
            None where they are the same run.
        """
        known = [known for known in RunConfig.declared().values() if known.changes > Changes.NOTHING]
        return next((key for key in known if other.get(key.name) != self.value(key)), None)

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits of all that a result depends on: runs that share them are the same run."""
        made_by = [self.method.name, self.with_effect(Changes.BYTES)]
        return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def clients_in_a_round(self) -> int:
        """How many clients are asked to train in a round."""
        return max(1, round(self.training.fraction * self.data.num_clients))


def keys_without_effect(values: Mapping[str, object]) -> set[str]:
    """Collect the keys that change nothing beside the values of the others.

    Parameters
    ----------
    values : mapping
        Keys of a run-config, which need not go together.

    Returns
    -------
    set of str
        Those keys.
    """
    config = RunConfig.loosely({name: value for name, value in values.items() if not isinstance(value, list)})
    return {name for name, known in RunConfig.declared().items() if not known.has_effect(config)}


def _known(names: Iterable[str]) -> dict[str, Key]:
    """Give all keys, of which these must be some; raises UserError."""
    known = RunConfig.declared()
    for name in names:
        if name not in known:
            raise unknown_key(name, list(known))
    return known


def _is_known_method(values: Mapping[str, object]) -> bool:
    """Whether a run's method is one that is known here, and so can be asked what has an effect beside it."""
    name = MethodSection.key_of("name")
    return values.get(name.name, name.default) in METHODS.names()


@cache
def _sections() -> dict[str, type[Section]]:
    hints = get_type_hints(RunConfig)
    return {declared.name: hints[declared.name] for declared in fields(RunConfig)}


@cache
def _keys() -> dict[str, Key]:
    known: dict[str, Key] = {}
    for section in _sections().values():
        for declared in section.declared():
            if declared.name in known:
                raise TypeError(f"the key {declared.name} is declared twice")
            known[declared.name] = declared
    return known
