"""Another program on a tap that ours has used, run by
``unshare -nm python -m tests.devices.virtio_net.tap_neighbour WAY``.

It makes a tap that stays, has ours use it, then forwards plain frames between it and a tap in a second network
namespace, as a program does that knows nothing of packet headers, and sends a megabyte by TCP each way across. WAY is
how ours ends: ``never`` it does not begin, else see ``use``.
"""

import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from acrn_dm.devices.virtio_net import acrn_dm_device_types
from acrn_dm.testing import SimMachine

TUNSETIFF, IFF_TAP, IFF_NO_PI, IFF_MULTI_QUEUE = 0x400454CA, 2, 0x1000, 0x100
TOTAL = 1 << 20
OURS, FAR = "10.99.0.1", "10.99.0.2"
PATIENCE_S = 20


def run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=30)


def use(way: str, name: str) -> None:
    """Be a machine with a card on *name* whose driver took every offload, and end in this *way*."""
    if way == "never":
        return
    pairs = ",mq=2" if way == "several pairs" else ""
    try:
        with SimMachine() as machine:
            machine.add(acrn_dm_device_types()[0], f"tap={name}{pairs}", slot=3)
            driver = machine.driver(3)
            driver.start()
            if way == "reset":
                driver.reset()
            if way == "exception":
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass


def plain_tap(name: str, flags: int = 0) -> int:
    """Attach as a program does that wants frames and nothing else."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | flags))
    return fd


def forward(one: int, other: int, end: threading.Event) -> None:
    """Pass frames on, both ways."""
    poller = select.poll()
    for fd in (one, other):
        poller.register(fd, select.POLLIN)
    while not end.is_set():
        for fd, _ in poller.poll(100):
            with suppress(BlockingIOError):
                os.write(other if fd == one else one, os.read(fd, 1 << 17))


FAR_SIDE = f"""
import socket, sys
sys.stdin.readline()
listener = socket.create_server(("{FAR}", 1))
print("ready", flush=True)
client = listener.accept()[0]
left = {TOTAL}
while left:
    left -= len(client.recv(left))
client.sendall(bytes({TOTAL}))
client.recv(1)
"""


@contextmanager
def far_side(name: str) -> Iterator[None]:
    """The second namespace, with interface *name* in it and a server at ``FAR``."""
    command = ["unshare", "-n", sys.executable, "-c", FAR_SIDE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            within = ("nsenter", "-t", str(child.pid), "-n")
            wait_for_namespace(child.pid)
            run("ip", "link", "set", name, "netns", str(child.pid))
            run(*within, "ip", "addr", "add", f"{FAR}/24", "dev", name)
            run(*within, "ip", "link", "set", name, "up")
            child.stdin.write("go\n")
            child.stdin.flush()
            assert child.stdout.readline() == "ready\n"
            yield
        finally:
            child.kill()


def wait_for_namespace(pid: int) -> None:
    """Until the child has its own: it says nothing before it is told to go."""
    ours = os.readlink("/proc/self/ns/net")
    while os.readlink(f"/proc/{pid}/ns/net") == ours:
        os.sched_yield()


def talk() -> None:
    """A megabyte each way. Raises OSError."""
    with socket.create_connection((FAR, 1), timeout=PATIENCE_S) as s:
        s.sendall(bytes(TOTAL))
        left = TOTAL
        while left:
            data = s.recv(left)
            assert data
            left -= len(data)


def main(way: str) -> None:
    run("mount", "-t", "sysfs", "none", "/sys")  # of this network namespace, in this mount namespace
    several = way == "several pairs"
    run("ip", "tuntap", "add", "mode", "tap", "name", "near", *(["multi_queue"] if several else []))
    run("ip", "addr", "add", f"{OURS}/24", "dev", "near")
    run("ip", "link", "set", "near", "up")
    use(way, "near")
    near, far = plain_tap("near", IFF_MULTI_QUEUE if several else 0), plain_tap("far")
    end = threading.Event()
    with far_side("far"):
        forwarder = threading.Thread(target=forward, args=(near, far, end))
        forwarder.start()
        try:
            talk()
        finally:
            end.set()
            forwarder.join()


if __name__ == "__main__":
    main(sys.argv[1])
