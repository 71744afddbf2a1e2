"""Hosts of a federation: namespaces of Linux with a network and a file system each, or folders on loopback."""

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psutil

from simulations.processes import stop_groups
from tests.running import kill_groups, marked
from tests.waiting import until

LINE = Path(__file__).with_name("line.py")
# Addresses that are for documentation (RFC 5737), and one that is behind a router (RFC 1918).
SERVER = "203.0.113.1"
SEEN = {"site-0": "192.0.2.10", "site-1": "192.0.2.11", "site-2": "192.0.2.12"}
BEHIND = "192.168.0.10"
SLOW_AND_LOSSY = ["--delay", "0.05", "--loss", "0.02"]
NAME = "fl.hospital.example"

_PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}{os.pathsep}/usr/sbin"
UNSHARE = ["unshare", "--net", "--mount", "--uts", "--pid", "--mount-proc"]
# The first process of a host collects what others leave behind, and ends them all when it ends.
_HOST = """
set -eu
mount -t tmpfs -o mode=0700 tmpfs "$1"
mount --bind "$2" /etc/hosts
hostname "$3"
ip link set lo up
sleep infinity & wait
"""
# As the kernel writes it.
LISTENS = "0A"


class Folder:
    """A host that is a folder only, on loopback with all others."""

    def __init__(self, name, folder):
        self.name, self.folder = name, folder
        self.folder.mkdir(parents=True)
        self._process, self._prefix = "self", []

    def bash(self, script, environment):
        """Run a block as a person would, in a shell of its own; what it leaves in the background goes on."""
        log = self.seen / "walk.log"
        with log.open("a") as file:
            command = [*self._prefix, "bash", "-euo", "pipefail", "-c", f'cd "{self.folder}"\n{script}']
            settings = {"env": environment, "stdin": subprocess.DEVNULL, "stdout": file, "stderr": file}
            # What it starts is then told from what runs this test.
            done = subprocess.run(command, check=False, start_new_session=True, **settings)
        assert done.returncode == 0, log.read_text()[-3000:]

    @property
    def seen(self):
        """Its folder as it is seen from outside."""
        return self.folder

    def listens(self, port):
        """Say whether a process of this host listens on a port."""
        return any(state == LISTENS for _, state in self._connections(port))

    def _connections(self, port):
        """Read of a port here with whom, and in which state, it is connected."""
        for line in Path(f"/proc/{self._process}/net/tcp").read_text().splitlines()[1:]:
            _, own, peer, state, *_ = line.split()
            if own.endswith(f":{int(port):04X}"):
                yield peer, state

    def stop(self):
        """End all that runs on it."""
        stop_groups(self.folder / "flower")
        if (pid := self.folder / "nginx.pid").exists():
            os.kill(int(pid.read_text()), 15)
        # First who would start the SuperNode again.
        kill_groups(marked("FEDCOF_CACHE", self.folder / "features"))


class Namespace(Folder):
    """A host with processes, a network, a name and a file system of its own."""

    def __init__(self, name, folder, hosts):
        super().__init__(name, folder)
        # It ends with who runs the tests, however that ends.
        command = ["setpriv", "--pdeathsig", "KILL", *UNSHARE, "--kill-child", "bash", "-c", _HOST, "host"]
        self._unshare = subprocess.Popen(
            [*command, folder, hosts, name], env={**os.environ, "PATH": _PATH}, start_new_session=True
        )
        assert until(self._is_up, self._unshare), f"{name} does not come up"
        (first,) = psutil.Process(self._unshare.pid).children()
        self._process = first.pid
        self._prefix = ["nsenter", "--target", str(first.pid), "--net", "--mount", "--uts", "--pid"]

    @property
    def seen(self):
        """Its folder as it is seen from outside."""
        return Path(f"/proc/{self._process}/root{self.folder}")

    def ip(self, *words):
        """Set up its network."""
        command = ["nsenter", "--target", str(self._process), "--net", "ip", *words]
        subprocess.run(command, check=True, env={**os.environ, "PATH": _PATH})

    def cable(self, other):
        """Lay a cable to another host, with the device ``line`` there and one of the host's name here."""
        self.ip("link", "add", other.name, "type", "veth", "peer", "name", "line", "netns", str(other._process))

    def line(self, other, *options):
        """Lay a line to another host that :mod:`tests.simulations.line` carries; gives its process."""
        command = ["nsenter", "--target", str(self._process), "--net", sys.executable, "-I", LINE, *options]
        command += ["--far", other.name, "--near", "line", "--process", str(other._process)]
        carrier = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PATH": _PATH})
        assert carrier.stdout.readline() == "ready\n"
        return carrier

    def peers(self, port):
        """Give the addresses of those that are connected to a port here."""
        theirs = [peer for peer, state in self._connections(port) if state != LISTENS]
        return {".".join(str(byte) for byte in reversed(bytes.fromhex(peer[:8]))) for peer in theirs}

    def stop(self):
        """End it with all that runs on it."""
        self._unshare.kill()
        self._unshare.wait()

    def _is_up(self):
        children = psutil.Process(self._unshare.pid).children()
        return any(child.children() for child in children if child.name() == "bash")


@cache
def why_not():
    """Say why no namespaces can be made here; nothing if they can."""
    missing = [
        tool for tool in ("unshare", "nsenter", "setpriv", "ip", "nginx") if not shutil.which(tool, path=_PATH)
    ]
    if missing:
        return f"there is no {missing[0]} here"
    tried = [*UNSHARE, "--fork", "sh", "-c"]
    tried.append(
        "mount -t tmpfs tmpfs /mnt && ip link add name veth-a type veth && ip tuntap add dev tun-a mode tun"
    )
    done = subprocess.run(tried, capture_output=True, text=True, check=False, env={**os.environ, "PATH": _PATH})
    return f"no namespaces can be made here: {done.stderr.strip()[:200]}" if done.returncode else ""


@contextmanager
def namespaces(folder):
    """Give a server and three sites: one beside it, one over a slow and lossy line, one behind a router.

    Parameters
    ----------
    folder : Path
        Where their folders are mounted, each of which only the host itself sees.

    Yields
    ------
    dict of str to Namespace
        By their names.
    """
    folder.mkdir()
    known = folder / "hosts"
    known.write_text(f"127.0.0.1 localhost\n{SERVER} {NAME}\n")
    hosts, carriers = {}, []
    try:
        for name in ("server", *SEEN):
            hosts[name] = Namespace(name, folder / name, known)
        server, direct, slow, behind = hosts.values()
        server.ip("address", "add", f"{SERVER}/32", "dev", "lo")
        server.cable(direct)
        carriers.append(server.line(slow, *SLOW_AND_LOSSY))
        carriers.append(server.line(behind, "--address", SEEN[behind.name]))
        for site in (direct, slow, behind):
            address = BEHIND if site is behind else SEEN[site.name]
            server.ip("link", "set", site.name, "up")
            # Of the address behind the router nobody here knows the way.
            server.ip("route", "add", SEEN[site.name], "dev", site.name)
            site.ip("link", "set", "line", "up")
            site.ip("address", "add", f"{address}/32", "dev", "line")
            site.ip("route", "add", "default", "dev", "line", "src", address)
        yield hosts
    finally:
        for carrier in carriers:
            carrier.kill()
            carrier.wait()
            carrier.stdout.close()
        for host in hosts.values():
            host.stop()


@contextmanager
def folders(folder):
    """Give a server and three sites that are folders; see :func:`namespaces`."""
    hosts = {name: Folder(name, folder / name) for name in ("server", *SEEN)}
    try:
        yield hosts
    finally:
        for host in hosts.values():
            host.stop()
