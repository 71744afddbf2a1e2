import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from fedcof.errors import UserError
from simulations import runtime, submission
from simulations.runtime import Resources, simulation_superlink
from simulations.submission import FlowerRunError, run_app
from tests.running import is_running, marked

DESCRIPTION = """
[project]
name = "trivial"
version = "0.1.0"
description = "Trivial"
license = "Apache-2.0"
[tool.flwr.app]
publisher = "tests"
components = { serverapp = "trivial:server_app", clientapp = "trivial:client_app" }
config = { act = "answer", text = "", number = 1.0, flag = false, output = "" }
"""

APP = """
import json, time
from pathlib import Path
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

client_app = ClientApp()
server_app = ServerApp()

@client_app.query()
def query(message, context):
    return Message(RecordDict(), reply_to=message)

@server_app.main()
def main(grid, context):
    if context.run_config["act"] == "raise":
        raise ValueError("a sentence of mine")
    while len(nodes := list(grid.get_node_ids())) < 3:
        time.sleep(0.1)
    replies = list(grid.send_and_receive([Message(RecordDict(), node, "query") for node in nodes]))
    print("replies:", len(replies), flush=True)
    if context.run_config["act"] == "sleep":
        time.sleep(600)
    answer = {"replies": len(replies), "config": dict(context.run_config)}
    Path(context.run_config["output"]).write_text(json.dumps(answer))
"""

INTERRUPTED = """
import signal
import sys
from pathlib import Path
from simulations.runtime import Resources, simulation_superlink
from simulations.submission import run_app
# A shell that starts tests in the background has them ignore SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)

folder = Path(sys.argv[1])
with simulation_superlink(folder / "superlink") as connection:
    values = {"act": "sleep"}
    run_app(connection, folder, values, Resources(num_supernodes=3), lambda line: print(line, flush=True))
"""


def write_app(folder):
    (folder / "pyproject.toml").write_text(DESCRIPTION)
    (folder / "trivial.py").write_text(APP)
    return folder


def living_processes():
    """Process id to process group of all that are not zombies."""
    groups = {}
    for process in filter(is_running, psutil.pids()):
        with suppress(ProcessLookupError):
            groups[process] = os.getpgid(process)
    return groups


def started_in(folder):
    """Find what runs in a folder's Flower home, and all else of the same process groups."""
    processes = living_processes()
    groups = {processes[process] for process in marked("FLWR_HOME", folder) if process in processes}
    return {process for process, group in processes.items() if group in groups}


@pytest.fixture(scope="module")
def connection(tmp_path_factory):
    folder = tmp_path_factory.mktemp("superlink")
    with simulation_superlink(folder) as connection:
        yield connection
        started = started_in(folder)
        assert len(started) >= 2
    assert not started & living_processes().keys()
    assert not started_in(folder)
    assert not Path(connection.environment["RAY_TMPDIR"]).exists()


@pytest.mark.flower("one SuperLink")
def test_an_app_runs_to_its_end_with_the_values_it_was_given(connection, tmp_path):
    values = {
        "text": "a b = ['c'] \"d\" # e\n\\f ü",
        "number": 2.5,
        "flag": True,
        "output": str(tmp_path / "answer of the app.json"),
    }
    lines = []
    run_app(connection, write_app(tmp_path), values, Resources(num_supernodes=3), lines.append)
    answer = json.loads(Path(values["output"]).read_text())
    assert answer == {"replies": 3, "config": {"act": "answer"} | values}
    assert "replies: 3" in lines
    assert not any("\x1b" in line or line.endswith("\n") for line in lines)


@pytest.mark.flower("one SuperLink")
def test_an_app_that_raises_fails_with_its_own_words(connection, tmp_path):
    log = tmp_path / "flower.log"
    with pytest.raises(FlowerRunError) as failure:
        run_app(
            connection, write_app(tmp_path), {"act": "raise"}, Resources(num_supernodes=3), lambda line: None, log
        )
    assert str(failure.value) == f"The Flower run failed: a sentence of mine; the full log is in {log}."
    assert failure.value.status == "finished:failed"
    assert "ValueError: a sentence of mine" in failure.value.tail


@pytest.mark.flower("one SuperLink")
def test_a_key_that_the_app_does_not_declare_is_refused(connection, tmp_path):
    with pytest.raises(FlowerRunError, match="not accepted: .*Invalid run configuration") as failure:
        run_app(connection, write_app(tmp_path), {"unknown": 1}, Resources(num_supernodes=3), lambda line: None)
    assert failure.value.status == ""


@pytest.mark.flower
def test_two_interrupted_at_once_each_stop_all_that_is_theirs(tmp_path):
    """Ctrl-C for the one, SIGTERM for the other, while Ray is at work under both."""
    runs = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        folder = tmp_path / number.name
        folder.mkdir()
        command = [sys.executable, "-c", INTERRUPTED, str(write_app(folder))]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        runs[number] = (folder / "superlink", process)
    try:
        for _, process in runs.values():
            assert any("replies: 3" in line for line in process.stdout)
        started = {number: started_in(folder) for number, (folder, _) in runs.items()}
        for number, (_, process) in runs.items():
            assert len(started[number]) >= 8
            process.send_signal(number)
            process.stdout.close()
            process.wait()
            assert not started[number] & living_processes().keys()
            if number is signal.SIGINT:
                assert started[signal.SIGTERM] <= living_processes().keys()
        assert runs[signal.SIGINT][1].returncode in {-signal.SIGINT, 130}
        assert runs[signal.SIGTERM][1].returncode == 128 + signal.SIGTERM
    finally:
        for folder, process in runs.values():
            process.kill()
            process.wait()
            for leftover in started_in(folder):
                os.kill(leftover, signal.SIGKILL)


