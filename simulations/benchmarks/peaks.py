"""The most memory that a process ever held, which Linux counts and psutil does not tell."""

from __future__ import annotations

from pathlib import Path

import psutil

_PROC = Path("/proc")


def peak_of(process: int) -> int:
    """Read the largest resident size that a process ever had.

    Parameters
    ----------
    process : int
        Its id.

    Returns
    -------
    int
        Bytes; where the system does not count them what it has now, and 0 if it is gone.
    """
    try:
        lines = (_PROC / str(process) / "status").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    peak = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
    return peak or resident(process)


def resident(process: int) -> int:
    """Bytes of memory that a process has now; 0 if it is gone."""
    try:
        size: int = psutil.Process(process).memory_info().rss
    except psutil.Error:
        return 0
    return size


def reset_peak() -> None:
    """Let Linux count this process's peak from here; elsewhere nothing happens."""
    if (_PROC / "self" / "clear_refs").exists():
        (_PROC / "self" / "clear_refs").write_text("5", encoding="utf-8")
