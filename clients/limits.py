"""What an answer may take of a node's machine, minutes and memory: more ends that answer, and not the node."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import psutil

from clients.policy import NO_LIMIT, NodePolicy, refused

# Between two looks an answer takes no more than the layer of a network that it is in.
LOOK_SECONDS = 0.2
GIGABYTE = 1e9


@contextmanager
def within_limits(policy: NodePolicy) -> Iterator[None]:
    """Stop what takes longer, or more memory, than a node's owner allows.

    Each answer of a node is given by the main thread of a process of its own; in another thread nothing is limited,
    because no signal interrupts it.

    Parameters
    ----------
    policy : NodePolicy
        The limits.

    Yields
    ------
    None
        Meanwhile.

    Raises
    ------
    Refusal
        Once too much has been taken; in the midst of whatever Python is doing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    started = time.monotonic()

    def look(number: int, frame: FrameType | None) -> None:
        _check(policy, time.monotonic() - started)

    handler_before = signal.signal(signal.SIGALRM, look)
    left, every = signal.setitimer(signal.ITIMER_REAL, LOOK_SECONDS, LOOK_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler_before)
        if left:
            # Somebody else's alarm comes when it would have come.
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - started), 1e-3), every)


def _check(policy: NodePolicy, seconds: float) -> None:
    if policy.longest_answer != NO_LIMIT and seconds > 60 * policy.longest_answer:
        raise refused(policy.name, "so long an answer", f"at most {policy.longest_answer:g} minutes")
    if policy.largest_memory != NO_LIMIT and memory_taken() > policy.largest_memory * GIGABYTE:
        raise refused(policy.name, "an answer of so much memory", f"at most {policy.largest_memory:g} GB")


def memory_taken() -> float:
    """Count this process's memory in bytes, without the pages of files that it has mapped."""
    info = psutil.Process().memory_info()
    return float(info.rss - getattr(info, "shared", 0))
