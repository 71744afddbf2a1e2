"""The tests' own limits: what hangs is ended, on a clock of cores; what is shared is made once."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.limits import spread
from tests.running import is_running, kill_groups, marked
from tests.shared import made_once
from tests.waiting import CoreClock, until

ROOT = Path(__file__).parents[1]


def pytest_on(folder, content, *options):
    """Run pytest, with these limits, on a file of its own; gives its exit status and what it said."""
    (folder / "test_inner.py").write_text(content)
    command = [sys.executable, "-m", "pytest", "-p", "tests.limits", "-p", "no:cacheprovider", "-c", "none.ini"]
    (folder / "none.ini").write_text("[pytest]\nmarkers = flower\n")
    done = subprocess.run(
        [*command, "--rootdir", str(folder), *options, str(folder / "test_inner.py")],
        cwd=folder,
        env={**environment(), "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def environment():
    """Of a pytest that knows nothing of the one around it."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}


HANGING = """
import subprocess, time
import pytest

@pytest.fixture
def fixture_that_hangs():
    time.sleep(9999)

def test_with_a_fixture(fixture_that_hangs):
    pass

def test_asleep():
    time.sleep(9999)

def test_busy():
    while True:
        pass

def test_waiting_for_a_process():
    subprocess.run(["sleep", "9999"])

def test_that_ends():
    pass
"""


def test_tests_that_hang_fail_and_the_next_ones_run(tmp_path):
    status, said = pytest_on(tmp_path, HANGING, "--timeout=1")
    assert status == 1
    assert "3 failed, 1 passed, 1 error" in said
    assert said.count("Failed: Timeout: it took more than 1 seconds in which a core was to be had") >= 4


def test_one_that_takes_no_signal_is_ended_with_its_process(tmp_path):
    content = "import signal, time\nimport tests.limits\ntests.limits.LAST_SECONDS = 1\n"
    content += "def test():\n    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])\n    time.sleep(9999)\n"
    status, said = pytest_on(tmp_path, content, "--timeout=1", "-s")
    assert status == 1
    assert "It does not end" in said
    assert "failed" not in said


def test_a_process_whose_python_stands_still_is_ended(tmp_path):
    """A regular expression holds Python's lock for longer than anybody waits."""
    content = "import re\nfrom tests.waiting import CoreClock\nCoreClock.STANDSTILL = 3\n"
    content += "def test():\n    re.match('(a|aa)+$', 'a' * 200 + 'b')\n"
    status, said = pytest_on(tmp_path, content, "--timeout=1", "-s")
    assert status == 1
    assert "Timeout (0:00:03)!" in said
    assert "failed" not in said


def test_the_clock_passes_as_cores_can_be_had():
    def passed(work):
        clock = CoreClock(work)
        before = time.monotonic()
        for _ in range(3):
            clock.tick()
        return clock.seconds / (time.monotonic() - before)

    def starved():
        time.sleep(0.2)

    assert passed(starved) < 0.1 < passed(lambda: sum(range(10**6)))


def test_the_clock_tells_whose_time_has_come_once():
    clock, told = CoreClock(), []
    clock.after(5, lambda: told.append("five"))
    forget = clock.after(6, lambda: told.append("forgotten"))
    clock.after(10, lambda: told.append("ten"))
    clock.advance(4.9)
    assert told == []
    clock.advance(0.2)
    forget()
    forget()
    clock.advance(2)
    assert told == ["five"]
    clock.advance(100)
    assert told == ["five", "ten"]


def test_nothing_is_awaited_from_a_process_that_has_ended():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        assert not until(lambda: False, process)
    assert not until(lambda: False, seconds=0)
    answers = iter([0, 0, "there"])
    assert until(lambda: next(answers)) == "there"


class Item:
    def __init__(self, name, *words, flower=False):
        self.nodeid, self.words, self.flower = name, words, flower

    def get_closest_marker(self, name):
        return pytest.mark.flower(*self.words).mark if self.flower and name == "flower" else None


@pytest.mark.parametrize("short", [0, 1, 7, 40])
@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_every_process_begins_with_what_takes_long(short, processes):
    long = [Item("one", flower=True), *(Item(f"together {i}", "word", flower=True) for i in range(3))]
    long += [Item(f"long {i}", flower=True) for i in range(4)]
    items = [Item(f"short {i}") for i in range(short)] + long
    ordered = spread(items, processes)
    assert sorted(item.nodeid for item in ordered) == sorted(item.nodeid for item in items)
    places = [ordered.index(item) for item in long if item.words]
    assert places == list(range(places[0], places[0] + 3))
    if short < 40:
        return
    end = 0
    for process in range(processes):
        start, end = end, end + (len(items) - end) // (processes - process)
        kinds = [item.flower for item in ordered[start:end]]
        assert kinds[0]
        assert kinds == sorted(kinds, reverse=True)


class Factory:
    def __init__(self, folder):
        self.folder = folder

    def getbasetemp(self):
        return self.folder


def test_what_is_shared_is_made_once(tmp_path, monkeypatch):
    made = []

    def make(folder):
        made.append(folder)
        (folder / "content").write_text("x")

    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    folders = {made_once(Factory(tmp_path / name), "thing", make) for name in ("gw0", "gw1")}
    assert made == list(folders) == [tmp_path / "thing"]
    monkeypatch.delenv("PYTEST_XDIST_WORKER")
    (tmp_path / "alone").mkdir()
    assert made_once(Factory(tmp_path / "alone"), "thing", make) == tmp_path / "alone" / "thing"


def test_what_could_not_be_made_fails_for_all_with_its_words(tmp_path, monkeypatch):
    calls = []

    def make(folder):
        calls.append(folder)
        raise ValueError("no disk")

    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    with pytest.raises(ValueError, match="no disk"):
        made_once(Factory(tmp_path), "thing", make)
    with pytest.raises(pytest.fail.Exception, match="thing could not be made: ValueError\\('no disk'\\)"):
        made_once(Factory(tmp_path), "thing", make)
    assert len(calls) == 1


def test_what_a_killed_process_left_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    (tmp_path / "thing").mkdir()
    (tmp_path / "thing" / "half").touch()
    folder = made_once(Factory(tmp_path), "thing", lambda folder: (folder / "whole").touch())
    assert [path.name for path in folder.iterdir()] == ["whole"]


def test_processes_are_found_by_their_environment(tmp_path):
    command = [sys.executable, "-c", "import time; print(flush=True); time.sleep(9999)"]
    where = {**environment(), "MARK": str(tmp_path / "inner")}
    with subprocess.Popen(command, env=where, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout.readline()
        assert list(marked("MARK", tmp_path)) == list(marked("MARK", tmp_path / "inner")) == [process.pid]
        assert not marked("MARK", tmp_path / "in")
        assert is_running(process.pid)
        kill_groups(marked("MARK", tmp_path))
        assert until(lambda: not is_running(process.pid))
        assert not marked("MARK", tmp_path)
