"""A node's own app: what the server ships is neither unpacked nor run; commands that come before Flower's own."""

import os
import subprocess
import sys

from clients.own_commands import CLIENTAPP, SUPEREXEC, SUPERNODE, write_commands

USED = """
from clients import own_app
from clients.client_app import app
from flwr.supernode.runtime import run_clientapp

own_app._use_own_app()
run_clientapp.install_from_fab(b"no bundle", skip_prompt=True)
loaded = run_clientapp.get_load_client_app_fn(default_app_ref="", app_path=None, multi_app=True)
assert loaded("somebody/app", "1.0", "0" * 64) is app
"""

ANSWERED = """
import sys
from clients import own_app

def said():
    # One write a line, so that those of several processes do not mix where Python is told not to buffer.
    sys.stdout.write(" ".join(["answered", *sys.argv[1:]]) + "\\n")
    sys.stdout.flush()
    if "fail" in sys.argv:
        raise SystemExit(3)

own_app.clientapp = said
answer = own_app._fork_answerer()
for word in ("one", "fail", "two"):
    answer(["flwr-clientapp", word])
# The pipe ends with this process, and so does the one that answers.
"""


def test_whatever_is_shipped_the_installed_app_is_loaded():
    subprocess.run([sys.executable, "-c", USED], check=True)


def test_the_commands_are_found_before_flowers(tmp_path):
    folder = write_commands(tmp_path / "commands")
    assert {path.name for path in folder.iterdir()} == {SUPEREXEC, CLIENTAPP, SUPERNODE}
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o077 == 0
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    for command, option in ((SUPEREXEC, "--runtime-api"), (CLIENTAPP, "--runtime-api"), (SUPERNODE, "--superlink")):
        done = subprocess.run(
            [command, "--help"], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert option in done.stdout


DYING = """
import sys, threading, time
from clients import own_supernode

def loses_a_thread():
    threading.Thread(target=lambda: 1 / 0, daemon=True).start()
    time.sleep(1000)

own_supernode.flower_supernode = loses_a_thread
own_supernode.supernode()
"""


def test_a_supernode_ends_with_the_first_of_its_threads():
    done = subprocess.run([sys.executable, "-c", DYING], capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_every_message_is_answered_by_a_process_of_its_own():
    done = subprocess.run([sys.executable, "-c", ANSWERED], capture_output=True, text=True, check=True)
    assert sorted(done.stdout.splitlines()) == ["answered fail", "answered one", "answered two"]
