"""The end of what a simulation starts: signals become exceptions, process groups end, a guard outlives a kill."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

import psutil

# How long what was started may take to end by itself before it is killed.
GRACE_SECONDS = 1.0
KILL_SECONDS = 10.0
POLL_SECONDS = 0.05


@contextmanager
def signals_raise() -> Iterator[None]:
    """Turn the signals that would end Python on the spot into an exception, so that the cleaning up takes place."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    with _handlers([n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL], leave):
        yield


@contextmanager
def signals_ignored() -> Iterator[None]:
    """Let nothing interrupt the cleaning up."""
    with _handlers([signal.SIGINT, signal.SIGTERM, signal.SIGHUP], signal.SIG_IGN):
        yield


@contextmanager
def _handlers(
    numbers: list[signal.Signals], handler: Callable[[int, FrameType | None], object] | signal.Handlers
) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@contextmanager
def guarded(home: Path, folder: Path) -> Iterator[None]:
    """Have a process of its own stop what runs in a Flower home, should this process be killed before it can.

    The guard reads from a pipe that nobody writes to and that ends with this process, however that ends.

    Parameters
    ----------
    home : Path
        The Flower home.
    folder : Path
        A temporary folder to delete once its processes are gone.
    """
    # Isolated, and run as a file, it imports nothing of the user's; apart from the terminal, Ctrl-C spares it.
    command = [sys.executable, "-I", str(Path(__file__).absolute()), str(home), str(folder)]
    guard = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    assert guard.stdin is not None
    with guard:
        try:
            yield
        finally:
            guard.stdin.close()


def stop(processes: Sequence[subprocess.Popen[str]], home: Path) -> None:
    """End what was started and all that it started.

    Parameters
    ----------
    processes : sequence of subprocess.Popen
        What was started from here.
    home : Path
        The Flower home of all of them. SuperExec ends itself and Ray once orphaned.
    """
    for process in processes:
        process.terminate()
    stop_groups(home)
    for process in processes:
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def stop_groups(home: Path) -> None:
    """End every process group with a process that runs in a Flower home; first by asking, then by killing.

    The SuperLink, its SuperExec with Ray and all its workers, and ``flwr run`` are one group each. A process need
    not show its environment (some of Ray's write their title over it), but one of each group does.

    Parameters
    ----------
    home : Path
        The Flower home.
    """
    groups: set[int] = set()
    for number, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
        told: set[int] = set()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            groups = (groups | _groups_in(home)) & _living_groups()
            if not groups:
                return
            for group in groups - told:
                _signal_group(group, number)
            told |= groups
            time.sleep(POLL_SECONDS)


def _signal_group(group: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def _groups_in(home: Path) -> set[int]:
    """Find the groups of the processes whose environment names a Flower home, or one within it."""
    return {group for process, group in _living() if _is_at(home, process)} - {os.getpgrp()}


def _is_at(home: Path, process: psutil.Process) -> bool:
    try:
        folder = str(process.environ().get("FLWR_HOME", ""))
    except (psutil.Error, OSError):
        return False
    return folder == str(home) or folder.startswith(f"{home}/")


def _living_groups() -> set[int]:
    """Find the groups that have a process which is not a zombie."""
    return {group for _, group in _living()}


def _living() -> Iterator[tuple[psutil.Process, int]]:
    """List the processes that are no zombies, each with its group."""
    for process in psutil.process_iter():
        try:
            dead = process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
            group = os.getpgid(process.pid)
        except (psutil.Error, OSError):
            continue
        if not dead:
            yield process, group


def _guard(home: Path, folder: Path) -> None:
    sys.stdin.read()
    stop_groups(home)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _guard(Path(sys.argv[1]), Path(sys.argv[2]))
