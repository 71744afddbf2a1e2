"""Flower's SuperNode, which ends as soon as one of its threads does: one without a heartbeat is there for nobody.

The thread that sends heartbeats ends with any answer that it does not know, such as one HTTP 500. The process then
lives, is connected and asks for messages, but the server counts it as gone and sends none.
"""

from __future__ import annotations

import os
import threading

from flwr.supernode.cli import flower_supernode


def supernode() -> None:
    """Run as ``flower-supernode`` does."""
    threading.excepthook = _end
    flower_supernode()


def _end(told: threading.ExceptHookArgs) -> None:
    threading.__excepthook__(told)
    os._exit(1)
