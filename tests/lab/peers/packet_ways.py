"""DPDK's ways of moving frames, by its driver of virtio cards (``virtio_user``), and what goes over each of them.

Each card of ours stands on a tap. Frames that come in there go to testpmd, which sends them back; they are all
looked at byte for byte where they leave the tap.
"""

import contextlib
import itertools
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import pytest

from tests.backends.user.user_rig import Daemon
from tests.patience import comes_true

EAL = ("--no-pci", "--no-telemetry", "--no-huge", "--no-shconf", "-m", "384", "--log-level=pmd.net.virtio.*,info")
FORWARD = ("--auto-start", "--forward-mode=io", "--port-topology=loop", "--no-mlockall", "--total-num-mbufs=16384")
CHOSEN = re.compile(r"virtio: using (.+) (Rx|Tx) path on port (\d+)")
FIRST = 1 << 32  # numbers of frames that ask whether the way is open
ETHERTYPE = 0x88B5  # for local experiments
ADDRESSES = bytes.fromhex("020000000001 020000000002") + ETHERTYPE.to_bytes(2, "big")
SHORTEST, STANDARD, JUMBO = 60, 1514, 9014
# Frames on their way, so few that a ring of testpmd's has room (256 places, of which a long frame takes six): none is
# dropped.
WINDOWS = {STANDARD: 128, JUMBO: 32}
BODIES = 251  # prime to the sizes of rings: a buffer sees other frames at each lap
NUMBERS = itertools.count()  # of taps
PATIENCE_S = 20.0
RECEIVE_BYTES = 32 << 20


@attrs.frozen(kw_only=True)
class Way:
    """What is asked of the driver, and by which names in its log it is seen to have done so."""

    asked: str
    receives: str
    sends: str
    needs: str = ""  # a flag of the processor
    ours: str = ""  # an option of our card

    def __str__(self) -> str:
        return self.asked


IN_ONE_BUFFER = (  # frames of up to 1514 bytes
    Way(asked="mrg_rxbuf=0,in_order=0", receives="standard", sends="standard"),
    Way(asked="mrg_rxbuf=0,in_order=1", receives="inorder", sends="inorder"),
    Way(asked="mrg_rxbuf=0,in_order=0,vectorized=1", receives="vectorized", sends="standard"),
    Way(asked="packed_vq=1,mrg_rxbuf=0,in_order=0", receives="packed ring standard", sends="packed ring standard"),
    Way(asked="packed_vq=1,mrg_rxbuf=0,in_order=1", receives="packed ring standard", sends="packed ring standard"),
    Way(
        asked="packed_vq=1,mrg_rxbuf=0,in_order=1,vectorized=1",
        receives="packed ring vectorized",
        sends="packed ring vectorized",
        needs="avx512f",
    ),
)
# Frames of up to 9014 bytes, five buffers of testpmd's. On packed rings its indirect tables say of buffers to be read
# that they are to be written, which is a driver's fault (2.8.17); what it puts into the ring itself is right.
IN_MERGED_BUFFERS = (
    Way(asked="mrg_rxbuf=1,in_order=0", receives="mergeable buffer", sends="standard"),
    Way(asked="mrg_rxbuf=1,in_order=1", receives="inorder", sends="inorder"),
    Way(
        asked="packed_vq=1,mrg_rxbuf=1,in_order=0",
        receives="packed ring mergeable buffer",
        sends="packed ring standard",
        ours=",indirect_desc=off",
    ),
    Way(
        asked="packed_vq=1,mrg_rxbuf=1,in_order=1",
        receives="packed ring mergeable buffer",
        sends="packed ring standard",
        ours=",indirect_desc=off",
    ),
)


