"""The rooms depend on one another in one direction only, say their subjects, and name each key once."""

import ast
import re
from pathlib import Path

import pytest

from fedcof.run.config import RunConfig

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "fedcof": {"flwr", "ray", "clients", "server", "simulations", "tests"},
    "clients": {"server", "simulations", "tests"},
    "server": {"clients", "simulations", "tests"},
    "simulations": {"tests"},
}
# Each may import itself and those behind it; the files of fedcof itself are behind all of them.
ROOMS = ["run", "data", "embedding", "methods", "heads", "merging", "privacy", "wire", "covariance", "statistics"]
LONGEST_FILE = 400
PLACE = re.compile(r"(fedcof(?:\.\w+)+):\w+")


def files_of(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    return files


def imported_modules(tree, path="a file"):
    """Modules that a file imports, ever and for type checkers too, and those that it names to be imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module or ""
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and PLACE.fullmatch(node.value):
            yield PLACE.fullmatch(node.value)[1]


def depth(module):
    """How far down a module of fedcof is."""
    room = module.split(".")[1] if "." in module else ""
    return ROOMS.index(room) if room in ROOMS else len(ROOMS)


def imports_upwards(module, source):
    """What a module of fedcof imports that it may not."""
    imported = [name for name in imported_modules(ast.parse(source)) if name.split(".")[0] == "fedcof"]
    return [name for name in imported if name == "fedcof" or depth(name) < depth(module)]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_imports_only_what_it_may(package):
    for path in files_of(package):
        found = {module.split(".")[0] for module in imported_modules(ast.parse(path.read_text()), path)}
        assert not FORBIDDEN[package] & found, path


def test_a_room_of_fedcof_imports_none_above_it():
    for path in files_of("fedcof"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if module != "fedcof.__init__":  # It is what users import, and gives them what lies in the rooms.
            assert not imports_upwards(module, path.read_text()), path


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("fedcof.data.section", "from fedcof.run.config import RunConfig"),
        ("fedcof.wire.codec", "if TYPE_CHECKING:\n    import fedcof.privacy.noise"),
        ("fedcof.statistics.base", "def late():\n    from fedcof.covariance.totals import Totals"),
        ("fedcof.keys", "from fedcof.statistics.base import Statistics"),
        ("fedcof.heads.registry", "PLACE = 'fedcof.methods.fedcof:METHOD'"),
        ("fedcof.heads.ridge", "from fedcof import ClassMeans"),
        ("fedcof.merging.mean", "from fedcof.heads.trainable import Network"),
    ],
)
def test_an_arrow_that_points_up_is_found(module, source):
    assert len(imports_upwards(module, source)) == 1


def test_every_room_is_in_the_order():
    rooms = {path.parent.name for path in (ROOT / "fedcof").glob("*/__init__.py")}
    assert rooms == set(ROOMS)


def test_no_files_import_one_another_in_a_circle():
    imports = {}
    for path in (path for package in FORBIDDEN for path in files_of(package)):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        imports[module] = set(imported_modules(_without_what_types_need(ast.parse(path.read_text()))))
    while imports:
        free = {module for module, found in imports.items() if not found & (imports.keys() - {module})}
        assert free, f"in a circle, or above one: {sorted(imports)}"
        imports = {module: found for module, found in imports.items() if module not in free}


def _without_what_types_need(tree):
    """Leave out what is imported for type checkers alone, and what is named to be imported later."""

    class Leave(ast.NodeTransformer):
        def visit_If(self, node):
            return None if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)

        def visit_Constant(self, node):
            return ast.Constant(None) if isinstance(node.value, str) else node

    return Leave().visit(tree)


@pytest.mark.parametrize("package", FORBIDDEN)
def test_every_file_says_its_subject_in_its_first_line_and_is_short(package):
    for path in files_of(package):
        text = path.read_text()
        docstring = ast.get_docstring(ast.parse(text))
        assert docstring, path
        assert docstring.splitlines()[0].endswith("."), path
        assert len(text.splitlines()) <= LONGEST_FILE, path


def names_of_keys(tree, keys):
    """Where a file names keys of the run-config outside of their declarations."""
    declared = {id(part) for call in ast.walk(tree) if _declares(call) for part in ast.walk(call)}
    for node in ast.walk(tree):
        if id(node) in declared:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = node.value.removesuffix("=")
            if "-" in name and name in keys:
                yield node.lineno, name
        items = node.keys if isinstance(node, ast.Dict) else getattr(node, "elts", [])
        named = {item.value for item in items if isinstance(item, ast.Constant) and item.value in keys}
        if len(named) > 1:
            yield node.lineno, ", ".join(sorted(named))


def _declares(node):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "key"


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_key_is_named_outside_of_its_declaration(package):
    for path in files_of(package):
        assert not list(names_of_keys(ast.parse(path.read_text()), RunConfig.defaults())), path


@pytest.mark.parametrize(
    "source",
    [
        "config['num-clients']",
        "settings = [f'num-clients={number}']",
        "for key in ('alpha', 'seed'): pass",
        "{'output': folder, 'plan': plan}",
        "SHOWN = ['other', 'groups', 'encoding']",
    ],
)
def test_a_key_that_is_named_again_is_found(source):
    assert len(list(names_of_keys(ast.parse(source), RunConfig.defaults()))) == 1


def test_a_declaration_may_name_its_key():
    source = "rounds: int = key(20, 'Rounds.', name='continue-rounds')"
    assert not list(names_of_keys(ast.parse(source), RunConfig.defaults()))
