"""Run-config keys: all that is true of one is said once, beside its default, in the section that it belongs to."""

from __future__ import annotations

import difflib
import keyword
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from enum import Enum, Flag, IntEnum, auto
from typing import Any, ClassVar, Self

from fedcof.errors import UserError, unknown_name

Scalar = bool | int | float | str

_METADATA = "key"


class Acts(Flag):
    """Where a key is looked at."""

    CLIENT = auto()
    SERVER = auto()
    EXECUTION = auto()


class Changes(IntEnum):
    """What becomes different with another value; each includes those before it."""

    NOTHING = 0
    """Only where, how fast and how patiently the same is computed."""

    BYTES = 1
    """What is sent beside the uploads."""

    RESULT = 2
    """The classifier, or what is known of it."""

    UPLOAD = 3
    """What clients upload."""


class Shown(Enum):
    """When a report says what a run has for a key."""

    ALWAYS = auto()
    IF_CHANGED = auto()
    NEVER = auto()


@dataclass(frozen=True)
class Range:
    """The numbers that a key takes: in words, and as a test."""

    words: str
    holds: Callable[[Any], bool]


AT_LEAST_1 = Range("at least 1", lambda number: number >= 1)
AT_LEAST_0 = Range("at least 0", lambda number: 0 <= number < math.inf)
ABOVE_0 = Range("above 0", lambda number: 0 < number < math.inf)
SHARE = Range("above 0 and at most 1", lambda number: 0 < number <= 1)
PROBABILITY = Range("from 0 to below 1", lambda number: 0 <= number < 1)
BELOW_HALF = Range("from 0 to below 1/2", lambda number: 0 <= number < 0.5)
BETWEEN_0_AND_1 = Range("above 0 and below 1", lambda number: 0 < number < 1)


@dataclass(frozen=True)
class Beside:
    """The values of other keys beside which a key has any effect: in words, and as a test of a whole run."""

    words: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True)
class Key:
    """A run-config key.

    Attributes
    ----------
    name : str
        In kebab case, as Flower has it.
    attribute : str
        Its field in its section.
    section : str
        The section's name.
    default : bool, int, float or str
        Its value where none is given; its type is the key's.
    meaning : str
        What it sets.
    acts : Acts
        Where it is looked at. A message to a client carries no others than those that act there.
    changes : Changes
        What depends on it. Two runs are the same if they agree in all keys from ``BYTES`` on that have an effect.
    choices : callable or None
        Gives the values that it takes, where they are few.
    numbers : Range or None
        The numbers that it takes.
    check : callable or None
        Raises UserError where neither of these says enough.
    beside : Beside or None
        When it has an effect; None for always.
    refused_without_effect : bool
        Whether it must be left at its default then, because a user who sets it expects something.
    number_or_text : bool
        Whether a number stands for itself, and any other text too.
    place : callable or None
        Finds the path of a file or folder within a value; empty where there is none.
    shown : Shown
        When a report says it.
    several : str
        The option by which a comparison takes several values; empty for a list of values, ``nothing`` for none.
    after_upload : bool
        Whether it may be changed when kept uploads are solved again.
    earlier : bool, int, float, str or None
        What it is in a run-config that was written before there was the key, or while this was its default; None
        where that is its default.
    published : bool, int, float, str or None
        What it is in the papers of the methods; None where that is its default, or they leave it open.
    """

    name: str
    attribute: str
    section: str
    default: Scalar
    meaning: str
    acts: Acts
    changes: Changes
    choices: Callable[[], Sequence[str]] | None = None
    numbers: Range | None = None
    check: Callable[[Any], None] | None = None
    beside: Beside | None = None
    refused_without_effect: bool = False
    number_or_text: bool = False
    place: Callable[[str], str] | None = None
    shown: Shown = Shown.IF_CHANGED
    several: str = ""
    after_upload: bool = False
    earlier: Scalar | None = None
    published: Scalar | None = None

    @property
    def argument(self) -> str:
        """Name of the key as an argument of :class:`fedcof.run.config.RunConfig`."""
        name = self.name.replace("-", "_")
        return f"{name}_" if keyword.iskeyword(name) else name

    @property
    def takes(self) -> str:
        """The values that it takes, in words."""
        if self.choices:
            return f"one of {', '.join(self.choices())}"
        kind = "a number or a text" if self.number_or_text else _KINDS[type(self.default)]
        if not self.numbers:
            return kind
        return self.numbers.words if isinstance(self.default, str) else f"{kind}, {self.numbers.words}"

    def validate(self, value: Scalar) -> None:
        """Check a value by itself; raises UserError."""
        if self.choices and value not in self.choices():
            raise unknown_name(self.name, value, list(self.choices()))
        if self.numbers and not self.numbers.holds(value):
            raise must_be(self.name, value, self.numbers.words)
        if self.check:
            self.check(value)

    def read(self, value: object) -> Scalar:
        """Convert a value to the key's type without losing anything; raises UserError."""
        if self.number_or_text:
            try:
                return float(str(value))
            except ValueError:
                return str(value)
        if isinstance(value, type(self.default)) and isinstance(value, bool) == isinstance(self.default, bool):
            return value
        text = str(value)
        if isinstance(self.default, bool):
            if text.lower() in ("true", "false"):
                return text.lower() == "true"
        elif isinstance(self.default, str):
            if isinstance(value, int | float):
                return text
        else:
            try:
                return type(self.default)(text)
            except ValueError:
                pass
        kind = _KINDS[type(self.default)]
        raise UserError(f"The key {self.name} is {value!r}, but it takes {kind}: give one of that kind.")

    def has_effect(self, run: object) -> bool:
        """Whether the key changes anything in a run."""
        return self.beside is None or self.beside.holds(run)


