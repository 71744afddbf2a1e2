"""The one exception that a user is meant to read."""

import os


class UserError(Exception):
    """Something the user can mend.

    The message is one sentence that says what was wrong, what was expected, and what to do. The command line
    prints it without a traceback and exits with status 2.
    """


def unknown_name(kind: str, name: object, known: list[str]) -> UserError:
    """Make the error for a name that is not among the known ones.

    Parameters
    ----------
    kind : str
        What was looked up, for example ``"partition"``.
    name : object
        The name that was given.
    known : list of str
        The names that exist, in the order in which to list them.

    Returns
    -------
    UserError
        To be raised by the caller.
    """
    return UserError(f"Unknown {kind} {name!r}: choose one of {', '.join(known)}.")


def refused_by_system(error: OSError) -> UserError:
    """Make the error for what the operating system refuses: a full or read-only disk, a file in a folder's place.

    Parameters
    ----------
    error : OSError
        What it said.

    Returns
    -------
    UserError
        To be raised by the caller.
    """
    reason = error.strerror or first_line(error)
    if error.filename is None:
        return UserError(f"The operating system refused ({reason}): see that disks have room and can be written.")
    return UserError(
        f"The file or folder {_named(error.filename)} cannot be used ({reason}): see that it is where it should "
        "be, that it may be read and written, and that its disk has room; or name another."
    )


def _named(filename: object) -> str:
    return os.fsdecode(filename) if isinstance(filename, bytes) else str(filename)


def first_line(error: BaseException) -> str:
    """Give the first line of what an exception says, without its full stop, to be put into a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
