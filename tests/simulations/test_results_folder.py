"""The folder of a command's results: one command at a time, a sentence where it cannot be, and no empty folders."""

import subprocess
import sys
import threading

import pytest

from fedcof.errors import UserError
from simulations.results_folder import LOCK_FILE_NAME, results_folder
from tests.environments import ROOT


@pytest.fixture(autouse=True)
def standing_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_commands_of_the_same_second_have_folders_of_their_own(tmp_path):
    folders, together = [], threading.Barrier(8)

    def run():
        together.wait()
        with results_folder(None, "digits") as folder:
            (folder / "results.json").write_text("[]")
            folders.append(folder)
            together.wait()

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(folders)) == 8
    assert len(list((tmp_path / "runs").iterdir())) == 8


def test_a_named_folder_is_one_commands_at_a_time(tmp_path):
    with results_folder(tmp_path / "mine") as folder:
        (folder / "results.json").write_text("[]")
        with pytest.raises(UserError, match="Another fedcof command is at work in .*mine"), results_folder(folder):
            pass
        code = "import sys; from pathlib import Path; from simulations.results_folder import results_folder as r\n"
        code += "with r(Path(sys.argv[1])): pass"
        other = subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        assert "Another fedcof command is at work" in other.stderr
    assert [path.name for path in folder.iterdir()] == ["results.json"]
    with results_folder(folder) as again:
        assert again == folder


def test_a_command_that_writes_nothing_leaves_nothing(tmp_path):
    for output in (None, tmp_path / "a" / "b"):
        with pytest.raises(ZeroDivisionError), results_folder(output, "digits") as folder:
            assert folder.is_dir()
            raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_that_was_there_stays(tmp_path):
    (tmp_path / "mine").mkdir()
    with results_folder(tmp_path / "mine"):
        pass
    assert list((tmp_path / "mine").iterdir()) == []


@pytest.mark.parametrize("output", ["file", "file/below", "file/far/below", "/proc/nowhere", "n" * 300])
def test_what_cannot_be_a_folder_is_a_sentence(output, fedcof, tmp_path):
    (tmp_path / "file").write_text("mine")
    status, message = fedcof("simulate", "--output", output)
    assert status == 2
    assert f"No results can be written to {output}" in message
    assert "name another folder with --output" in message
    assert message.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_working_folder_that_takes_no_results_is_a_sentence(fedcof, tmp_path):
    (tmp_path / "runs").write_text("a file of mine")
    status, message = fedcof("compare")
    assert status == 2
    assert "No results can be written to runs (runs is a file)" in message


def test_a_lock_that_a_killed_command_left_holds_nobody_up(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / LOCK_FILE_NAME).touch()
    with results_folder(tmp_path / "mine") as folder:
        assert folder.is_dir()
