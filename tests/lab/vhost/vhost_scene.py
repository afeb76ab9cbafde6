"""A guest in the lab with a card on kernel vhost, and what watches it: the device model's gauge and kernel probes."""

import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from acrn_dm.testing.guest.inner.shell import CONSOLE_SLOT, GuestShell
from acrn_dm.testing.guest.kernels.debian import Kernel
from acrn_dm.testing.guest.outer.vm import OuterVm
from lab.paths import LAB
from tests.lab.stemmed import Stemmed
from tests.lab.wired import PROGRAMS, TRAFFIC_S, Link, Wired, assert_left_as_it_was

VSOCK_MODULES = ["vmw_vsock_virtio_transport"]
CARD_SLOT = CONSOLE_SLOT + 1
# Inside the kernel: where KVM answers a guest's write with an eventfd, and an eventfd with an interrupt.
PROBES = {"kick": "kvm:ioeventfd_write", "call": "kvm:irqfd_wakeup"}
TRACING = "/sys/kernel/tracing"


ONE_PAIR = Link("labvhost0", "198.51.100.5", "198.51.100.6")
TWO_PAIRS = Link("labvhost1", "198.51.100.9", "198.51.100.10", "eth1", "multi_queue")


@attrs.frozen(kw_only=True)
class Sample:
    """What the device model had done itself so far; see ``gauge``."""

    pid: int
    at: float
    threads: dict[str, int]
    notify: int = 0
    inject_msi: int = 0
    set_irq_line: int = 0
    irqfd: int = 0


@attrs.define(eq=False)
class Scene(Wired):
    """A guest with a card on vhost-net and a vsock, and what watches it."""

    vm: OuterVm
    shell: GuestShell
    gauge: Path

    def run(self, command: str, timeout: float = 60.0) -> str:
        """What a shell command line prints in the guest."""
        return self.shell.run(command, timeout)

    def connect(self, link: Link = ONE_PAIR) -> None:
        """Give the guest's card its address, if it has none."""
        super().connect(link)

    def ping(self, count: int = 5, *, link: Link = ONE_PAIR) -> str:
        return super().ping(count, link=link)

    def iperf(self, *arguments: str, seconds: int = TRAFFIC_S, link: Link = ONE_PAIR) -> dict[str, Any]:
        """Traffic from the guest's side; iperf3's report."""
        return super().iperf(*arguments, seconds=seconds, link=link)

    def sample(self) -> Sample:
        """Ask the device model."""
        before = len(self._rows())
        self.shell.process.signal(signal.SIGUSR1)
        deadline = time.monotonic() + 20
        while len(rows := self._rows()) == before:
            assert time.monotonic() < deadline, "the gauge does not answer"
            time.sleep(0.05)
        return Sample(**rows[-1])

    def probe(self, name: str) -> int:
        """How often the probed function ran so far."""
        return hits(self.vm, name)

    def _rows(self) -> list[dict[str, Any]]:
        try:
            return [json.loads(line) for line in self.gauge.read_text().splitlines()]
        except FileNotFoundError:
            return []


def hits(vm: OuterVm, name: str) -> int:
    """How often a probed function ran so far."""
    text = vm.run(f"grep Hits {TRACING}/events/lab/{name}/hist").stdout
    return int(text.split(":")[1])


def set_up_probes(vm: OuterVm) -> None:
    """Probe, if nobody does yet."""
    if vm.run(["test", "-d", f"{TRACING}/events/lab"]).rc == 0:
        return
    # No probe is turned into a jump later: the emulation does not stand code that changes while it runs.
    lines = ["echo 0 > /proc/sys/debug/kprobes-optimization"]
    lines.append(f"mountpoint -q {TRACING} || mount -t tracefs tracefs {TRACING}")
    for name, function in PROBES.items():
        lines += [
            f"echo 'p:lab/{name} {function}' >> {TRACING}/kprobe_events",
            f"echo 'hist:keys=common_type' > {TRACING}/events/lab/{name}/trigger",
        ]
    result = vm.run("set -e; " + "; ".join(lines))
    assert result.rc == 0, result.stderr


def gauged(gauge: Path) -> list[str]:
    """acrn-dm with a gauge that writes to this file, which is not there yet."""
    gauge.unlink(missing_ok=True)
    return [sys.executable, "-m", "tests.lab.vhost.gauge", str(gauge)]


@contextmanager
def linked(vm: OuterVm, link: Link) -> Iterator[None]:
    """The tap, and an iperf3 server on it."""
    vm.run(link.making)
    server = vm.spawn(["iperf3", "-s", "-B", link.host])
    yield
    server.signal(signal.SIGTERM)
    assert_left_as_it_was(vm.run(link.removing).stdout)


@contextmanager
def stage(
    vm: OuterVm,
    kernel: Kernel,
    links: Mapping[Link, str],
    *arguments: str,
    modules: Sequence[str] = (),
) -> Iterator[Scene]:
    """A guest with a card on each of *links*, with the options that stand there."""
    scratch = LAB / "vhost" / next(iter(links)).tap
    scratch.mkdir(parents=True, exist_ok=True)
    slots = enumerate(links.items(), CARD_SLOT)
    argv = ["--cpus", "2", "-m", "512M"]
    argv += [word for n, (link, card) in slots for word in ("-s", f"{n},virtio-net,tap={link.tap},{card}")]
    gauge = scratch / "gauge"
    program = gauged(gauge)
    with contextlib.ExitStack() as stack:
        for link in links:
            stack.enter_context(linked(vm, link))
        shell = GuestShell(
            Stemmed(vm),
            kernel,
            scratch,
            [*argv, *arguments],
            modules=modules,
            programs=[*PROGRAMS, "socat"],
            program=program,
        )
        scene = Scene(vm, shell, gauge)
        for link in links:
            scene.connect(link)
        yield scene
        assert shell.power_off() == 0, shell.process.stderr
