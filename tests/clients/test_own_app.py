"""A node's own app: what the server ships is neither unpacked nor run; commands that come before Flower's own."""

import os
import subprocess
import sys

from clients.own_commands import CLIENTAPP, SUPEREXEC, write_commands

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
    print("answered", *sys.argv[1:], flush=True)
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
    assert {path.name for path in folder.iterdir()} == {SUPEREXEC, CLIENTAPP}
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o077 == 0
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    for command in (SUPEREXEC, CLIENTAPP):
        done = subprocess.run(
            [command, "--help"], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert "--runtime-api-address" in done.stdout


def test_every_message_is_answered_by_a_process_of_its_own():
    done = subprocess.run([sys.executable, "-c", ANSWERED], capture_output=True, text=True, check=True)
    assert sorted(done.stdout.splitlines()) == ["answered fail", "answered one", "answered two"]
