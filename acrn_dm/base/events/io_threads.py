"""Threads of one device's own: how many, on which CPUs of the host, and how long they look before they sleep.

``iothread[=N[@CPUS]]`` among a device's options gives it loops instead of the one that all devices share: one, but for
those whose queues several may serve (``virtio.optional.Threads``, and disks). CPUS are sets of host CPUs, one for each
thread: ``/`` stands between sets, ``:`` within one, ``*`` is no choice. With ``poll_us=N`` the loops that serve a
device look at its queues for up to N microseconds before they sleep, as long as that pays.
"""

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

import attrs

from acrn_dm.base.decimal_text import digits
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.records import define, frozen

log = logging.getLogger(__name__)

MAX_THREADS = 40
MAX_POLL_US = 10_000
NS_PER_US = 1000
SHARED = "io"  # the loop of all devices that do not care

CpuSet = tuple[int, ...]  # empty: not pinned


@frozen(kw_only=True)
class IoThreads:
    """Number of I/O loops of the device's own, and for each the host CPUs it may run on."""

    count: int = 0
    cpus: tuple[CpuSet, ...] = ()


def io_threads(value: Any) -> IoThreads:
    """The threads that ``iothread=`` asks for. Raises ValueError."""
    if isinstance(value, IoThreads):
        return value
    if isinstance(value, bool):
        return IoThreads(count=int(value))
    count_text, at, cpus_text = str(value).partition("@")
    count = digits(count_text, "iothread")
    if not 1 <= count <= MAX_THREADS:
        raise ValueError(f"iothread {count}: expected 1 to {MAX_THREADS}")
    cpus = tuple(_cpu_set(text) for text in cpus_text.split("/")) if at else ()
    if len(cpus) > count:
        raise ValueError(f"iothread {value!r}: CPUs for {len(cpus)} threads, but there are {count}")
    return IoThreads(count=count, cpus=cpus)


def thread_loop(number: int) -> str:
    """Name of a device's loop *number*, counted from 0, for ``DeviceLoops.get``."""
    return f"{SHARED}/{number}"


def poll_us(value: Any) -> int:
    """The microseconds that ``poll_us=`` asks for. Raises ValueError."""
    us = digits(str(value), "poll_us")
    if us > MAX_POLL_US:
        raise ValueError(f"poll_us {us}: expected 0 to {MAX_POLL_US}")
    return us


def _cpu_set(text: str) -> CpuSet:
    return () if text == "*" else tuple(digits(cpu, "iothread CPU") for cpu in text.split(":"))


@define(eq=False)
class DeviceLoops:
    """The loops of one device, made as they are asked for: in place of the shared one its own, where it has any."""

    device: str  # its name in the log
    short: str  # in the names of its threads, of which the kernel keeps 15 bytes
    threads: IoThreads
    poll_ns: int
    make: Callable[[str], IoLoop] = attrs.field(repr=False)  # as ``IoLoops.get``
    _known: set[str] = attrs.field(factory=set, init=False)

    def get(self, name: str) -> IoLoop:
        """The loop of that name. Instead of the shared one it is the first of the device's own, and by ``thread_loop``
        another one of these, modulo how many there are; the shared one where there are none. Any thread.
        """
        first, _, number = name.partition("/")
        if first != SHARED:
            return self._prepared(name, ())
        if self.threads.count == 0:
            return self._prepared(SHARED, ())
        own = int(number or 0) % self.threads.count
        cpus = self.threads.cpus[own] if own < len(self.threads.cpus) else ()
        return self._prepared(f"iothr-{own}-{self.short}", cpus)

    def _prepared(self, name: str, cpus: CpuSet) -> IoLoop:
        loop = self.make(name)
        if name not in self._known:
            self._known.add(name)
            loop.poll.poll_limit = max(loop.poll.poll_limit, self.poll_ns)  # a shared one: what the keenest wants
            if cpus:
                loop.call_soon(lambda: pin_current_thread(self.device, loop, cpus))
        return loop


def pin_current_thread(name: str, loop: IoLoop, cpus: CpuSet) -> None:
    """Bind the thread of *loop* to host *cpus*; a loop that is stepped by its owner is left alone."""
    if threading.current_thread() is threading.main_thread():
        return
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as e:
        log.warning("%s: loop %s can't run on CPUs %s: %s", name, loop.name, ":".join(map(str, cpus)), e)
