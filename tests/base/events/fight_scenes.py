"""The places where an eventfd that a peer has is signalled, each as a scene for ``tools.eventfd_fight``."""

import contextlib
import os
import signal as signals
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

from acrn_dm.backends import user as vhost_user
from acrn_dm.backends.wire.message import Request
from acrn_dm.base.events.eventfd import drain, signal
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.irq import Space
from acrn_dm.devices import virtio_blk
from acrn_dm.hypervisors.sim.vm import SimVm
from acrn_dm.pci.eventfds import CallEvent, KickAddress, KickEvent
from acrn_dm.pci.msix import Msix
from acrn_dm.testing import SimMachine, VirtioDriver
from tests.backends.test_interrupt_accounting import running
from tests.backends.user.peers.peer import NO_NOTES, Peer
from tests.backends.user.peers.shadow import Shadow
from tests.backends.user.user_rig import Daemon
from tests.export.vhost_user.export_rig import Client

PATIENCE_S = 20.0
HEALTHY_EACH = 50  # signals between two looks at the device beside
MSIX_ENABLE = 0x8000
PLACE = KickAddress(space=Space.MMIO, addr=0x1000, len=2)


@attrs.frozen(kw_only=True)
class Scene:
    """*signal* signals *eventfd* once; *check* says, when it is over, that nothing has suffered."""

    eventfd: int
    signal: Callable[[], object]
    check: Callable[[], None]


def soon(done: Callable[[], bool], what: str) -> None:
    """Wait for another thread or process. Raises AssertionError."""
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(2e-5)


@contextlib.contextmanager
def primitive() -> Iterator[Scene]:
    """``signal`` itself."""
    fd = os.eventfd(0, os.EFD_NONBLOCK)

    def check() -> None:
        signal(fd)
        soon(lambda: drain(fd) > 0, "it can't be signalled any more")

    yield Scene(eventfd=fd, signal=lambda: signal(fd), check=check)
    os.close(fd)


@contextlib.contextmanager
def pci_kick() -> Iterator[Scene]:
    """A kick that no hypervisor takes, written by the notify handler."""
    kick = KickEvent(SimVm(), lambda error: None)

    def check() -> None:
        kick.signal()
        soon(lambda: drain(kick.fd) > 0, "it can't be kicked any more")

    yield Scene(eventfd=kick.fd, signal=kick.signal, check=check)
    kick.close()


@contextlib.contextmanager
def pci_call() -> Iterator[Scene]:
    """A call that a process writes, too, bound to a vector and watched by a loop that other devices live on."""
    vm, msix, loop = SimVm(), Msix(1), IoLoop("io")
    msix.connect(vm)
    for offset, value in ((0, 0xFEE0_0000), (4, 0), (8, 7), (12, 0)):
        msix.write(offset, 4, value)
    msix.set_control(MSIX_ENABLE)
    call = CallEvent(vm, msix, lambda: None, lambda error: None)
    call.set_vector(0)
    call.forward(loop)
    loop.start()
    times = 0

    def signal_or_mask() -> None:
        nonlocal times
        times += 1
        call.signal()
        if times % HEALTHY_EACH == 0:
            msix.write(12, 4, 1)
            msix.write(12, 4, 0)
            vm.take_msis()

    def check() -> None:
        vm.take_msis()
        call.signal()
        soon(lambda: [message.data for message in vm.take_msis()] == [7], "the interrupt does not arrive")
        heard: list[int] = []
        loop.call_soon(lambda: heard.append(1))
        soon(lambda: heard == [1], "the loop does not answer")

    yield Scene(eventfd=call.fd, signal=signal_or_mask, check=check)
    call.close()
    loop.close()


@attrs.define(eq=False)
class Disk:
    """A disk that the machine's threads serve."""

    driver: VirtioDriver

    def send(self) -> None:
        """Ask for the first sector."""
        self.driver.queue(0).send([bytes(16)], [512, 1])
        self.driver.queue(0).kick(force=True)

    def answered(self) -> bool:
        """Whether something came back."""
        return bool(self.driver.queue(0).completed())

    def restart(self) -> None:
        """The guest resets it and starts it again, without a step of the loops from here."""
        self.driver.reset()
        self.driver.negotiate(self.driver.features)
        self.driver.setup_queue(0)
        self.driver.driver_ok()

    def check(self) -> None:
        """It answers."""
        self.send()
        soon(self.answered, "the healthy disk does not answer")


@contextlib.contextmanager
def relay_kick() -> Iterator[Scene]:
    """A disk whose back-end gets its requests relayed; a healthy one lives on the same loop."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "image").write_bytes(bytes(1 << 20))
        peer = stack.enter_context(Peer(folder / "s", protocol=NO_NOTES, patience=None))
        machine = stack.enter_context(SimMachine(plugins=[virtio_blk, vhost_user]))
        machine.add("virtio-blk", f"vhost-user={peer.path},relay=on", slot=3)
        machine.add("virtio-blk", str(folder / "image"), slot=4)
        relayed, healthy = Disk(machine.driver(3)), Disk(machine.driver(4))
        relayed.driver.start()
        healthy.driver.start()
        shadow = Shadow.of(peer)
        stack.enter_context(running(machine))
        number = 0

        def signal_once() -> None:
            nonlocal number
            relayed.send()
            soon(lambda: shadow.available() == (number + 1) & 0xFFFF, "the request is not relayed")
            shadow.answer(number, shadow.head(number), 1)
            number += 1
            soon(relayed.answered, "the answer is not relayed")
            if number % HEALTHY_EACH == 0:
                healthy.check()

        def check() -> None:
            healthy.restart()
            healthy.check()
            assert machine.failures == []

        kick = peer.last(Request.SET_VRING_KICK).fds[0]
        yield Scene(eventfd=kick, signal=signal_once, check=check)
        relayed.driver.reset()


@contextlib.contextmanager
def export_call() -> Iterator[Scene]:
    """``acrn-dm-vhost-user`` and a client that fights over the call of its ring."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        argv = [sys.executable, "-m", "acrn_dm.export.vhost_user.cli", "console", f"--socket-path={folder / 's'}"]
        daemon = Daemon([*argv, "file:port0=/dev/null"], folder / "s", folder / "log")
        daemon.start()
        client = Client.connect(daemon.socket)
        client.negotiate()
        client.share_memory()
        ring, kick, call = client.ring(1)
        client.write(0x80000, b"x")
        count = 0

        def signal_once() -> None:
            nonlocal count
            count += 1
            ring.used()
            ring.enable_interrupts()
            ring.add_chain([(0x80000, 1)])
            ring.publish()
            os.eventfd_write(kick, 1)
            soon(lambda: ring.used_idx() == count & 0xFFFF, "the device does not answer")

        def check() -> None:
            assert client.queues() == 4  # it still answers
            assert daemon.process is not None
            daemon.process.send_signal(signals.SIGTERM)
            assert daemon.process.wait(PATIENCE_S) == 0

        try:
            yield Scene(eventfd=call, signal=signal_once, check=check)
        finally:
            client.close()
            daemon.kill()


SCENES: dict[str, Callable[[], "contextlib.AbstractContextManager[Scene]"]] = {
    "signal": primitive,
    "pci-kick": pci_kick,
    "pci-call": pci_call,
    "relay-kick": relay_kick,
    "export-call": export_call,
}
