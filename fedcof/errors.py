"""The one exception that a user is meant to read."""


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


def first_line(error: BaseException) -> str:
    """Give the first line of what an exception says, without its full stop, to be put into a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
