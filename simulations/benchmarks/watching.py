"""The processes that a measurement starts, looked at again and again while they run."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil

MARK = "FEDCOF_BENCHMARK"
SAMPLING_SECONDS = 0.25


@contextmanager
def watched(look: Callable[[psutil.Process], object]) -> Iterator[None]:
    """Look at the processes that are started meanwhile.

    Parameters
    ----------
    look : callable
        Called with each of them every quarter of a second.
    """

    def look_at_each(processes: list[psutil.Process]) -> None:
        for process in processes:
            with suppress(psutil.Error):
                look(process)

    with watched_together(look_at_each):
        yield


@contextmanager
def watched_together(look: Callable[[list[psutil.Process]], object]) -> Iterator[None]:
    """Look at all the processes that are started meanwhile as they are at one time.

    Parameters
    ----------
    look : callable
        Called with all of them every quarter of a second; some may have ended since they were listed.
    """
    mark, done = f"{os.getpid()}-{time.monotonic_ns()}", threading.Event()
    os.environ[MARK] = mark

    def watch() -> None:
        while not done.wait(SAMPLING_SECONDS):
            look(_marked(mark))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        del os.environ[MARK]


def _marked(mark: str) -> list[psutil.Process]:
    """Find the processes that bear the mark, or share a group with one that does: Ray's write over it."""
    groups: dict[int, list[psutil.Process]] = {}
    marked = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            group = os.getpgid(process.pid)
            groups.setdefault(group, []).append(process)
            if process.environ().get(MARK) == mark:
                marked.add(group)
    return [process for group in marked - {os.getpgrp()} for process in groups[group]]
