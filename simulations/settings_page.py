"""The page docs/settings.md, made of what the keys say of themselves; run this file to write it."""

from __future__ import annotations

from pathlib import Path

from fedcof.keys import Acts, Changes, Key, Section
from fedcof.run.config import RunConfig

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"

_ACTS = {Acts.CLIENT: "clients", Acts.SERVER: "the server", Acts.EXECUTION: "the command"}
_CHANGES = {
    Changes.NOTHING: "no result",
    Changes.BYTES: "what is sent beside the uploads",
    Changes.RESULT: "the classifier, or what is known of it",
    Changes.UPLOAD: "the uploads",
}
_INTRODUCTION = """\
# Settings

Every key of a run: in a scenario file, after `-c` of a command, or in `flwr run --run-config`. `fedcof settings`
prints them, `fedcof settings KEY` one. This page is written by `python -m simulations.settings_page` from the keys'
own declarations, in the `section.py` files and in `fedcof/run/`; do not edit it.
"""
_HEADINGS = ["key", "default", "takes", "meaning", "acts on", "changes", "has an effect"]


def subject(section: type[Section]) -> str:
    """Give what a section is about, in a clause."""
    return (section.__doc__ or "").partition(";")[0].strip()


def default(known: Key) -> str:
    """Write a key's default as it is typed."""
    if isinstance(known.default, bool):
        return str(known.default).lower()
    return str(known.default) or '""'


def acts(known: Key) -> str:
    """Say where a key is looked at."""
    return " and ".join(_ACTS[place] for place in known.acts)


def changes(known: Key) -> str:
    """Say what depends on a key."""
    return _CHANGES[known.changes]


def effect(known: Key, before: str) -> str:
    """Say when a key has an effect, behind other words; empty for always."""
    if not known.beside:
        return ""
    elsewhere = ", and is refused elsewhere" if known.refused_without_effect else ""
    return f"{before}only if {known.beside.words}{elsewhere}"


def markdown() -> str:
    """Write the whole page."""
    parts = [_INTRODUCTION, *map(_table, RunConfig.sections().values())]
    return "\n".join(parts)


def _table(section: type[Section]) -> str:
    lines = [f"## {section.NAME}", "", f"{subject(section)}.", "", _row(_HEADINGS), "|---" * len(_HEADINGS) + "|"]
    for known in section.declared():
        cells = [f"`{known.name}`", f"`{default(known)}`", known.takes, known.meaning, acts(known), changes(known)]
        lines.append(_row([*cells, effect(known, "") or "always"]))
    return "\n".join([*lines, ""])


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    PAGE.write_text(markdown(), encoding="utf-8")
