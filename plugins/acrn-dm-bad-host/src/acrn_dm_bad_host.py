"""Backends that behave as a bad host, to test guest drivers: ``slow-host`` and ``failing-host``.

Both serve queues as the userspace backend does, in this process, whatever the device is. A gate in the way of each
queue's kicks decides when they arrive there, and whether.
"""

import os
from collections.abc import Callable, Mapping, Sequence

import attrs

from acrn_dm import (
    BackendType,
    ConfigError,
    HostError,
    IoLoop,
    Kick,
    OptionParser,
    RingPosition,
    Session,
    Timer,
    VbsU,
    VirtioDevice,
    hookimpl,
)

DELAY, DELAY_MS, MAX_DELAY_MS = "slow-host-ms", 20, 3_600_000
AFTER, AFTER_KICKS, MAX_KICKS = "failing-host-after", 100, 1 << 62
ALL = {"*"}


class Gate:
    """A gate in the way of one queue's kicks: the driver's arrive at *outer*, the queue is served when ``fd`` is
    signalled. *arrived* is called on the loop's thread.
    """

    def __init__(self, loop: IoLoop, outer: Kick, arrived: Callable[["Gate"], None]) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._loop = loop
        self._outer = outer
        self._timer: Timer | None = None
        loop.add(outer.fd, lambda: arrived(self), eventfd=True)

    def signal(self) -> None:
        """Have the queue served. Any thread."""
        os.eventfd_write(self.fd, 1)

    def signal_later(self, seconds: float) -> None:
        """Have it served in *seconds*, or when an earlier call said. On the loop's thread."""
        if self._timer is None:
            self._timer = self._loop.call_later(seconds, self._due)

    def shut(self) -> None:
        """Let nothing through any more; when this returns nothing is on its way. Idempotent."""
        self._loop.remove(self._outer.fd)
        with self._loop.held():
            timer, self._timer = self._timer, None
            if timer is not None:
                timer.cancel()

    def close(self) -> None:
        """Close ``fd``, which nobody waits for any more."""
        os.close(self.fd)

    def _due(self) -> None:
        self._timer = None
        self.signal()


class GatedBackend(VbsU):
    """The userspace backend behind gates; ``arrived`` says what becomes of a kick."""

    polls = False  # kicks come as eventfds whatever --virtio_poll says: there is nothing to delay or count otherwise

    def __init__(self, device: VirtioDevice) -> None:
        super().__init__(device)
        self._gates: list[Gate] = []

    def start(self, session: Session) -> None:
        """Put a gate before each queue."""
        loop = session.resources.io_loop("io")
        queues = []
        for queue in session.queues:
            self._gates.append(Gate(loop, queue.kick, self.arrived))
            queues.append(attrs.evolve(queue, kick=self._gates[-1]))
        super().start(attrs.evolve(session, queues=tuple(queues), poll_ns=None))

    def cancel(self) -> None:
        """Kicks end first."""
        self._shut()
        super().cancel()

    def stop(self) -> Mapping[int, RingPosition]:
        """Kicks end first; the gates' descriptors go when nobody waits for them any more."""
        self._shut()
        try:
            return super().stop()
        finally:
            for gate in self._gates:
                gate.close()
            self._gates.clear()

    def arrived(self, gate: Gate) -> None:
        """The driver kicked the queue behind *gate*. On the loop's thread."""
        raise NotImplementedError  # each kind of bad host has its own

    def _shut(self) -> None:
        for gate in self._gates:
            gate.shut()


class SlowHost(GatedBackend):
    """A host that is slow to notice: every kick arrives late, those that come meanwhile with it."""

    def __init__(self, device: VirtioDevice) -> None:
        super().__init__(device)
        self.delay_s = _number(device, DELAY, DELAY_MS, range(MAX_DELAY_MS + 1)) / 1000

    def arrived(self, gate: Gate) -> None:
        """Wait."""
        gate.signal_later(self.delay_s)


class FailingHost(GatedBackend):
    """A host that gives up after so many kicks, until the driver has reset the device."""

    def __init__(self, device: VirtioDevice) -> None:
        super().__init__(device)
        self.after = _number(device, AFTER, AFTER_KICKS, range(1, MAX_KICKS + 1))
        self.kicks = 0

    def start(self, session: Session) -> None:
        """Count anew."""
        self.kicks = 0
        super().start(session)

    def arrived(self, gate: Gate) -> None:
        """Count, and fail with the last one and those behind it, which are nobody's."""
        self.kicks += 1
        if self.kicks < self.after:
            gate.signal()
        else:
            self.device.fail(HostError(f"failing-host: kick {self.after}"))


def _number(device: VirtioDevice, name: str, default: int, allowed: range) -> int:
    """The value of option *name*. Raises ConfigError."""
    value = device.context.plugin_options.get(name, default)
    try:
        number = int(str(value))
        if number not in allowed:
            raise ValueError
    except ValueError:
        text = f"expected a whole number from {allowed[0]} to {allowed[-1]}"
        raise ConfigError(text, option=f"--{name}", value=str(value)) from None
    return number


@hookimpl
def acrn_dm_add_options(parser: OptionParser) -> None:
    """How bad the host is."""
    delay, after = (
        f"How late slow-host hears of a kick [{DELAY_MS}].",
        f"Kicks until failing-host fails [{AFTER_KICKS}].",
    )
    parser.add_option(DELAY, metavar="MS", default=DELAY_MS, help=delay)
    parser.add_option(AFTER, metavar="N", default=AFTER_KICKS, help=after)


@hookimpl
def acrn_dm_backend_types() -> Sequence[BackendType]:
    """Offer both for every kind of device."""
    return [
        BackendType(name="slow-host", summary="in this process, late", kinds=ALL, create=SlowHost),
        BackendType(name="failing-host", summary="in this process, until it fails", kinds=ALL, create=FailingHost),
    ]
