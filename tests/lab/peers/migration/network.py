"""A switch that both cards of a guest that moves are at, and a station on it that asks the guest for echoes without
end.
"""

import contextlib
import itertools
import random
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence

import attrs
import pytest

from tests.lab.peers.packet_ways import taps

GUEST_MAC, STATION_MAC = "52:54:00:12:34:56", "02:00:00:00:00:02"
GUEST_IP, STATION_IP = "10.0.0.1", "10.0.0.2"
ECHO_REPLY, ECHO = 0, 8
PAYLOAD = 1400
WINDOW = 16
LATE_S = 0.3  # what is not answered by then is lost: there is no guest at the moment, or the switch does not know where
ETHER_IP, ETHER_ARP = 0x0800, 0x0806
NUMBERS = itertools.count()  # of switches
IP = struct.Struct(">BBHHHBBH4s4s")
ICMP = struct.Struct(">BBHHH")


def checksum(data: bytes) -> int:
    """Of RFC 1071."""
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def echo_request(number: int, payload: bytes) -> bytes:
    """A frame of the station's to the guest."""
    icmp = ICMP.pack(ECHO, 0, 0, 1, number) + payload
    icmp = icmp[:2] + struct.pack(">H", checksum(icmp)) + icmp[4:]
    addresses = socket.inet_aton(STATION_IP), socket.inet_aton(GUEST_IP)
    ip = IP.pack(0x45, 0, IP.size + len(icmp), number, 0, 64, socket.IPPROTO_ICMP, 0, *addresses)
    ip = ip[:10] + struct.pack(">H", checksum(ip)) + ip[12:]
    return octets(GUEST_MAC) + octets(STATION_MAC) + struct.pack(">H", ETHER_IP) + ip + icmp


@attrs.define(eq=False)
class Station:
    """Asks for echoes, some at a time, as long as it runs."""

    wire: socket.socket
    echoes: int = 0  # that were what was asked for
    wrong: list[bytes] = attrs.field(factory=list)
    announced: int = 0  # the guest's own words on where it is
    _bodies: list[bytes] = attrs.field(init=False)
    _stopped: threading.Event = attrs.field(factory=threading.Event, init=False)

    def __attrs_post_init__(self) -> None:
        chance = random.Random(7)
        self._bodies = [chance.randbytes(PAYLOAD) for _ in range(256)]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run, name="station")
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()

    def _run(self) -> None:
        waiting: dict[int, float] = {}
        numbers = itertools.cycle(range(1 << 16))
        frames = [echo_request(number, self._bodies[number % 256]) for number in range(1 << 10)]
        self.wire.settimeout(0.05)
        while not self._stopped.is_set():
            now = time.monotonic()
            waiting = {number: since for number, since in waiting.items() if now - since < LATE_S}
            while len(waiting) < WINDOW:
                number = next(numbers) % len(frames)
                waiting[number] = now
                self.wire.send(frames[number])
            with contextlib.suppress(TimeoutError):
                self._take(self.wire.recv(2048), waiting)

    def _take(self, frame: bytes, waiting: dict[int, float]) -> None:
        (kind,) = struct.unpack_from(">H", frame, 12)
        if frame[6:12] != octets(GUEST_MAC):
            return
        if kind == ETHER_ARP:
            self.announced += frame[28:32] == frame[38:42] == socket.inet_aton(GUEST_IP)
        elif kind == ETHER_IP and frame[14 + 9] == socket.IPPROTO_ICMP and frame[34] == ECHO_REPLY:
            (number,) = struct.unpack_from(">H", frame, 40)
            waiting.pop(number, None)
            if frame[42:] == self._bodies[number % 256]:
                self.echoes += 1
            else:
                self.wrong.append(frame)


@contextlib.contextmanager
def network(ports: int) -> Iterator[tuple[list[str], Station]]:
    """The taps at the switch's ports, and the station. Skips where none can be made."""
    if shutil.which("ip") is None:
        pytest.skip("needs iproute2")
    with taps(ports, 1500) as names, switch(names) as name:
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        with wire:
            wire.bind((name, 3))
            station = Station(wire)
            with station.running():
                yield names, station


@contextlib.contextmanager
def switch(ports: Sequence[str]) -> Iterator[str]:
    """A bridge of these; it learns where its stations are from what they send, and forgets nothing within a test."""
    name = f"{ports[0]}b{next(NUMBERS)}"[-15:]
    options = ["stp_state", "0", "forward_delay", "0", "ageing_time", "30000", "mcast_snooping", "0"]
    made = subprocess.run(["ip", "link", "add", name, "type", "bridge", *options], check=False, capture_output=True)
    if made.returncode != 0:
        pytest.skip(f"no bridge can be made here: {made.stderr.decode().strip()}")
    try:
        for words in (
            [name, "address", STATION_MAC, "addrgenmode", "none", "up"],
            *([port, "master", name] for port in ports),
        ):
            subprocess.run(["ip", "link", "set", *words], check=True)
        yield name
    finally:
        subprocess.run(["ip", "link", "del", name], check=False)
