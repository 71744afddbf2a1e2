"""How long a test may take, on the clock of cores; and which tests each of pytest's processes begins with."""

import faulthandler
import os
import signal
import sys
import threading

import pytest

from tests.waiting import core_clock

# What does not even take the signal is ended with its whole process.
LAST_SECONDS = 60


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item, settings):
    """Hold pytest-timeout's limits on the clock of cores: on the wall's they would limit somebody else's load."""
    if threading.current_thread() is not threading.main_thread():
        return None
    said = f"Timeout: it took more than {settings.timeout:g} seconds in which a core was to be had."

    def fail(number, frame):
        pytest.fail(said)

    def end():
        sys.__stderr__.write(f"{item.nodeid}: {said} It does not end.\n")
        faulthandler.dump_traceback(sys.__stderr__)
        os._exit(1)

    signal.signal(signal.SIGALRM, fail)
    clock, main = core_clock(), threading.main_thread().ident
    forget = clock.after(settings.timeout, lambda: signal.pthread_kill(main, signal.SIGALRM))
    forget_end = clock.after(settings.timeout + LAST_SECONDS, end)

    def cancel():
        forget()
        forget_end()
        # One that is under way already must not end the process.
        signal.signal(signal.SIGALRM, lambda number, frame: None)

    item.cancel_timeout = cancel
    return True


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Let every process begin with its share of what starts Flower: these take minutes, all others seconds."""
    items[:] = spread(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def spread(items, processes):
    """Order tests for ``--dist worksteal``, which gives each process an equal part of the list, in its order."""
    short = [item for item in items if not item.get_closest_marker("flower")]
    shares = {}
    for item in items:
        if flower := item.get_closest_marker("flower"):
            # Tests with the same word share what they start, so they stay in one process.
            shares.setdefault(flower.args or item.nodeid, []).append(item)
    parts = [[] for _ in range(processes)]
    for number, together in enumerate(shares.values()):
        parts[number % processes] += together
    ordered = []
    for number, part in enumerate(parts):
        room = (len(items) - len(ordered)) // (processes - number) - len(part)
        ordered += part + short[: max(room, 0)]
        del short[: max(room, 0)]
    return ordered + short
