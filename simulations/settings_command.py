"""What ``fedcof settings`` prints: every key by section, or all that is known of one."""

from __future__ import annotations

from fedcof.keys import Key, unknown_key
from fedcof.run.config import RunConfig
from simulations.settings_page import acts, changes, default, effect, markdown, subject
from simulations.terminal import TextTable, console, say


def show_settings(name: str | None, as_markdown: bool = False) -> None:
    """Print all keys, or one.

    Parameters
    ----------
    name : str or None
        A run-config key; None for all.
    as_markdown : bool
        Whether to print the page of the documentation instead.

    Raises
    ------
    UserError
        If there is no such key.
    """
    known = RunConfig.declared()
    if as_markdown:
        print(markdown(), end="")
    elif name is None:
        _show_all()
    elif name in known:
        _show_one(known[name])
    else:
        raise unknown_key(name, list(known))


def _show_all() -> None:
    for section in RunConfig.sections().values():
        say(f"{section.NAME}: {subject(section)}", "bold")
        table = TextTable(["key = default", "meaning"], [])
        table.show_lines = True
        for known in section.declared():
            where = f"Acts on {acts(known)}; changes {changes(known)}{effect(known, '; ')}."
            table.add_texts(f"{known.name} = {default(known)}", f"{known.meaning} Takes {known.takes}. {where}")
        console.print(table)


def _show_one(known: Key) -> None:
    table = TextTable([known.name, known.meaning], [])
    table.add_texts("default", default(known))
    table.add_texts("takes", known.takes)
    table.add_texts("section", f"{known.section}: {subject(RunConfig.sections()[known.section])}")
    table.add_texts("acts on", acts(known))
    table.add_texts("changes", changes(known))
    table.add_texts("has an effect", effect(known, "") or "always")
    table.add_texts("several in fedcof compare", _several(known))
    table.add_texts("in fedcof solve", "may be changed" if known.after_upload else "stays as it was at the uploads")
    table.add_texts("in Python", f"RunConfig({known.argument}=...)")
    console.print(table)


def _several(known: Key) -> str:
    if not known.several:
        return f"-c {known.name}=[...]"
    return f"by {known.several}" if known.several.startswith("-") else "no"
