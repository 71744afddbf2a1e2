"""The environment of the command: what it lacks is made up for, what Flower inherits, and the digits run in it."""

import ast
import getpass
import os
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest

from fedcof.embedding.feature_table import feature_cache_dir
from fedcof.errors import UserError
from simulations import runtime
from simulations.environment import DEVELOPMENT_VARIABLES, FOLDER_VARIABLES, settle, show_warnings
from tests.environments import ENVIRONMENTS, ROOT, TINY, accuracies, run_in


@pytest.fixture(autouse=True)
def own_variables(monkeypatch):
    """Let a test settle an environment of its own."""
    monkeypatch.setattr(os, "environ", dict(os.environ))


@pytest.mark.parametrize("name", FOLDER_VARIABLES)
def test_a_relative_folder_is_one_for_all_processes(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.environ[name] = "mine/and yours"
    assert runtime.flower_environment(tmp_path)[name] == str(tmp_path / "mine" / "and yours")
    settle()
    assert os.environ[name] == str(tmp_path / "mine" / "and yours")
    os.environ[name] = "~/mine"
    settle()
    assert os.environ[name] == str(Path.home() / "mine")


def test_the_cache_is_absolute_also_without_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.environ["FEDCOF_CACHE"] = "mine"
    assert feature_cache_dir() == tmp_path / "mine" / "features"
    os.environ |= {"FEDCOF_CACHE": "", "XDG_CACHE_HOME": "theirs"}
    assert feature_cache_dir() == tmp_path / "theirs" / "fedcof" / "features"


def test_the_home_of_nobody_is_a_sentence():
    os.environ["FEDCOF_CACHE"] = "~nobody of that name/cache"
    with pytest.raises(UserError, match="FEDCOF_CACHE is .*nobody's home"):
        settle()


@pytest.fixture
def without_name(monkeypatch):
    """Be a user whose number is in no list, as in a container."""

    def unknown(*_):
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME", "XDG_CACHE_HOME", "FEDCOF_CACHE"):
        os.environ.pop(name, None)


def test_a_user_without_a_name_gets_one(without_name, tmp_path):
    with pytest.raises((KeyError, OSError)):
        getpass.getuser()
    os.environ["FEDCOF_CACHE"] = str(tmp_path)
    settle()
    assert getpass.getuser() == f"user-{os.getuid()}"
    assert Path.home() == tmp_path / "home"
    assert feature_cache_dir() == tmp_path / "features"


def test_without_any_home_the_sentence_names_the_variable(without_name):
    settle()
    with pytest.raises(UserError, match="set FEDCOF_CACHE to a folder"):
        feature_cache_dir()


def test_warnings_are_shown_where_they_were_to_be_raised(monkeypatch):
    monkeypatch.setattr(sys, "warnoptions", ["error::DeprecationWarning"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        show_warnings()
        with warnings.catch_warnings(record=True) as shown:
            warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert len(shown) == 1
    assert os.environ["PYTHONWARNINGS"] == "default"


def test_flower_is_not_developed_here(tmp_path):
    os.environ |= dict.fromkeys(DEVELOPMENT_VARIABLES, "1")
    inherited = runtime.flower_environment(tmp_path)
    assert not DEVELOPMENT_VARIABLES & inherited.keys()
    assert inherited["PYTHONUTF8"] == inherited["PYTHONUNBUFFERED"] == "1"


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("HTTP_PROXY", "http://proxy.example:3128", True),
        ("https_proxy", "proxy.example:3128", True),
        ("ALL_PROXY", "socks://127.0.0.1:1080/", False),
        ("all_proxy", "SOCKS5://127.0.0.1:1080", find_spec("socksio") is not None),
        ("all_proxy", "socks4a://127.0.0.1:1080", False),
        ("grpc_proxy", "http://proxy.example:3128", False),
        ("no_grpc_proxy", "example.org", False),
    ],
)
def test_proxies_that_would_end_flower_are_not_passed_on(name, value, kept, tmp_path):
    os.environ[name] = value
    inherited = runtime.flower_environment(tmp_path)
    assert (inherited.get(name) == value) is kept
    assert inherited["NO_PROXY"].startswith("127.0.0.1,localhost")
    assert inherited["no_proxy"].startswith("127.0.0.1,localhost")


def test_flowers_own_client_starts_beside_any_proxy(tmp_path):
    """It is httpx, which fails on a proxy of a kind that it does not know before it asks anybody."""
    import httpx

    os.environ |= ENVIRONMENTS["SOCKS proxies"].variables | {"NO_PROXY": "", "no_proxy": ""}
    with pytest.raises((ImportError, ValueError)):
        httpx.Client()
    os.environ = runtime.flower_environment(tmp_path)  # noqa: B003
    httpx.Client().close()


def test_closed_streams_do_not_become_files(tmp_path):
    code = "from simulations.environment import settle\nsettle()\n"
    code += "import sys\nsys.stderr.write(str(open(__file__).fileno()))"
    (tmp_path / "opens.py").write_text(code)
    command = f'exec "{sys.executable}" "{tmp_path / "opens.py"}" <&- >&-'
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
    )
    assert int(done.stderr) == 3


@pytest.mark.parametrize("name", ["a locale of ASCII", "a locale of Latin-1", "40 columns", "warnings raised"])
@pytest.mark.parametrize("arguments", [["settings", "alpha"], ["report", "nowhere/ü→日"]])
def test_what_is_printed_fits_the_terminal(name, arguments, tmp_path):
    status, output, errors = run_in(ENVIRONMENTS[name], tmp_path, *arguments)
    assert status == (2 if "report" in arguments else 0)
    assert "Traceback" not in errors
    assert "UnicodeEncodeError" not in errors
    if name == "40 columns":
        assert all(len(line) <= 40 for line in output.splitlines())


def test_no_file_is_read_or_written_in_the_locales_letters():
    """Text is UTF-8, wherever the user is."""
    paths = [
        path for room in ("fedcof", "clients", "server", "simulations") for path in (ROOT / room).rglob("*.py")
    ]
    assert [place for path in paths for place in without_encoding(path)] == []


def without_encoding(path):
    """Where a file opens text and leaves it to the locale how that is written."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        method, on = node.func.attr, ast.unparse(node.func.value)
        mode = ast.unparse(node.args[0]) if node.args else ""
        opens = method == "open" and "b" not in mode and on not in ("os", "Image", "PIL.Image")
        said = any(keyword.arg == "encoding" for keyword in node.keywords)
        if (opens or method in ("read_text", "write_text")) and not said:
            yield f"{path}:{node.lineno}"


@pytest.mark.flower
def test_the_digits_run_in_every_oddity_at_once(tmp_path):
    """One run in what can be put together; tests/environments.py tries each by itself."""
    status, output, errors = run_in(ENVIRONMENTS["all at once"], tmp_path, "compare", "digits", *TINY)
    assert status == 0, errors
    assert "Traceback" not in errors
    assert all(len(line) <= 40 for line in output.splitlines() if line.startswith(("|", "+")))
    found = accuracies(output)
    assert found.keys() == {"fedncm", "fedcof"}
    assert all(float(accuracy) > 20 for accuracy in found.values())
    # All processes found the same cache, and made none of their own.
    assert len(list((tmp_path / "cache of mine" / "features").glob("*/meta.json"))) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"cache of mine", "runs", "theirs"}