@pytest.mark.flower("one SuperLink")
def test_a_second_superlink_in_a_thread_has_its_own_port_and_ends_with_an_exception(connection, tmp_path):
    """Signals cannot be handled outside the main thread."""
    second = []

    def start():
        with suppress(ZeroDivisionError), simulation_superlink(tmp_path) as other:
            second.extend([other.address, len(started_in(tmp_path))])
            raise ZeroDivisionError

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    address, processes = second
    assert address != connection.address
    assert processes >= 2
    assert not started_in(tmp_path)
    assert len(started_in(connection.working_directory)) >= 2


def test_the_signal_handlers_are_put_back(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "start_superlink", lambda connection, *options: None)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with simulation_superlink(tmp_path):
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


@pytest.mark.parametrize(
    ("act", "seconds"),
    [
        ("sys.exit(1)", 60.0),
        ("time.sleep(9999)", 5.0),
        ("[time.sleep(0.05) for _ in iter(int, 1)]", 5.0),
        ("[None for _ in iter(int, 1)]", 1.0),
    ],
    ids=["ends", "sleeps", "idles", "computes"],
)
def test_a_superlink_that_does_not_start_is_a_users_error(tmp_path, monkeypatch, act, seconds):
    monkeypatch.setattr(runtime, "START_SECONDS", seconds)
    commands = tmp_path / "commands"
    commands.mkdir()
    program = f"#!{sys.executable} -I\nimport sys, time\nprint('no licence', flush=True)\n{act}\n"
    (commands / "flower-superlink").write_text(program)
    (commands / "flower-superlink").chmod(0o755)
    monkeypatch.setattr(runtime, "_command_path", lambda: f"{commands}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(UserError, match="'no licence'"), simulation_superlink(tmp_path / "superlink"):
        pass


def test_a_missing_command_is_a_users_error(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "_command_path", lambda: str(tmp_path))
    with pytest.raises(UserError, match="install fedcof with pip"), simulation_superlink(tmp_path / "superlink"):
        pass


def test_the_processes_are_kept_from_other_rays_proxies_and_reports(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    monkeypatch.setenv("NO_PROXY", "example.org")
    monkeypatch.setenv("PYTHONPATH", f"relative{os.pathsep}/absolute")
    environment = runtime.flower_environment(tmp_path) | runtime._ray_environment(tmp_path / "ray", "")
    assert "RAY_ADDRESS" not in environment
    assert environment["RAY_TMPDIR"] == str(tmp_path / "ray")
    assert environment["NO_PROXY"] == "127.0.0.1,localhost,example.org"
    assert environment["PYTHONPATH"] == f"{Path('relative').absolute()}{os.pathsep}/absolute"
    assert environment["FLWR_TELEMETRY_ENABLED"] == environment["RAY_USAGE_STATS_ENABLED"] == "0"
    assert environment["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert runtime._ray_environment(tmp_path / "ray", "192.0.2.7:6379") == {"RAY_ADDRESS": "192.0.2.7:6379"}


def test_the_sockets_of_ray_fit_into_their_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("long" * 20)))
    with runtime._ray_folder() as folder:
        socket_path = folder / "ray" / "session_2000-01-01_00-00-00_000000_4194304" / "sockets" / "plasma_store"
        assert len(os.fsencode(socket_path)) <= 103


def test_resources_become_flowers_federation_config():
    resources = Resources(num_supernodes=100, client_num_cpus=2, client_num_gpus=0.25)
    expected = "num-supernodes=100 client-resources-num-cpus=2 client-resources-num-gpus=0.25"
    assert resources.federation_config() == expected


@pytest.mark.parametrize("values", [(0, 1, 0.0), (1, 0, 0.0), (1, 1, -0.5)])
def test_impossible_resources_are_refused(values):
    with pytest.raises(UserError, match="at least one SuperNode"):
        Resources(*values)


@pytest.mark.parametrize(
    ("details", "lines", "expected"),
    [
        ("Simulation failed with exception: one sentence", ["ValueError: other"], "one sentence"),
        (
            "Simulation failed with exception: An error was encountered. Ending simulation.",
            ["Traceback", "ModuleNotFoundError: No module named 'x'", "RuntimeError: Simulation Runtime crashed."],
            "ModuleNotFoundError: No module named 'x'",
        ),
        (
            "Simulation failed with exception: An error was encountered. Ending simulation.",
            ["ValueError: ActorPool is empty. Stopping Simulation."],
            "no client fits into the machine, as each was to get 64 CPU cores and 0.5 GPUs;"
            " set num-cpus and num-gpus to no more than one machine has",
        ),
        ("N/A", [], "it ended as finished:stopped"),
    ],
)
def test_the_cause_is_one_clause(details, lines, expected):
    resources = Resources(num_supernodes=1, client_num_cpus=64, client_num_gpus=0.5)
    assert submission._cause("finished:stopped", details, deque(lines), resources) == expected


def test_a_reserved_port_can_be_listened_on_by_a_server_that_reuses_addresses():
    with runtime.reserved_port() as reserved:
        port = reserved.getsockname()[1]
        code = f"import http.server as s; s.HTTPServer(('127.0.0.1', {port}), None).server_close()"
        subprocess.run([sys.executable, "-c", code], check=True)
