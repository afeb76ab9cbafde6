"""A stock guest whose consoles' readers are connected and do not read: it goes on, and its third port answers.

hvc spins with a lock held and interrupts off until its output is taken: on a pty, and on a socket. The consoles are a
process of ours behind a newer QEMU's generic device.
"""

import contextlib
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from acrn_dm.testing.guest.kernels.debian import Kernel
from lab.qemu.guest import QemuGuest, at
from tests.backends.user.user_rig import Daemon
from tests.lab.peers.exports import export, started

pytestmark = pytest.mark.lab

ANSWER_LIMIT = 60.0  # seconds until an answer that is too late counts as none
STALL_LIMIT = 60.0  # until both consoles have dropped output: nothing but what the guest prints fills them
PING_S = 0.05  # between two orders
IDLE_S = 2.0
END = b"THE END\n"
TOO_SLOW = "its reader is too slow"
DEVICE = "vhost-user-test-device-pci,virtio-id=3,num_vqs=8,vq_size=64,config_size=12,chardev=ports"
# Prints on the consoles as told over the port named "chan", and answers each order by repeating it. The consoles are
# open until the end: a terminal that nobody has open forgets that it is raw, and cooked output goes line by line.
OBEY = r"""
chan=$(port_named chan)
exec 4<> /dev/hvc0 5<> /dev/hvc1 6<> $chan
stty raw -echo <&4
stty raw -echo <&5
while :; do
    if ! read -r order number <&6; then usleep 50000; continue; fi
    case $order in
        flood) dd if=/dev/zero bs=4k >&4 & dd if=/dev/zero bs=4k >&5 & ;;
        hush) killall -9 dd; wait; echo "THE END" >&4; echo "THE END" >&5 ;;
        off) poweroff -f ;;
    esac
    echo "$order $number" >&6
done
"""


@attrs.define(eq=False)
class Scene:
    """The guest, the process of its consoles, and our ends of them."""

    guest: QemuGuest
    pid: Path  # a file with QEMU's
    daemon: Daemon
    one: int
    two: socket.socket
    chan: socket.socket
    numbers: int = 0

    def order(self, word: str) -> float:
        """Give an order; returns how long the guest took to answer."""
        self.numbers += 1
        line = f"{word} {self.numbers}\n".encode()
        begin = time.monotonic()
        self.chan.sendall(line)
        answer = b""
        while not answer.endswith(b"\n"):
            answer += self.chan.recv(100)
        assert answer == line
        return time.monotonic() - begin

    def cpu_seconds(self) -> float:
        """Of QEMU, its processors included, and of our process."""
        assert self.daemon.process is not None
        pids = [self.daemon.process.pid, int(self.pid.read_text())]
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
        return sum(int(words[11]) + int(words[12]) for words in fields) / os.sysconf("SC_CLK_TCK")

    def stalled(self) -> int:
        """How many consoles have dropped output."""
        return self.daemon.log.read_text().count(TOO_SLOW)


@pytest.fixture(params=[1, 2])
def scene(lab_kernel: Kernel, qemu: list[str], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """With so many processors."""
    ports = f"virtio-console,@pty:one,@socket:two={tmp_path}/two,socket:chan={tmp_path}/chan"
    daemon = export(tmp_path, "ports", ports)
    words = [*at("ports", tmp_path, again=False), "-device", DEVICE, "-pidfile", str(tmp_path / "pid")]
    with contextlib.ExitStack() as stack:
        stack.enter_context(started([daemon]))
        guest = QemuGuest.boot(lab_kernel, tmp_path, words, qemu=qemu, board="q35", cpus=request.param)
        stack.callback(guest.end)
        assert guest.run("nproc") == str(request.param)
        path = re.search(r"port one: (/dev/pts/\d+)", daemon.log.read_text())
        assert path is not None, daemon.log.read_text()
        one = os.open(path[1], os.O_RDWR | os.O_NOCTTY)
        stack.callback(os.close, one)
        two, chan = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        two.connect(str(tmp_path / "two"))
        chan.connect(str(tmp_path / "chan"))
        chan.settimeout(ANSWER_LIMIT)
        guest.run(f"until port_named chan; do usleep 10000; done; ({OBEY}) > /dev/null 2>&1 &")
        yield Scene(guest=guest, pid=tmp_path / "pid", daemon=daemon, one=one, two=two, chan=chan)


def share(scene: Scene, what: Callable[[], object]) -> float:
    """How much of a processor the two processes have while *what* is done."""
    cpu, begin = scene.cpu_seconds(), time.monotonic()
    what()
    return (scene.cpu_seconds() - cpu) / (time.monotonic() - begin)


def last_words(fd: int) -> bool:
    """Read on until the guest's last words; False when they do not come."""
    os.set_blocking(fd, False)
    seen, deadline = b"", time.monotonic() + ANSWER_LIMIT
    while not seen.endswith(END) and time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            seen = seen[-len(END) :] + os.read(fd, 65536)
            continue
        time.sleep(0.01)
    return seen.endswith(END)


def test_guest_goes_on_and_its_third_port_answers_within_a_second(scene: Scene) -> None:
    scene.order("ping")  # which waits until somebody obeys
    times = [scene.order("ping"), scene.order("flood")]
    until = time.monotonic() + STALL_LIMIT
    while scene.stalled() < 2 and time.monotonic() < until:
        times.append(scene.order("ping"))
        time.sleep(PING_S)
    times += [scene.order("ping") for _ in range(20)]
    times.append(scene.order("hush"))
    idle = share(scene, lambda: time.sleep(IDLE_S))  # with readers still stopped and everything full
    times.append(scene.order("ping"))
    print(f"slowest of {len(times)} {max(times):.3f} s, idle {idle:.2f}")
    assert scene.stalled() == 2, "both consoles got so far that output was dropped"
    assert max(times) < 1.0
    assert idle < 0.5
    assert [last_words(fd) for fd in (scene.one, scene.two.fileno())] == [True, True]
    scene.chan.sendall(b"off 0\n")
    assert scene.guest.process.wait(ANSWER_LIMIT).rc == 0
