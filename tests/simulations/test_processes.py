"""What a simulation started is stopped, also where it ignores the request, and where the command was killed."""

import os
import signal
import subprocess
import sys

import psutil

from simulations import processes
from tests.running import is_running
from tests.waiting import until

STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"

GUARDED = """
import os, subprocess, sys, time
from pathlib import Path
from simulations.processes import guarded

home, folder = map(Path, sys.argv[1:3])
with guarded(home, folder):
    environment = {**os.environ, "FLWR_HOME": str(home)}
    process = subprocess.Popen(["sleep", "600"], env=environment, start_new_session=True)
    print(process.pid, flush=True)
    if sys.argv[3] == "wait":
        time.sleep(600)
    process.kill()
    process.wait()
"""


def start_guarded(tmp_path, act):
    (tmp_path / "folder").mkdir()
    command = [sys.executable, "-c", GUARDED, str(tmp_path / "home"), str(tmp_path / "folder"), act]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_process_that_ignores_the_request_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.5)
    environment = {**os.environ, "FLWR_HOME": str(tmp_path)}
    command = [sys.executable, "-c", STUBBORN]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout.readline()
    processes.stop_groups(tmp_path)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()


def test_a_killed_command_leaves_nothing_behind(tmp_path):
    with start_guarded(tmp_path, "wait") as command:
        started = int(command.stdout.readline())
        assert is_running(started)
        command.kill()
    assert until(lambda: not is_running(started))
    assert until(lambda: not (tmp_path / "folder").exists())


def test_the_guard_ends_with_what_it_guards(tmp_path):
    with start_guarded(tmp_path, "leave") as command:
        assert command.wait() == 0
    marker = str(tmp_path / "home")
    commands = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert commands
    assert not any(marker in command for command in commands)
