"""The kernel's vhost played by the test: nodes with the kernel's rules, a record of every call, and calls that fail.

::

    vhost = FakeVhost()
    with SimMachine(plugins=[vhost]) as machine:  # as a plugin it records the two eventfd hooks, too
        vhost.join(machine)
        machine.add(lambda context: MyDevice(context), slot=3)  # whose backend opens nodes by vhost.open

A node serves its rings itself, on a loop that the machine's ``settle`` steps: every chain comes back with its readable
bytes reversed. A ring that it can't use it tells by the error eventfd, as the kernel does.
"""

import errno
import os
from collections.abc import Callable

import attrs

from acrn_dm._fastring import MemoryMap
from acrn_dm.base.errors import GuestError, HostError
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.irq import IoEventFd, IrqFd, MsiMessage
from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.ring.factory import make_ring
from acrn_dm.ring.layout import RingLayout
from acrn_dm.ring.position import RingPosition
from acrn_dm.ring.ring import Ring
from acrn_dm.testing.machine import SimMachine

FEATURES = sum(1 << bit for bit in (15, 24, 26, 27, 28, 29, 32, 33))  # what vhost-net says on Linux 6.1
LOOP = "vhost"


class FakeVhost:
    """All nodes there are. ``log`` has every call in order: its name, the queue, and -1 for "no descriptor"."""

    __name__ = "fake-vhost"

    def __init__(self, *, features: int = FEATURES, resets_owner: bool = True) -> None:
        self.features = features
        self.resets_owner = resets_owner
        self.loop = IoLoop(LOOP)
        self.log: list[str] = []
        self.nodes: list[FakeNode] = []  # the open ones
        self._failures: list[tuple[str | None, int, int]] = []

    def join(self, machine: SimMachine) -> None:
        """Let *machine* step and close the loop."""
        machine.io_loops[LOOP] = self.loop

    def open(self, path: str) -> "FakeNode":
        """Open a node; what a backend is given in place of ``NodeFile``. Raises HostError."""
        self.call(f"open {path}")
        node = FakeNode(self, path)
        self.nodes.append(node)
        return node

    def fail(self, err: int, *, call: str | None = None, after: int = 0) -> None:
        """Let the next call (whose name starts with *call*) fail with *err*, or the one *after* so many others."""
        self._failures.append((call, after, err))

    def call(self, what: str) -> None:
        """Record a call. Raises HostError if it is to fail."""
        self.log.append(what)
        for i, (name, after, err) in enumerate(self._failures):
            if name is None or what.startswith(name):
                if after:
                    self._failures[i] = (name, after - 1, err)
                else:
                    del self._failures[i]
                    raise HostError(what, err=err)
                return

    def take_log(self) -> list[str]:
        """The calls since the last time."""
        log, self.log = self.log, []
        return log

    @hookimpl(tryfirst=True)
    def acrn_dm_vhm_ioeventfd(self, binding: IoEventFd, assign: bool) -> None:
        """Record and pass on."""
        self.call(f"ioeventfd {'+' if assign else '-'} {binding.space.value}")

    @hookimpl(tryfirst=True)
    def acrn_dm_vhm_irqfd(self, binding: IrqFd, assign: bool) -> None:
        """Record and pass on."""
        target = "msi" if isinstance(binding.target, MsiMessage) else "line"
        self.call(f"irqfd {'+' if assign else '-'} {target}")


@attrs.define(eq=False)
class _Ring:
    """The queue as a node was told of it."""

    num: int = 0
    base: int = 0
    addresses: tuple[int, int, int] | None = None
    fds: dict[str, int] = attrs.field(factory=dict)  # kick, call, err: the kernel holds them on its own
    backend: int = -1
    live: Ring | None = None

    @property
    def layout(self) -> RingLayout:
        desc, avail, used = self.addresses or (0, 0, 0)
        return RingLayout(size=self.num, desc=desc, avail=avail, used=used)

    @property
    def position(self) -> RingPosition:
        return RingPosition(self.base)


