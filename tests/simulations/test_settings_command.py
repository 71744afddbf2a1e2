"""``fedcof settings``, the page in docs, ``--version``, and what the shell completes."""

import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedcof.run.config import RunConfig
from simulations import cli, version
from simulations.settings_page import default, markdown

ROOT = Path(__file__).parents[2]
RUNNER = CliRunner()


def printed(*arguments, columns=160):
    """What the command prints at some width, in a process of its own, in which nothing is registered."""
    command = "import sys; from simulations import cli; cli.main()"
    process = subprocess.run(
        [sys.executable, "-c", command, *arguments],
        env={"COLUMNS": str(columns), "PATH": "", "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return process.stdout


@pytest.mark.parametrize("columns", [80, 160])
def test_all_keys_are_listed_with_default_and_meaning(columns):
    lines = printed("settings", columns=columns).splitlines()
    assert max(map(len, lines)) <= columns
    words = " ".join(" ".join(line.strip("│┃ ").split("│")[-1] for line in lines).split())
    for known in RunConfig.declared().values():
        # Neither the key nor its default is broken in two.
        assert any(line.startswith(f"│ {known.name} = {default(known)} ") for line in lines), known.name
        assert f"{known.meaning} Takes {known.takes}." in words
    for name in RunConfig.sections():
        assert any(line.startswith(f"{name}: ") for line in lines)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (
            "alpha",
            ["0.1", "a number, above 0", "clients and the server", "the uploads", "is a Dirichlet"],
        ),
        ("seed", ["by --seeds", "always", "RunConfig(seed=...)"]),
        (
            "continue",
            ["one of none, linear-probe, adapters, fine-tune", "refused elsewhere", "RunConfig(continue_=...)"],
        ),
        ("shrinkage", ["a number or a text", "may be changed"]),
        ("plan", ["the command", "no result"]),
        ("ray-address", ["HOST:PORT of a Ray cluster, or empty"]),
    ],
)
def test_one_key_is_told_whole(key, said):
    text = printed("settings", key)
    for words in [RunConfig.declared()[key].meaning, *said]:
        assert words in text


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("aplha", "alpha"),
        ("num-client", "num-clients"),
        ("bytes_per_class", "bytes-per-class"),
        ("epsillon", "epsilon"),
        ("NUM_CLIENTS", "num-clients"),
        ("learning-rate-shedule", "learning-rate-schedule"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ["settings", "{}"],
        ["simulate", "-c", "{}=1"],
        ["simulate", "-c", "{}=[1,2]"],
        ["compare", "-c", "{}=1"],
        ["compare", "-c", "{}=[1,2]"],
        ["deploy-local", "-c", "{}=1"],
        ["solve", "nowhere", "-c", "{}=1"],
    ],
)
def test_a_mistyped_key_is_answered_with_the_nearest(fedcof, command, typed, meant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, message = fedcof(*(word.format(typed) for word in command))
    assert status == 2
    assert f"Unknown key {typed!r}: did you mean {meant}?" in message
    assert message.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_scenario_with_a_mistyped_key_is_answered_too(fedcof, tmp_path):
    (tmp_path / "mine.toml").write_text("batchsize = 3")
    status, message = fedcof("simulate", tmp_path / "mine.toml")
    assert (status, "did you mean batch-size?" in message) == (2, True)


def test_what_is_near_to_nothing_is_not_guessed(fedcof):
    status, message = fedcof("settings", "xyz")
    assert status == 2
    assert message == f"fedcof: Unknown key 'xyz': fedcof settings lists all {len(RunConfig.defaults())}.\n"


def test_the_page_in_docs_is_what_the_keys_say():
    page = (ROOT / "docs" / "settings.md").read_text()
    assert page == printed("settings", "--markdown"), "run python -m simulations.settings_page"
    for name, known in RunConfig.declared().items():
        assert page.count(f"\n| `{name}` | `{default(known)}` | ") == 1
        assert len(known.meaning) > 10


def test_each_line_of_a_table_has_as_many_cells():
    rows = [line.replace(r"\|", "") for line in markdown().splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {8}


def test_the_light_commands_import_no_torch():
    for arguments in (["settings"], ["settings", "alpha"], ["--version"], ["--help"]):
        program = (
            "import sys\nfrom simulations import cli\n"
            f"sys.argv = ['fedcof', *{arguments}]\n"
            "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
            "print('HEAVY', {'torch', 'flwr', 'ray', 'timm', 'sklearn'} & sys.modules.keys())"
        )
        said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        assert said.splitlines()[-1] == "HEAVY set()", arguments


def test_the_version_is_the_project_s(monkeypatch):
    number = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    result = RUNNER.invoke(cli.app, ["--version"])
    assert result.exit_code == 0
    assert result.output.split()[:2] == ["fedcof", number]

    def not_installed(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(version, "installed_version", not_installed)
    assert version.version() == f"fedcof {number}, run from a checkout without being installed."


def test_files_without_package_and_checkout_have_no_version(fedcof, monkeypatch, tmp_path):
    def not_installed(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(version, "installed_version", not_installed)
    monkeypatch.setattr(version, "CHECKOUT", tmp_path)
    status, message = fedcof("--version")
    assert status == 2
    assert "install fedcof" in message


def completed(words, monkeypatch):
    """What zsh is told that the last of some words may become, with what it says beside it."""
    monkeypatch.setenv("_FEDCOF_COMPLETE", "complete_zsh")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", " ".join(words))
    return RUNNER.invoke(cli.app, prog_name="fedcof").output


def test_the_shell_completes_scenarios_and_keys(monkeypatch):
    assert "cifar100" in completed(["fedcof", "simulate", "ci"], monkeypatch)
    assert "digits" not in completed(["fedcof", "simulate", "ci"], monkeypatch)
    said = completed(["fedcof", "compare", "digits", "-c", "bytes-per"], monkeypatch)
    assert '"bytes-per-class="' in said
    assert "Most bytes of a client" in said
    assert "alpha" not in said
    assert '"epsilon"' in completed(["fedcof", "settings", "eps"], monkeypatch)
