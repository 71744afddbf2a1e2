"""A line between two network namespaces: it takes its time, loses packets, and may hide who is behind it.

What tc's netem and a router's masquerading do, for kernels without the one and machines without the other.
Run it in the far namespace, with the number of a process in the near one: it says ``ready`` once both have a
device.
"""

import argparse
import fcntl
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time
from collections import deque

TUNSETIFF, TUN_WITHOUT_HEADER = 0x400454CA, 0x0001 | 0x1000
LONGEST_PACKET = 65536
SOURCE, DESTINATION = 12, 16
IP_CHECKSUM = 10
# Where each protocol's header has its checksum.
CHECKSUMS = {socket.IPPROTO_TCP: 16, socket.IPPROTO_UDP: 6}


def open_device(name):
    """Make a device that hands its packets over."""
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", name.encode(), TUN_WITHOUT_HEADER))
    return device


def readdressed(packet, place, address):
    """Give an IPv4 packet another source or destination, and the checksums that go with it (RFC 1624)."""
    changed = bytearray(packet)
    before = bytes(changed[place : place + 4])
    changed[place : place + 4] = address
    header = 4 * (packet[0] & 15)
    checksums = [IP_CHECKSUM, *(header + at for at in [CHECKSUMS.get(packet[9])] if at is not None)]
    for at in checksums:
        total = 0xFFFF & ~struct.unpack_from("!H", changed, at)[0]
        total += sum(0xFFFF & ~word for word in struct.unpack("!2H", before)) + sum(struct.unpack("!2H", address))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        struct.pack_into("!H", changed, at, 0xFFFF & ~total)
    return bytes(changed)


class Router:
    """Lets out what comes from near, under an address of its own, and in only what answers it."""

    def __init__(self, address):
        self._address = socket.inet_aton(address)
        self._inside = {}

    def out(self, packet):
        """Give a packet as the far side sees it."""
        ours, theirs = self._ports(packet)
        self._inside[packet[9], ours, packet[DESTINATION : DESTINATION + 4], theirs] = packet[SOURCE : SOURCE + 4]
        return readdressed(packet, SOURCE, self._address)

    def back(self, packet):
        """Give a packet as the near side sees it; None for one that nobody there has asked for."""
        theirs, ours = self._ports(packet)
        inside = self._inside.get((packet[9], ours, packet[SOURCE : SOURCE + 4], theirs))
        return inside and readdressed(packet, DESTINATION, inside)

    def _ports(self, packet):
        header = 4 * (packet[0] & 15)
        return packet[header : header + 2], packet[header + 2 : header + 4]


def carry(near, far, delay, loss, router):
    """Carry packets until a side is gone."""
    chance, waiting = random.Random(0), deque()
    while True:
        due = max(waiting[0][0] - time.monotonic(), 0) if waiting else None
        for device in select.select([near, far], [], [], due)[0]:
            packet = os.read(device, LONGEST_PACKET)
            if packet[0] >> 4 != 4 or chance.random() < loss:
                continue
            if router:
                packet = router.out(packet) if device == near else router.back(packet)
            if packet:
                waiting.append((time.monotonic() + delay, far if device == near else near, packet))
        while waiting and waiting[0][0] <= time.monotonic():
            _, device, packet = waiting.popleft()
            os.write(device, packet)


def main():
    """Make the two devices and carry."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--far", required=True, help="name of the device here")
    parser.add_argument("--near", required=True, help="name of the device there")
    parser.add_argument("--process", required=True, help="number of a process there")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds that a packet takes")
    parser.add_argument("--loss", type=float, default=0.0, help="share of packets that are lost")
    parser.add_argument("--address", default="", help="IPv4 address that the near side is seen under")
    asked = parser.parse_args()
    far, near = open_device(asked.far), open_device(asked.near)
    subprocess.run(["ip", "link", "set", asked.near, "netns", asked.process], check=True)
    print("ready", flush=True)
    try:
        carry(near, far, asked.delay, asked.loss, Router(asked.address) if asked.address else None)
    except OSError as error:
        sys.exit(f"the line is gone: {error}")


if __name__ == "__main__":
    main()