class FakeNode:
    """One open node. Without an owner nothing but GET_FEATURES and SET_OWNER is allowed, as in the kernel."""

    def __init__(self, vhost: FakeVhost, path: str) -> None:
        self.path = path
        self.owned = False
        self.acked = 0
        self.cid: int | None = None
        self.memory: MemoryMap | None = None
        self.rings: dict[int, _Ring] = {}
        self._vhost = vhost
        self._open = True

    def close(self) -> None:
        """Everything goes with the last descriptor."""
        if self._open:
            self._open = False
            self._vhost.call("close")
            self._forget()
            self._vhost.nodes.remove(self)

    def get_features(self) -> int:
        self._vhost.call("GET_FEATURES")
        return self._vhost.features

    def set_features(self, features: int) -> None:
        self._ioctl("SET_FEATURES")
        if features & ~self._vhost.features:
            raise HostError("SET_FEATURES", err=errno.EOPNOTSUPP)
        self.acked = features

    def set_owner(self) -> None:
        self._vhost.call("SET_OWNER")
        if self.owned:
            raise HostError("SET_OWNER", err=errno.EBUSY)
        self.owned = True

    def reset_owner(self) -> None:
        self._ioctl("RESET_OWNER")
        if not self._vhost.resets_owner:
            raise HostError("RESET_OWNER", err=errno.EFAULT)
        self._forget()

    def set_mem_table(self, memory: MemoryMap) -> None:
        self._ioctl("SET_MEM_TABLE")
        self.memory = memory

    def set_vring_num(self, index: int, num: int) -> None:
        self._ioctl(f"SET_VRING_NUM {index} {num}")
        self._ring(index).num = num

    def set_vring_base(self, index: int, base: int) -> None:
        self._ioctl(f"SET_VRING_BASE {index} {base}")
        if self._ring(index).backend >= 0:
            raise HostError("SET_VRING_BASE", err=errno.EBUSY)
        self._ring(index).base = base

    def get_vring_base(self, index: int) -> int:
        self._ioctl(f"GET_VRING_BASE {index}")
        return self._ring(index).base

    def set_vring_addr(self, index: int, memory: MemoryMap, desc: int, avail: int, used: int) -> None:
        self._ioctl(f"SET_VRING_ADDR {index}")
        self._ring(index).addresses = (desc, avail, used)

    def set_vring_kick(self, index: int, fd: int) -> None:
        self._set_fd("kick", index, fd)

    def set_vring_call(self, index: int, fd: int) -> None:
        self._set_fd("call", index, fd)

    def set_vring_err(self, index: int, fd: int) -> None:
        self._set_fd("err", index, fd)

    def net_set_backend(self, index: int, fd: int) -> None:
        self._ioctl(f"NET_SET_BACKEND {index}{' -1' if fd < 0 else ''}")
        self._check_set_up(self._ring(index))
        self._switch(self._ring(index), fd)

    def vsock_set_guest_cid(self, cid: int) -> None:
        self._vhost.call(f"VSOCK_SET_GUEST_CID {cid}")
        if any(node.cid == cid for node in self._vhost.nodes if node is not self):
            raise HostError("VSOCK_SET_GUEST_CID", err=errno.EADDRINUSE)
        self.cid = cid

    def vsock_set_running(self, running: bool) -> None:
        self._ioctl(f"VSOCK_SET_RUNNING {int(running)}")
        both = [self._ring(index) for index in (0, 1)]
        if running:  # both, or none; stopping asks nothing of them
            for ring in both:
                self._check_set_up(ring)
        for ring in both:
            self._switch(ring, 0 if running else -1)

    def break_ring(self, index: int) -> None:
        """Find something that can't be used in the ring."""
        self._complain(self._ring(index))

    # The kernel's rules

    def _ioctl(self, what: str) -> None:
        self._vhost.call(what)
        if not self._open:
            raise HostError(what, err=errno.EBADF)
        if not self.owned:
            raise HostError(what, err=errno.EPERM)

    def _ring(self, index: int) -> _Ring:
        if index not in (0, 1):
            raise HostError(f"queue {index} of {self.path}", err=errno.ENOBUFS)
        return self.rings.setdefault(index, _Ring())

    def _set_fd(self, what: str, index: int, fd: int) -> None:
        self._ioctl(f"SET_VRING_{what.upper()} {index}{' -1' if fd < 0 else ''}")
        ring = self._ring(index)
        self._unwatch(ring, what)
        if fd >= 0:
            ring.fds[what] = os.dup(fd)
        self._watch(ring)

    def _check_set_up(self, ring: _Ring) -> None:
        if ring.addresses is None or self.memory is None or not ring.num:
            raise HostError("the ring is not set up", err=errno.EFAULT)

    def _switch(self, ring: _Ring, backend: int) -> None:
        if ring.live is not None:
            ring.base = ring.live.position.base
            ring.live.close()
            ring.live = None
        ring.backend = backend
        if backend >= 0 and self.memory is not None:
            ring.live = make_ring(self.acked, ring, self.memory)

    def _forget(self) -> None:
        for ring in self.rings.values():
            if ring.live is not None:
                self._switch(ring, -1)
            for what in list(ring.fds):
                self._unwatch(ring, what)
        self.rings.clear()
        self.owned, self.memory, self.acked = False, None, 0

    # The data plane

    def _watch(self, ring: _Ring) -> None:
        kick = ring.fds.get("kick")
        if kick is not None:
            self._vhost.loop.remove(kick)
            self._vhost.loop.add(kick, self._server(ring), eventfd=True)

    def _unwatch(self, ring: _Ring, what: str) -> None:
        fd = ring.fds.pop(what, None)
        if fd is not None:
            if what == "kick":
                self._vhost.loop.remove(fd)
            os.close(fd)

    def _server(self, ring: _Ring) -> Callable[[], None]:
        def serve() -> None:
            try:
                while ring.live is not None:
                    self._serve(ring, ring.live)
                    if ring.live.publish() and "call" in ring.fds:
                        os.eventfd_write(ring.fds["call"], 1)
                    if not ring.live.enable_kicks():
                        break
            except GuestError:
                self._complain(ring)

        return serve

    def _serve(self, ring: _Ring, live: Ring) -> None:
        """What the driver of this node does at a kick. Raises GuestError for a ring that can't be used."""
        while chains := live.pop_batch():
            for chain in chains:
                chain.write(chain.read()[::-1])
                live.push(chain)

    def _complain(self, ring: _Ring) -> None:
        """The kernel's ``vq_err``: no more than the eventfd, if there is one; it tries again at the next kick."""
        if "err" in ring.fds:
            os.eventfd_write(ring.fds["err"], 1)