def flags() -> set[str]:
    """What the processor has."""
    (line, *_) = re.findall(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return set(line.split())


def bodies(longest: int) -> list[bytes]:
    """Of the frames, by their numbers: noise of many lengths, that of the *longest* and of the shortest among them."""
    chance = random.Random(longest)
    room = longest - len(ADDRESSES) - 8
    least = SHORTEST - len(ADDRESSES) - 8
    sizes = [least, room, *(chance.randint(least, room) for _ in range(BODIES - 2))]
    return [chance.randbytes(size) for size in sizes]


@attrs.define(eq=False)
class Port:
    """The host's end of the tap that one of testpmd's cards stands on."""

    way: Way
    window: int
    bodies: Sequence[bytes]
    wire: socket.socket

    def frame(self, number: int) -> bytes:
        return b"%b%b%b" % (ADDRESSES, number.to_bytes(8, "little"), self.bodies[number % BODIES])

    def open(self) -> None:
        """Until the kernel has noticed that somebody is at the tap, frames that go in are dropped."""
        number = FIRST

        def answered() -> bool:
            nonlocal number
            self.wire.send(self.frame(number))
            number += 1
            return not self.is_silent()

        self.wire.setblocking(False)
        assert comes_true(answered, PATIENCE_S), f"no frame comes back on the way {self.way}"
        self.wire.settimeout(PATIENCE_S)
        self.wire.send(self.frame(0))
        while self.wire.recv(JUMBO) != self.frame(0):
            pass

    def round_trip(self, count: int) -> None:
        """Have *count* frames go in and come back, each as it was, once and in its turn."""
        send, receive, frame, window = self.wire.send, self.wire.recv, self.frame, self.window
        for number in range(min(window, count)):
            send(frame(number))
        for number in range(count):
            assert receive(JUMBO + 1) == frame(number), f"frame {number} on the way {self.way}"
            if number + window < count:
                send(frame(number + window))

    def is_silent(self) -> bool:
        """Whether there is no frame; one that is there is taken."""
        self.wire.setblocking(False)
        try:
            return not self.wire.recv(JUMBO)
        except BlockingIOError:
            return True


@contextlib.contextmanager
def taps(count: int, mtu: int) -> Iterator[list[str]]:
    """The names of so many interfaces that nobody else uses. Skips where none can be made."""
    if os.geteuid() != 0 or shutil.which("ip") is None or not Path("/dev/net/tun").exists():
        pytest.skip("needs root, iproute2 and /dev/net/tun")
    names = [f"dmw{os.getpid() % 100000}.{next(NUMBERS)}" for _ in range(count)]
    with contextlib.ExitStack() as stack:
        for name in names:
            made = subprocess.run(
                ["ip", "tuntap", "add", "mode", "tap", "name", name], check=False, capture_output=True
            )
            if made.returncode != 0:
                pytest.skip(f"no tap can be made here: {made.stderr.decode().strip()}")
            stack.callback(subprocess.run, ["ip", "link", "del", name], check=False)
            quiet = ["ip", "link", "set", name, "addrgenmode", "none", "mtu", str(mtu)]
            subprocess.run(quiet, check=True)
            subprocess.run(["ip", "link", "set", name, "up"], check=True)
        yield names


@contextlib.contextmanager
def forwarding(ways: Sequence[Way], sockets: Sequence[Path], log: Path, *words: str) -> Iterator[list[tuple[str, str]]]:
    """testpmd with a card of each way at each of *sockets*; what it receives by and sends by, of each port."""
    cards = []
    for number, (way, path) in enumerate(zip(ways, sockets, strict=True)):
        cards += ["--vdev", f"net_virtio_user{number},path={path},{way.asked}"]
    vectors = ["--force-max-simd-bitwidth=512"] if any(way.needs for way in ways) else []
    argv = ["dpdk-testpmd", "-l", "0,1", *EAL, *vectors, *cards, "--", *FORWARD, "--stats-period=60", *words]
    with running(argv, log) as process:
        yield _chosen(process, log, len(ways))


@contextlib.contextmanager
def running(argv: Sequence[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """testpmd. Skips where there is none."""
    if shutil.which("dpdk-testpmd") is None or (os.cpu_count() or 1) < 2:
        pytest.skip("needs dpdk-testpmd (Debian package dpdk-dev) and two CPUs")
    with log.open("wb") as told:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=told, stderr=told)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _chosen(process: "subprocess.Popen[bytes]", log: Path, ports: int) -> list[tuple[str, str]]:
    found: dict[tuple[int, str], str] = {}
    until = time.monotonic() + PATIENCE_S
    while len(found) < 2 * ports:
        text = log.read_text(errors="replace")
        assert process.poll() is None, text[-2000:]
        assert time.monotonic() < until, text[-2000:]
        found = {(int(port), kind): name for name, kind, port in CHOSEN.findall(text)}
        time.sleep(0.02)
    return [(found[port, "Rx"], found[port, "Tx"]) for port in range(ports)]


@contextlib.contextmanager
def cards_of(names: Sequence[str], ways: Sequence[Way], folder: Path) -> Iterator[list[Path]]:
    """The sockets of one process that serves a card on each of the taps *names*."""
    words = [f"virtio-net,tap={name}{way.ours}" for name, way in zip(names, ways, strict=True)]
    paths = [folder / f"card{number}" for number in range(len(names))]
    with serving(["vhost-user", *words, *(f"--socket-path={path}" for path in paths)], paths[-1]):
        yield paths


@contextlib.contextmanager
def serving(words: Sequence[str], last: Path) -> Iterator[None]:
    """acrn-dm-export, from when it listens at the *last* of its sockets; it has to be there still at the end."""
    daemon = Daemon([sys.executable, "-m", "acrn_dm.export.cli", *words], last, last.with_name("export.log"))
    daemon.start()
    try:
        yield
        assert daemon.process is not None
        assert daemon.process.poll() is None, daemon.log.read_text()
    finally:
        daemon.kill()


@contextlib.contextmanager
def wires(names: Sequence[str], ways: Sequence[Way], longest: int) -> Iterator[list[Port]]:
    """The host's ends."""
    contents = bodies(longest)
    with contextlib.ExitStack() as stack:
        ports = []
        for name, way in zip(names, ways, strict=True):
            wire = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE)))
            wire.setsockopt(socket.SOL_SOCKET, 33, RECEIVE_BYTES)  # SO_RCVBUFFORCE
            wire.bind((name, ETHERTYPE))
            ports.append(Port(way=way, window=WINDOWS[longest], bodies=contents, wire=wire))
        yield ports
