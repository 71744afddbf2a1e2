"""What is known by name, and may come from an installed package of somebody else's."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from fedcof.errors import UserError, unknown_name

T = TypeVar("T")


class Registry(Generic[T]):
    """Objects by name, each loaded when it is first asked for.

    Parameters
    ----------
    kind : str
        What they are, for people.
    group : str
        Entry point group under which installed packages offer more of them.
    built_in : mapping of str to str
        ``module:attribute`` of each that comes with fedcof.
    check : str
        ``module:function`` of what raises UserError if an object cannot be one of them; it takes name and object.
    """

    def __init__(self, kind: str, group: str, built_in: Mapping[str, str], check: str) -> None:
        self.kind = kind
        self._group = group
        self._places: dict[str, str] = dict(built_in)
        self._check = check
        self._loaded: dict[str, T] = {}
        self._offered: dict[str, EntryPoint] | None = None

    def register(self, name: str, item: T) -> T:
        """Make an object known in this process.

        Parameters
        ----------
        name : str
            A name that is not taken.
        item : object
            What it stands for.

        Returns
        -------
        object
            The item.

        Raises
        ------
        UserError
            If the name is taken, or the object lacks something.
        """
        if name in self._places or self._loaded.get(name, item) is not item:
            raise UserError(f"There is a {self.kind} {name} already: register yours under another name.")
        _attribute(self._check)(name, item)
        self._loaded[name] = item
        return item

    def unregister(self, name: str) -> None:
        """Forget an object that :meth:`register` has made known."""
        self._loaded.pop(name, None)

    def names(self) -> list[str]:
        """List all names: those that come with fedcof, then installed ones, then those registered here."""
        return list(dict.fromkeys([*self._places, *self._entry_points(), *self._loaded]))

    def get(self, name: str) -> T:
        """Give the object of a name.

        Parameters
        ----------
        name : str
            One of :meth:`names`.

        Returns
        -------
        object
            The same for the same name.

        Raises
        ------
        UserError
            If there is none, or the package that offers it cannot be loaded or offers something else.
        """
        if name not in self._loaded:
            if name in self._places:
                item = _attribute(self._places[name])
            elif name in self._entry_points():
                item = self._load(self._entry_points()[name])
            else:
                raise unknown_name(self.kind, name, self.names())
            _attribute(self._check)(name, item)
            self._loaded[name] = item
        return self._loaded[name]

    def _entry_points(self) -> dict[str, EntryPoint]:
        if self._offered is None:
            self._offered = {entry.name: entry for entry in entry_points(group=self._group)}
        return {name: entry for name, entry in self._offered.items() if name not in self._places}

    def _load(self, entry: EntryPoint) -> T:
        try:
            item: T = entry.load()
        except Exception as error:
            # Whatever a stranger's module raises as it is imported.
            raise UserError(
                f"The {self.kind} {entry.name} cannot be loaded from {entry.value} "
                f"({type(error).__name__}: {error}): mend or remove the package that offers it."
            ) from error
        return item


def check_filled_in(kind: str, name: str, item: object, classes: tuple[type, ...], says: Sequence[str]) -> None:
    """Check that an object fills in an abstract class, and says of itself what it is registered as.

    Parameters
    ----------
    kind : str
        What it is to be, for people.
    name : str
        Under which it is to be known.
    item : object
        The object.
    classes : tuple of type
        The abstract classes, of which it has to fill in one.
    says : sequence of str
        Attributes that it has to have; the first is its own name.

    Raises
    ------
    UserError
        If it leaves something open.
    """
    if not isinstance(item, classes) or inspect.isabstract(type(item)):
        places = " or ".join(f"{known.__module__}.{known.__qualname__}" for known in classes)
        raise UserError(f"The {kind} {name} is {item!r}: give an object of a class that fills in {places}.")
    missing = [attribute for attribute in says if not hasattr(item, attribute)]
    if missing:
        raise UserError(f"The {kind} {name} does not say its {', '.join(missing)}: set it on its class.")
    if getattr(item, says[0]) != name:
        raise UserError(
            f"The {kind} {name} says of itself that it is {getattr(item, says[0])}: register it as that."
        )


def _attribute(place: str) -> Any:  # noqa: ANN401
    """Import what ``module:attribute`` names; only now, because most modules take torch along."""
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)