_KINDS: Mapping[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def key(default: Scalar, meaning: str, acts: Acts, changes: Changes, **said: Any) -> Any:  # noqa: ANN401
    """Declare a key as the field of a section.

    Parameters
    ----------
    default : bool, int, float or str
        Its default.
    meaning : str
        What it sets, in a sentence or two.
    acts, changes, **said
        See :class:`Key`; the name is the field's unless it is given.

    Returns
    -------
    dataclasses.Field
        To be assigned in the body of a :class:`Section`.
    """
    return field(
        default=default, metadata={_METADATA: {"meaning": meaning, "acts": acts, "changes": changes, **said}}
    )


@dataclass(frozen=True)
class Section:
    """A part of the run-config, for one room: a frozen dataclass whose fields are all declared by :func:`key`."""

    NAME: ClassVar[str] = ""
    _declared: ClassVar[tuple[Key, ...]] = ()

    def __post_init__(self) -> None:
        for known in self.declared():
            known.validate(getattr(self, known.attribute))
        self.check_together()

    def check_together(self) -> None:
        """Check the section's values beside one another; raises UserError."""

    @classmethod
    def declared(cls) -> tuple[Key, ...]:
        """List the section's keys, in the order of their declaration."""
        # Looked for in the class's own namespace, because a subclass has keys of its own.
        if "_declared" not in cls.__dict__:
            cls._declared = tuple(_key_of(cls, declared) for declared in fields(cls))
        return cls._declared

    @classmethod
    def key_of(cls, attribute: str) -> Key:
        """Give the key of a field, for whoever has to name it."""
        return next(known for known in cls.declared() if known.attribute == attribute)

    @classmethod
    def named(cls, **values: Any) -> dict[str, Any]:  # noqa: ANN401
        """Give values of fields by the names of their keys."""
        return {cls.key_of(attribute).name: value for attribute, value in values.items()}

    @classmethod
    def unchecked(cls, values: Mapping[str, object]) -> Self:
        """Make the section of kebab-case keys whose values need be nothing but of the right kind."""
        section = object.__new__(cls)
        for known in cls.declared():
            value = known.read(values[known.name]) if known.name in values else known.default
            object.__setattr__(section, known.attribute, value)
        return section

    @classmethod
    def of(cls, values: Mapping[str, Scalar]) -> Self:
        """Make the section of kebab-case keys, with defaults for those that are missing."""
        return cls(**{known.attribute: values[known.name] for known in cls.declared() if known.name in values})


def _key_of(section: type[Section], declared: Field[Any]) -> Key:
    if _METADATA not in declared.metadata or declared.default is MISSING:
        raise TypeError(f"{section.__name__}.{declared.name} has to be declared by fedcof.keys.key")
    said = {"name": declared.name.replace("_", "-"), **declared.metadata[_METADATA]}
    return Key(attribute=declared.name, section=section.NAME, default=declared.default, **said)


def unknown_key(name: str, known: Sequence[str]) -> UserError:
    """Make the error for a key that there is not, with the nearest that there is."""
    as_keys_are_written = name.lower().replace("_", "-")
    near = difflib.get_close_matches(as_keys_are_written, known, n=1, cutoff=0.6)
    meant = f"did you mean {near[0]}? " if near else ""
    return UserError(f"Unknown key {name!r}: {meant}fedcof settings lists all {len(known)}.")


def must_be(name: str, found: object, expected: str) -> UserError:
    """Make the error for a key's value that is not what it must be."""
    return UserError(f"The key {name} is {found}, but it must be {expected}: give such a value.")
