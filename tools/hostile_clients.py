"""``python -m tools.hostile_clients [--clients 10000] [--seed N] [DEVICE ...]``: clients that keep no rule.

They are of ``acrn-dm-export vhost-user``, while another device of the same process is used. A client says what a good
one does, but leaves out, repeats, exchanges and bends its messages, brings descriptors of the wrong kind or none,
memory that overlaps or that it shortens, rings full of noise; then it floods, stops in the middle of a message, or
leaves. Behind each of them a driver of the other device (entropy) has to get an answer within ten seconds, and now and
then a good client has to be served by the very device. At the end the process has as many descriptors as before, and
has not grown.
"""

import argparse
import contextlib
import mmap
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs

from acrn_dm.backends.wire import message as wire
from acrn_dm.backends.wire import payload
from acrn_dm.backends.wire.message import HEADER, Request
from acrn_dm.ring.driver import DriverRing
from acrn_dm.ring.layout import RingLayout

DEVICES = ("virtio-rnd", "virtio-console,@file:port0={folder}/out", "virtio-blk,mq=2,{folder}/disk")
WITNESS = "virtio-rnd"
MEMORY, USER, RINGS = 1 << 20, 0x7F00_0000_0000, 3
VERSION_1 = 1 << 32
PATIENCE_S = 10.0
CHECK_EACH = 25  # clients between two looks at the device itself
WARM = 50  # clients before the process is measured: what is made once is there by then
GROWTH_MIB, MORE_DESCRIPTORS = 24, 4
FLOOD = 500

Step = tuple[bytes, list[int]]  # a message, and the descriptors beside it


class Broken(Exception):
    """What must not have happened, in words."""


def connected(path: Path) -> socket.socket:
    """A connection; those who came before may have to be accepted first. Raises Broken."""
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(PATIENCE_S)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            peer.connect(str(path))
            return peer
        except BlockingIOError:
            if time.monotonic() > deadline:
                peer.close()
                raise Broken(f"nobody was accepted for {PATIENCE_S:g} s") from None
            time.sleep(0.001)


@attrs.define(eq=False)
class GoodClient:
    """A client that keeps the rules, with memory of its own; also its driver's ``RingMemory``."""

    peer: socket.socket
    fd: int
    ram: mmap.mmap
    _ring: DriverRing | None = None
    _eventfds: list[int] = attrs.field(factory=list)

    @classmethod
    def connect(cls, path: Path) -> "GoodClient":
        """Raises Broken when nobody takes it."""
        peer = connected(path)
        fd = os.memfd_create("good")
        os.ftruncate(fd, MEMORY)
        return cls(peer, fd, mmap.mmap(fd, MEMORY))

    def close(self) -> None:
        """Leave."""
        self.peer.close()
        self.ram.close()
        for fd in (self.fd, *self._eventfds):
            os.close(fd)

    def read(self, gpa: int, length: int) -> bytes:
        """From its memory."""
        return self.ram[gpa : gpa + length]

    def write(self, gpa: int, data: bytes) -> None:
        """To its memory."""
        self.ram[gpa : gpa + len(data)] = data

    def queues(self) -> int:
        """How many the device has. Raises Broken where there is no answer."""
        self.peer.sendall(wire.encode(Request.GET_QUEUE_NUM))
        answer = b""
        try:
            while len(answer) < HEADER.size + 8:
                part = self.peer.recv(HEADER.size + 8 - len(answer))
                if not part:
                    raise Broken("a good client was left")
                answer += part
        except OSError as e:
            raise Broken(f"a good client was not answered: {e}") from e
        return int.from_bytes(answer[HEADER.size :], "little")

    def start(self) -> None:
        """Have ring 0 served."""
        layout = RingLayout.at(0x10000, 64)
        self._ring = DriverRing(self, layout, event_idx=False)
        self._eventfds = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2)]
        for data, fds in conversation(layout, self.fd, [MEMORY], 1, self._eventfds):
            socket.send_fds(self.peer, [data], fds)
        self.queues()

    def entropy(self) -> float:
        """Seconds until a request of 64 bytes was answered. Raises Broken."""
        assert self._ring is not None
        self._ring.add_chain(in_=[(0x80000, 64)])
        self._ring.publish()
        began = time.monotonic()
        os.eventfd_write(self._eventfds[0], 1)
        while not self._ring.used():
            if time.monotonic() > began + PATIENCE_S:
                raise Broken(f"the other device did not answer within {PATIENCE_S:g} s")
            time.sleep(0.0005)
        return time.monotonic() - began


