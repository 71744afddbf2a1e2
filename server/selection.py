"""Whose kept uploads a solve takes: all, all but some, some alone, or those that had come by a time."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

from fedcof import UserError
from server.kept_files import KeptUpload

NEAREST_NAMED = 3
_DAY = re.compile(r"(\d{4}-\d{2}-\d{2})(Z|[+-]\d{2}:?\d{2})?")


@dataclass(frozen=True)
class Selection:
    """Which of the kept uploads are solved from.

    Attributes
    ----------
    without, only : tuple of str
        Names that are left out, and names that alone are taken; no name for all.
    as_of : str
        An ISO date, which means the end of that day, or date and time; in UTC unless it has an offset. Empty for
        now.
    """

    without: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    as_of: str = ""

    @property
    def takes_all(self) -> bool:
        """Whether nobody is left out."""
        return not (self.without or self.only or self.as_of)

    def words(self) -> list[str]:
        """Say it in words that a folder may be named by."""
        named = (("without", self.without), ("only", self.only), ("as-of", (self.as_of,) if self.as_of else ()))
        return [f"{word}-{'-'.join(values)}" for word, values in named if values]

    def left_out(self, uploads: Mapping[str, KeptUpload], folder: Path) -> dict[str, str]:
        """Say who is left out, and why.

        Parameters
        ----------
        uploads : mapping of str to KeptUpload
            All that are kept, by name.
        folder : Path
            Where, for messages.

        Returns
        -------
        dict of str to str
            A clause for each that is left out.

        Raises
        ------
        UserError
            If a name is none of theirs, the date is none, or nobody is left.
        """
        for name in (*self.without, *self.only):
            if name not in uploads:
                raise unknown_client(name, uploads, folder)
        by = moment(self.as_of) if self.as_of else None
        why: dict[str, str] = {}
        for name, upload in uploads.items():
            if name in self.without:
                why[name] = "named by --without"
            elif self.only and name not in self.only:
                why[name] = "not named by --only"
            elif by is not None and upload.time >= by:
                why[name] = f"came at {upload.arrived}, after {self.as_of}"
        if uploads and len(why) == len(uploads):
            raise UserError(
                f"All {len(uploads)} clients whose uploads {folder} keeps are left out, so there is nothing to "
                "solve: leave out fewer of them, or name a later date."
            )
        return why


ALL = Selection()


def moment(text: str) -> datetime:
    """Read the moment up to which uploads count.

    Parameters
    ----------
    text : str
        See :attr:`Selection.as_of`.

    Returns
    -------
    datetime
        The first moment that is too late.

    Raises
    ------
    UserError
        If it is no date.
    """
    try:
        if day := _DAY.fullmatch(text):
            midnight = datetime.fromisoformat(f"{day[1]}T{time.min}{day[2] or 'Z'}")
            return midnight + timedelta(days=1)
        read = datetime.fromisoformat(text)
        # What came at that very moment counts.
        return (read if read.tzinfo else read.replace(tzinfo=UTC)) + timedelta(microseconds=1)
    except (ValueError, OverflowError) as error:
        raise UserError(
            f"The date {text!r} is none: write it as 2026-03-31, which means the end of that day in UTC, or as "
            "2026-03-31T18:00+02:00."
        ) from error


def unknown_client(name: str, known: Collection[str], folder: Path) -> UserError:
    """Make the error for a name of which no upload is kept, with the nearest that there are.

    Parameters
    ----------
    name : str
        What was given.
    known : collection of str
        Names that there are.
    folder : Path
        Where they are kept.

    Returns
    -------
    UserError
        To be raised by the caller.
    """
    near = difflib.get_close_matches(name, list(known), n=NEAREST_NAMED, cutoff=0.4)
    meant = f"did you mean {_either(near)}? " if near else ""
    return UserError(
        f"The folder {folder} keeps no upload of {name!r}: {meant}fedcof federation lists all {len(known)}."
    )


def _either(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
