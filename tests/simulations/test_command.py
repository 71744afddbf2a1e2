"""The command's entry and its end: others' modules in the way, pipes that end, and what the system refuses."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from tests.environments import COMMAND, ENVIRONMENTS, ROOT, Surroundings, run_in


def test_modules_of_our_names_do_not_stand_in_the_way(tmp_path):
    status, output, errors = run_in(ENVIRONMENTS["modules of our names"], tmp_path, "settings", "alpha")
    assert (status, errors) == (0, "")
    assert "alpha" in output


def test_modules_of_our_names_where_the_user_stands_do_not_either(tmp_path):
    files = dict.fromkeys(("fedcof.py", "server.py", "simulations/__init__.py", "clients.py"), "raise RuntimeError")
    status, output, errors = run_in(Surroundings({"PYTHONPATH": ""}, files), tmp_path, "settings", "alpha")
    assert (status, errors) == (0, "")
    assert "alpha" in output


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("rich.py", "colour = 'red'\n"),
        ("typer/__init__.py", ""),
        ("click.py", "raise ValueError('my own script')\n"),
        ("difflib.py", "x = 1\n"),
    ],
)
def test_a_module_in_another_packages_place_is_named(file, content, tmp_path):
    surroundings = Surroundings({"PYTHONPATH": "theirs"}, {f"theirs/{file}": content})
    status, _, errors = run_in(surroundings, tmp_path, "settings", "alpha")
    assert status == 1
    assert errors.count("\n") == 1
    assert f"The file {tmp_path / 'theirs' / file} was imported in the place of a package" in errors


def test_a_module_that_harms_nobody_is_left_alone(tmp_path):
    surroundings = Surroundings({"PYTHONPATH": "theirs"}, {"theirs/sitecustomize.py": "", "theirs/helpers.py": ""})
    status, _, errors = run_in(surroundings, tmp_path, "settings", "alpha")
    assert (status, errors) == (0, "")


def command(tmp_path, redirection, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FEDCOF_CACHE": str(tmp_path)}
    script = ["bash", "-c", f'set -o pipefail; "$@" {redirection}', "bash", *COMMAND, *arguments]
    return subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)


def test_a_pipe_that_ends_ends_the_command_without_a_word(tmp_path):
    done = command(tmp_path, "| true", "settings", "--markdown")
    assert done.returncode != 0
    assert done.stderr == ""


def test_a_closed_output_is_no_error(tmp_path):
    done = command(tmp_path, ">&- 2>&- <&-", "settings")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_output_is_a_sentence(tmp_path):
    done = command(tmp_path, "> /dev/full", "settings", "--markdown")
    assert done.returncode == 2
    assert done.stderr.startswith("fedcof: The operating system refused (No space left on device)")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO, errno.ENOTDIR])
def test_what_the_system_refuses_is_a_sentence(code, fedcof, monkeypatch, tmp_path):
    from simulations import commands

    def refuse(*_):
        raise OSError(code, os.strerror(code), "/disk/file\nof mine")

    monkeypatch.setattr(commands, "simulate", refuse)
    status, message = fedcof("simulate", "--output", tmp_path / "run")
    assert status == 2
    assert message.startswith(f"fedcof: The file or folder /disk/file of mine cannot be used ({os.strerror(code)})")
    assert message.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_name_that_is_no_utf8_is_a_sentence(fedcof, tmp_path):
    name = os.fsdecode(b"caf\xe9")
    status, message = fedcof("simulate", "-c", f"dataset=folder:{name}", "--output", tmp_path / "run")
    assert status == 2
    assert message.count("\n") == 1
    assert "Traceback" not in message
