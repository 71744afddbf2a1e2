"""Which processes run: by their number, and by what their environment says."""

import os
import signal

import psutil


def is_running(process):
    """Say whether a process runs that is not a zombie."""
    try:
        return psutil.Process(process).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.Error:
        return False


def marked(variable, value):
    """Map the processes with a variable of this value, or a path below it, to their command lines."""
    found = {}
    for process in psutil.process_iter():
        try:
            content = process.environ().get(variable, "")
            if is_running(process.pid) and (content == str(value) or content.startswith(f"{value}/")):
                found[process.pid] = " ".join(process.cmdline())
        except (psutil.Error, OSError):
            continue
    return found


def kill_groups(processes):
    """Kill processes and all else of their groups, apart from this process's own."""
    for process in processes:
        try:
            group = os.getpgid(process)
            if group != os.getpgid(0):
                os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            continue


def members_of_groups(processes):
    """List all processes of the groups that some lead."""
    groups = set(processes)
    found = []
    for number in psutil.pids():
        try:
            if os.getpgid(number) in groups:
                found.append(number)
        except ProcessLookupError:
            continue
    return found
