"""The rooms depend on one another in one direction only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "fedcof": {"flwr", "ray", "clients", "server", "simulations", "tests"},
    "clients": {"server", "simulations", "tests"},
    "server": {"clients", "simulations", "tests"},
    "simulations": {"tests"},
}


def imported_packages(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_imports_only_what_it_may(room):
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        assert not FORBIDDEN[room] & set(imported_packages(path)), path


@pytest.mark.parametrize("room", FORBIDDEN)
def test_every_file_says_its_subject_in_its_first_line(room):
    for path in (ROOT / room).rglob("*.py"):
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        assert docstring, path
        assert docstring.splitlines()[0].endswith("."), path