def conversation(layout: RingLayout, memory: int, sizes: Sequence[int], rings: int, eventfds: list[int]) -> list[Step]:
    """What a client says until *rings* of its rings run; its memory has regions of *sizes*, all of the same file."""
    regions, gpa = [], 0
    for size in sizes:
        regions.append(payload.region(gpa, size, USER + gpa, 0))
        gpa += size
    steps: list[Step] = [
        (wire.encode(Request.SET_OWNER), []),
        (wire.encode(Request.SET_PROTOCOL_FEATURES, wire.U64.pack(0)), []),
        (wire.encode(Request.SET_FEATURES, wire.U64.pack(VERSION_1 | wire.PROTOCOL_FEATURES)), []),
        (wire.encode(Request.SET_MEM_TABLE, payload.memory_table(regions)), [memory] * len(regions)),
    ]
    addresses = {"desc": USER + layout.desc, "avail": USER + layout.avail, "used": USER + layout.used}
    for index in range(rings):
        state = payload.VRING_STATE
        kick, call = eventfds[2 * index : 2 * index + 2]
        steps += [
            (wire.encode(Request.SET_VRING_NUM, state.pack(index, 64)), []),
            (wire.encode(Request.SET_VRING_BASE, state.pack(index, 0)), []),
            (wire.encode(Request.SET_VRING_ADDR, payload.vring_addr(index, **addresses)), []),
            (wire.encode(Request.SET_VRING_CALL, payload.vring_fd(index)), [call]),
            (wire.encode(Request.SET_VRING_KICK, payload.vring_fd(index)), [kick]),
            (wire.encode(Request.SET_VRING_ENABLE, state.pack(index, 1)), []),
        ]
    return steps


