"""The file of a schedule: TOML that says when clients join and leave, classes arrive, and samples come."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedcof.data.section import CLASS_ORDERS, SEED_ORDER
from fedcof.errors import UserError, first_line, refused_by_system

STEPS, JOIN, LEAVE, ARRIVE, SAMPLES = TABLES = ["steps", "join", "leave", "arrive", "samples"]
STEP, CLIENTS, CLASSES = "step", "clients", "classes"
PARTS, ORDER = "parts", "order"

_RANGE = re.compile(r"(\d+)\s*-\s*(\d+)")


@dataclass(frozen=True)
class Told:
    """What a schedule's file says.

    Attributes
    ----------
    steps : int
        Number of steps; 0 for as many as are needed.
    joins, leaves : dict of int to int
        Step at which a client joins, or leaves, by client; of the others nothing is said.
    arrivals : dict of int to int
        Step at which a class arrives, by class.
    parts : int
        Parts in which the samples of a class come to a client.
    by_seed : bool
        Whether the seed draws who is in which, and not the order in which they are stored.
    """

    steps: int = 0
    joins: dict[int, int] = field(default_factory=dict)
    leaves: dict[int, int] = field(default_factory=dict)
    arrivals: dict[int, int] = field(default_factory=dict)
    parts: int = 1
    by_seed: bool = True


def read_schedule(file: str, num_clients: int, class_names: Sequence[str]) -> Told:
    """Read a schedule.

    Parameters
    ----------
    file : str
        Path of a TOML file. ``steps`` is their number; tables ``[[join]]`` and ``[[leave]]`` have a ``step`` and
        ``clients`` (numbers, or texts such as "3-17"), ``[[arrive]]`` a ``step`` and ``classes`` (names or
        numbers), and ``[samples]`` has ``parts`` and ``order`` (seed or listed).
    num_clients : int
        Clients of the federation.
    class_names : sequence of str
        Names of its classes.

    Returns
    -------
    Told
        What it says.

    Raises
    ------
    UserError
        If it is no such file, or tells of clients or classes that there are not, or of one twice.
    """
    reader = _Reader(file)
    tables = reader.tables()

    def client_numbers(value: object) -> Iterable[int]:
        return reader.clients(value, num_clients)

    def class_numbers(value: object) -> Iterable[int]:
        return [reader.class_number(value, class_names)]

    samples = tables.get(SAMPLES, {})
    if not isinstance(samples, dict):
        raise reader.refused(f"{SAMPLES} is no table", f"write [{SAMPLES}]")
    reader.check_names(samples, [PARTS, ORDER], f"[{SAMPLES}]")
    order = samples.get(ORDER, SEED_ORDER)
    if order not in CLASS_ORDERS:
        raise reader.refused(f"the {ORDER} of samples is {order!r}", f"write one of {', '.join(CLASS_ORDERS)}")
    return Told(
        steps=reader.number(tables[STEPS], STEPS) if STEPS in tables else 0,
        joins=reader.steps_of(tables, JOIN, CLIENTS, client_numbers),
        leaves=reader.steps_of(tables, LEAVE, CLIENTS, client_numbers),
        arrivals=reader.steps_of(tables, ARRIVE, CLASSES, class_numbers),
        parts=reader.number(samples.get(PARTS, 1), PARTS),
        by_seed=order == SEED_ORDER,
    )


class _Reader:
    """Reads one file, which it names in whatever is wrong with it."""

    def __init__(self, file: str) -> None:
        self._file = file

    def refused(self, found: str, instead: str) -> UserError:
        """Make the error for something in the file."""
        return UserError(f"In the schedule {self._file} {found}: {instead}.")

    def tables(self) -> dict[str, Any]:
        """Read it as TOML, of known tables alone."""
        try:
            tables = tomllib.loads(Path(self._file).read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UserError(
                f"The schedule {self._file} is not a TOML file ({first_line(error)}): mend that line."
            ) from error
        except OSError as error:
            raise refused_by_system(error) from error
        self.check_names(tables, TABLES, "it")
        return tables

    def check_names(self, table: Mapping[str, object], known: Collection[str], where: str) -> None:
        """Refuse a name that is none, with the nearest that is."""
        for name in table:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
                meant = f"did you mean {near[0]}? " if near else ""
                raise UserError(
                    f"Unknown {name!r} in the schedule {self._file}: {meant}{where} has {', '.join(known)}."
                )

    def number(self, value: object, name: str) -> int:
        """Read a whole number from 1."""
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.refused(f"{name} is {value!r}", "give a whole number, at least 1")
        return value

    def steps_of(
        self, tables: Mapping[str, Any], name: str, members: str, read: Callable[[object], Iterable[int]]
    ) -> dict[int, int]:
        """Read the tables of one name: the step of each of their members, each of which stands there once."""
        entries = tables.get(name, [])
        if not (isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)):
            raise self.refused(f"{name} is no list of tables", f"write [[{name}]] before each")
        steps: dict[int, int] = {}
        for entry in entries:
            self.check_names(entry, [STEP, members], f"[[{name}]]")
            listed = entry.get(members)
            if STEP not in entry or not isinstance(listed, list) or not listed:
                raise self.refused(f"a [[{name}]] lacks its {STEP} or {members}", f"give both, {members} as a list")
            for member in (number for value in listed for number in read(value)):
                if member in steps:
                    one = members.removesuffix("s") if members == CLIENTS else "class"
                    raise self.refused(f"{one} {member} stands twice in [[{name}]]", "name it once")
                steps[member] = self.number(entry[STEP], STEP)
        return steps

    def clients(self, value: object, num_clients: int) -> Iterable[int]:
        """Read a client's number, or a text with the first and the last of several."""
        numbers = range(0)
        if isinstance(value, int) and not isinstance(value, bool):
            numbers = range(value, value + 1)
        elif isinstance(value, str) and (several := _RANGE.fullmatch(value.strip())):
            numbers = range(int(several[1]), int(several[2]) + 1)
        if not numbers or numbers[0] < 0 or numbers[-1] >= num_clients:
            raise self.refused(
                f"{value!r} names no client", f'give numbers from 0 to {num_clients - 1}, or "FIRST-LAST"'
            )
        return numbers

    def class_number(self, value: object, names: Sequence[str]) -> int:
        """Read a class's name, or its number."""
        if isinstance(value, str) and value in names:
            return names.index(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
            return value
        near = difflib.get_close_matches(str(value), names, n=1, cutoff=0.5)
        meant = f"did you mean {near[0]}? " if near else ""
        raise self.refused(f"{value!r} is no class", f"{meant}give names, or numbers from 0 to {len(names) - 1}")
