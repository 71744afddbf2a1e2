"""Waiting that is no limit on somebody else's load: for what comes, while who brings it is alive."""

import faulthandler
import hashlib
import sys
import threading
import time
from functools import cache

PATIENCE = 240
_POLL_SECONDS = 0.05

# Large enough to be hashed without Python's lock, which the test itself may hold.
BUFFER = bytes(8 * 2**20)


class CoreClock(threading.Thread):
    """Counts the seconds in which a core could be had: the busier the machine, the more slowly they pass.

    Every two seconds it does a little work and sees how much of that time it got a core: half of it where two share
    one, a tenth of it where ten do. A limit on this clock is as generous as the machine is busy, and still ends
    what hangs, because a core can be had at times on every machine.
    """

    PERIOD = 2.0
    STANDSTILL = 900

    def __init__(self, work=lambda: hashlib.sha256(BUFFER)):
        super().__init__(daemon=True, name="core clock")
        self.seconds = 0.0
        self._work = work
        self._watches = []
        self._lock = threading.Lock()
        self._before = time.monotonic()

    def run(self):
        while True:
            # If no thread gets to run Python at all, this alone still ends the process.
            faulthandler.dump_traceback_later(self.STANDSTILL, exit=True, file=sys.__stderr__)
            time.sleep(self.PERIOD)
            self.tick()

    def tick(self):
        """Count what has passed since the last time, as far as a core could be had."""
        started, worked = time.monotonic(), time.thread_time()
        self._work()
        now = time.monotonic()
        share = (time.thread_time() - worked) / max(now - started, 1e-9)
        self.advance((now - self._before) * min(share, 1.0))
        self._before = now

    def advance(self, seconds):
        """Let seconds pass, and tell those whose time has come."""
        with self._lock:
            self.seconds += seconds
            due = [watch for watch in self._watches if watch[0] <= self.seconds]
            self._watches = [watch for watch in self._watches if watch not in due]
        for _, act in due:
            act()

    def after(self, seconds, act):
        """Call ``act`` from the clock's thread once as many seconds have passed; gives what forgets it."""
        watch = (self.seconds + seconds, act)
        with self._lock:
            self._watches.append(watch)

        def forget():
            with self._lock:
                self._watches = [other for other in self._watches if other is not watch]

        return forget


@cache
def core_clock():
    """The one clock of this process, which runs from when it is first asked for."""
    clock = CoreClock()
    clock.start()
    return clock


def until(holds, process=None, seconds=PATIENCE):
    """Wait until something holds; in vain once the process that is to bring it about has ended, or hangs.

    Parameters
    ----------
    holds : callable
        Asked again and again.
    process : subprocess.Popen, optional
        Who is to bring it about.
    seconds : float
        How long to wait, on the clock of cores.

    Returns
    -------
    object
        What ``holds`` said last.
    """
    clock = core_clock()
    end = clock.seconds + seconds
    while clock.seconds < end:
        ended = process is not None and process.poll() is not None
        if (answer := holds()) or ended:
            return answer
        time.sleep(_POLL_SECONDS)
    return holds()