@attrs.define(eq=False)
class HostileClient:
    """One of them, as the dice fall."""

    dice: random.Random
    _fds: list[int] = attrs.field(factory=list)

    def attack(self, path: Path) -> None:
        """Connect, do harm, leave. Raises Broken when the server keeps it waiting."""
        dice = self.dice
        memory = os.memfd_create("hostile")
        self._fds = [memory, *(os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2 * RINGS)), os.open("/", os.O_RDONLY)]
        os.ftruncate(memory, MEMORY)
        os.pwrite(memory, dice.randbytes(MEMORY // 16), dice.choice((0, 0x10000)))
        sizes = [dice.choice((0, 1, 4096, MEMORY // 2, MEMORY, 1 << 40)) if dice.random() < 0.2 else MEMORY // 2] * 2
        steps = conversation(RingLayout.at(0x10000, 64), memory, sizes, dice.randint(1, RINGS), self._fds[1:-1])
        try:
            with connected(path) as peer, contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._say(peer, self._bent(steps))
                self._leave(peer, memory)
        except TimeoutError as e:
            raise Broken(f"the device took nothing for {PATIENCE_S:g} s") from e
        finally:
            for fd in self._fds:
                os.close(fd)

    def _bent(self, steps: list[Step]) -> Iterator[Step]:
        """The steps, but for what the dice do to them."""
        dice = self.dice
        if dice.random() < 0.3:
            at = dice.randrange(len(steps) - 1)
            steps[at], steps[at + 1] = steps[at + 1], steps[at]
        harm = dice.choice((0.0, 0.05, 0.3))
        for data, fds in steps:
            if dice.random() >= harm:
                yield data, fds
                continue
            kind = dice.randrange(6)
            if kind == 0:
                continue  # left out
            if kind == 1:
                yield from [(data, fds)] * dice.randint(2, 5)
            elif kind == 2:
                bent = bytearray(data)
                bent[dice.randrange(len(bent))] = dice.randrange(256)
                yield bytes(bent), fds
            elif kind == 3:
                yield data, [dice.choice(self._fds) for _ in range(dice.randint(0, 8))]
            elif kind == 4:
                code = dice.choice((*Request, 0, 99, 1 << 31))
                yield wire.encode(code, dice.randbytes(dice.choice((0, 4, 8, 32, 40)))), fds[:1]
            else:
                yield HEADER.pack(dice.randrange(41), 1, dice.choice((0, 7, 4096, 4097, 0xFFFF_FFFF))), fds

    def _say(self, peer: socket.socket, steps: Iterator[Step]) -> None:
        for data, fds in steps:
            socket.send_fds(peer, [data], fds)

    def _leave(self, peer: socket.socket, memory: int) -> None:
        """One of the ways out, behind a kick or without memory."""
        dice = self.dice
        way = dice.randrange(6)
        if way == 0:
            self._await_answer(peer)  # what was said has been done by then, where it is not refused
            os.ftruncate(memory, dice.choice((0, 4096, 0x10000)))
        if way < 4:
            for kick in self._fds[1:-1:2]:
                os.eventfd_write(kick, 1)
            time.sleep(dice.random() * 0.002)
        if way == 3:
            peer.sendall(wire.encode(Request.GET_FEATURES) * FLOOD)  # whose answers nobody reads
        if way == 4:
            peer.sendall(wire.encode(Request.SET_MEM_TABLE, bytes(40))[: dice.randrange(1, 40)])
        if way == 5:
            peer.shutdown(socket.SHUT_WR)

    @staticmethod
    def _await_answer(peer: socket.socket) -> None:
        """To a question; a server that takes it for a part of something bent does not answer."""
        peer.sendall(wire.encode(Request.GET_FEATURES))
        peer.settimeout(0.1)
        with contextlib.suppress(TimeoutError):
            peer.recv(4096)
        peer.settimeout(PATIENCE_S)


@attrs.define(eq=False)
class Exporter:
    """The process, with the device to be attacked and the one that is used meanwhile."""

    module: str
    device: str
    folder: Path
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def attacked(self) -> Path:
        """Its socket."""
        return self.folder / "attacked"

    @property
    def used(self) -> Path:
        """The other's."""
        return self.folder / "used"

    def start(self) -> None:
        """Start it, and wait until it listens. Raises Broken."""
        (self.folder / "disk").write_bytes(bytes(1 << 20))
        words = [self.device.format(folder=self.folder), WITNESS]
        sockets = [f"--socket-path={path}" for path in (self.attacked, self.used)]
        argv = [sys.executable, "-m", self.module, "vhost-user", *words, *sockets]
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while not self.used.exists():
            self.check_alive()
            if time.monotonic() > deadline:
                raise Broken("it did not start")
            time.sleep(0.02)

    def check_alive(self) -> None:
        """Raises Broken."""
        assert self.process is not None
        if self.process.poll() is not None:
            said = (self.folder / "log").read_text(errors="replace")[-1500:]
            raise Broken(f"the process ended with {self.process.returncode}: {said}")

    def descriptors(self) -> int:
        """How many it has open."""
        assert self.process is not None
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def mebibytes(self) -> float:
        """What it has in memory of its own."""
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition("RssAnon:")[2].split()[0]) / 1024

    def stop(self) -> None:
        """SIGTERM, which it ends upon with 0. Raises Broken."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Broken("SIGTERM did not end it within 30 s") from None
        if status:
            raise Broken(f"it ended with {status}")


@attrs.define
class Tally:
    """Of one device."""

    clients: int = 0
    answers: int = 0
    slowest: float = 0.0
    before: tuple[int, float] = (0, 0.0)
    after: tuple[int, float] = (0, 0.0)


def look_at(exporter: Exporter) -> None:
    """The device itself serves a good client. Raises Broken."""
    good = GoodClient.connect(exporter.attacked)
    try:
        if good.queues() < 1:
            raise Broken("the device has no queues any more")
    finally:
        good.close()


def settled(exporter: Exporter, wanted: int) -> tuple[int, float]:
    """Descriptors and memory, once the last clients are forgotten."""
    deadline = time.monotonic() + PATIENCE_S
    while exporter.descriptors() > wanted and time.monotonic() < deadline:
        time.sleep(0.02)
    return exporter.descriptors(), exporter.mebibytes()


def run(module: str, device: str, folder: Path, clients: int, seed: int) -> Tally:
    """Attack *device* with *clients*, whose dice are of seeds from *seed* on. Raises Broken."""
    exporter, tally = Exporter(module, device, folder), Tally()
    exporter.start()
    witness = GoodClient.connect(exporter.used)
    try:
        witness.start()
        for n in range(clients):
            HostileClient(random.Random(seed + n)).attack(exporter.attacked)
            try:
                tally.slowest = max(tally.slowest, witness.entropy())
            finally:
                exporter.check_alive()  # why there was no answer, if it ended
            tally.clients, tally.answers = n + 1, tally.answers + 1
            if n % CHECK_EACH == CHECK_EACH - 1:
                look_at(exporter)
            if n + 1 == min(WARM, clients // 2):
                tally.before = exporter.descriptors(), exporter.mebibytes()
        look_at(exporter)
        tally.after = settled(exporter, tally.before[0])
        refuse_growth(tally)
        exporter.stop()
    except Broken as e:
        raise Broken(f"client {tally.clients}, seed {seed + tally.clients}: {e}") from e
    finally:
        witness.close()
        if exporter.process is not None and exporter.process.poll() is None:
            exporter.process.kill()
            exporter.process.wait()
    return tally


def refuse_growth(tally: Tally) -> None:
    """Raise Broken where the exporter has become larger."""
    if tally.after[0] > tally.before[0] + MORE_DESCRIPTORS:
        raise Broken(f"{tally.before[0]} descriptors have become {tally.after[0]}")
    if tally.after[1] > tally.before[1] + GROWTH_MIB:
        raise Broken(f"{tally.before[1]:.0f} MiB have become {tally.after[1]:.0f}")


def attack_all(
    arguments: Sequence[str],
    run: Callable[[str, str, Path, int, int], Tally],
    *,
    text: str,
    devices: Sequence[str],
    answers: str,
) -> int:
    """Do *run* for each device, and say what came of it; *answers* is what a tally's are. 0 when nothing broke."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument(
        "devices", nargs="*", metavar="DEVICE", help="as behind acrn-dm -s SLOT,; {folder} is its folder"
    )
    parser.add_argument("--clients", type=int, default=10_000, help="of each device (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--module", default="acrn_dm.export.cli", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    status = 0
    for device in options.devices or devices:
        with tempfile.TemporaryDirectory() as folder:
            try:
                tally = run(options.module, device, Path(folder), options.clients, options.seed)
            except Broken as e:
                print(f"{device}: {e}")
                status = 1
            else:
                print(
                    f"{device}: {tally.clients} hostile clients, {tally.answers} {answers}, "
                    f"the slowest in {tally.slowest:.2f} s; descriptors {tally.before[0]} -> {tally.after[0]}, "
                    f"{tally.before[1]:.0f} -> {tally.after[1]:.0f} MiB"
                )
    return status


def main(arguments: Sequence[str]) -> int:
    """0 when nothing broke."""
    assert __doc__ is not None
    text = __doc__.partition("\n\n")[2]
    return attack_all(arguments, run, text=text, devices=DEVICES, answers="answers of the other device")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
