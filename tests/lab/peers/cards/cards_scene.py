"""Two cards of ours on taps of a network of their own, in a guest of QEMU's. Their process is in a strict sandbox,
where this host's kernel has what that takes.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import pytest

from acrn_dm.base.sandbox.confine import lacking
from acrn_dm.testing.guest.kernels.debian import Kernel
from acrn_dm.testing.guest.served.machine import vfio_user
from lab.qemu.guest import QemuGuest
from tests.lab.wired import PROGRAMS, Link, Wired, assert_left_as_it_was
from tests.patience import comes_true

START_S = 20.0
OWN = Link("own0", "198.51.100.17", "198.51.100.18", "eth0", "multi_queue")
STEERED = Link("own1", "198.51.100.21", "198.51.100.22", "eth1", "multi_queue")
CARDS = {
    OWN: "mq=2,iothread=2,mtu=9000,speed=25000,duplex=full",
    STEERED: "mq=2,rss,hash,packed=off",
}


@attrs.frozen(kw_only=True)
class Scene(Wired):
    """The guest, and the log of the process that serves its cards."""

    guest: QemuGuest
    log: Path

    def run(self, command: str, timeout: float = 60.0) -> str:
        """What a shell command line prints in the guest."""
        return self.guest.run(command, timeout)


@contextlib.contextmanager
def network() -> Iterator[list[str]]:
    """The words that start a program in a network of its own, whose interfaces /sys shows, while the block runs."""
    if any(shutil.which(name) is None for name in ("unshare", "nsenter", "ip", *PROGRAMS)):
        pytest.skip(f"needs util-linux, iproute2 and {', '.join(PROGRAMS)}")
    root = os.geteuid() == 0
    as_root = [] if root else ["--user", "--map-root-user"]
    keep = ["unshare", *as_root, "--net", "--mount", "sh", "-c", "mount -t sysfs sysfs /sys && echo there && exec cat"]
    pipe = subprocess.PIPE
    with subprocess.Popen(keep, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as kept:
        assert kept.stdout is not None
        assert kept.stderr is not None
        if not kept.stdout.readline():
            pytest.skip(f"there can be no network of its own: {kept.stderr.read().strip()}")
        user = [] if root else ["--user", "--preserve-credentials"]
        try:
            yield ["nsenter", *user, "--net", "--mount", "--wd", "--target", str(kept.pid), "--"]
        finally:
            kept.terminate()


@contextlib.contextmanager
def serving(within: Sequence[str], folder: Path) -> Iterator[Path]:
    """The process that serves all cards, and what is at the other ends of their taps; its log."""
    devices = [f"virtio-net,tap={link.tap},{options}" for link, options in CARDS.items()]
    sockets = [folder / f"{link.tap}.sock" for link in CARDS]
    mode = "on" if lacking() else "strict"
    argv = [sys.executable, "-m", "acrn_dm.export.cli", "vfio-user", f"--sandbox={mode}", *devices]
    with contextlib.ExitStack() as stack:
        for link in CARDS:
            inside(within, link.making)
            stack.callback(lambda link=link: assert_left_as_it_was(inside(within, link.removing)))
            stack.enter_context(running([*within, "iperf3", "-s", "-B", link.host], folder / f"{link.tap}.log"))
        log = folder / "log"
        with running([*within, *argv, *(f"--socket-path={path}" for path in sockets)], log):
            assert comes_true(lambda: all(path.exists() for path in sockets), START_S), log.read_text()
            yield log


def inside(within: Sequence[str], line: str) -> str:
    """The output of a line of shell in the network."""
    done = subprocess.run([*within, "sh", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def running(argv: Sequence[str], log: Path) -> Iterator[None]:
    """A process that writes to *log*, and is asked to end."""
    with log.open("wb") as file:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        yield
    finally:
        process.terminate()
        process.wait(START_S)


@contextlib.contextmanager
def stage(kernel: Kernel, qemu: Sequence[str], folder: Path) -> Iterator[Scene]:
    """All of it."""
    words = [word for link in CARDS for word in vfio_user(link.tap, folder)]
    with network() as within, serving(within, folder) as log:
        guest = QemuGuest.boot(kernel, folder, words, qemu=qemu, board="q35", programs=PROGRAMS)
        try:
            yield Scene(guest=guest, log=log)
        finally:
            guest.end()
