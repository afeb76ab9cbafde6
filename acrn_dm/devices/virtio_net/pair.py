"""A queue pair: a receive and a transmit queue on one descriptor of the interface, served on one I/O loop.

Its frames are moved in C where that can be (``plane``); else Python's ``Receiver`` and ``Transmitter`` do, which are
the reference.
"""

import logging
import os
from collections.abc import Callable, Iterable, Sequence

import attrs

from acrn_dm.base.errors import GuestError
from acrn_dm.base.events.ioloop import READ, WRITE, IoLoop
from acrn_dm.base.records import define
from acrn_dm.devices.loopwork import FdWatch
from acrn_dm.devices.virtio_net.backend import PacketFile
from acrn_dm.devices.virtio_net.native._link import NetLink
from acrn_dm.devices.virtio_net.native._rx import NetRx
from acrn_dm.devices.virtio_net.native._tx import NetTx
from acrn_dm.devices.virtio_net.native.ports import port_of
from acrn_dm.devices.virtio_net.receive import BUDGET, Receiver
from acrn_dm.devices.virtio_net.receive_filter import ReceiveFilter
from acrn_dm.devices.virtio_net.request import HASH_HEADER, MAX_FRAME, MIN_FRAME, RSS, header_bytes
from acrn_dm.devices.virtio_net.steering._hash import FrameHash
from acrn_dm.devices.virtio_net.steering.inbox import Inbox
from acrn_dm.devices.virtio_net.transmit import Transmitter
from acrn_dm.virtio.native._plane import Plane
from acrn_dm.virtio.queue import Queue

log = logging.getLogger(__name__)

LOST = 64  # bytes read of a frame that nobody gets: no less than its packet header, which a tap does not cut (EINVAL)


@define(eq=False)
class Pair:
    """One pair in use, from DRIVER_OK to reset. *gone* is told when the interface was deleted; *guard* reports a
    GuestError.

    A pair that the driver does not use at the moment rests: nothing is read for it. What it still sends is sent.
    """

    tap: PacketFile
    gone: Callable[[OSError], None] = attrs.field(repr=False)
    guard: Callable[[Callable[[], object]], Callable[[], None]] = attrs.field(repr=False)
    mtu: int = 0  # 0: none is told to the driver
    rx: Receiver | NetRx | None = attrs.field(default=None, init=False)
    tx: Transmitter | NetTx | None = attrs.field(default=None, init=False)
    up: bool = attrs.field(default=True, init=False)
    resting: bool = attrs.field(default=False, init=False)
    deaf: bool = attrs.field(default=False, init=False)  # the receive queue was reset alone
    down: bool = attrs.field(default=False, init=False)  # there is no link
    wanted: ReceiveFilter | None = attrs.field(default=None, init=False, repr=False)  # None: every frame is
    hashes: FrameHash | None = attrs.field(default=None, init=False, repr=False)
    _peers: "Sequence[Pair]" = attrs.field(default=(), init=False, repr=False)  # where frames go to by their hashes
    _header: int = attrs.field(default=0, init=False)  # bytes before each frame
    _space: memoryview = attrs.field(
        factory=lambda: memoryview(bytearray(HASH_HEADER + MAX_FRAME + 1)), init=False, repr=False
    )
    _watch: FdWatch | None = attrs.field(default=None, init=False)
    _link: NetLink | None = attrs.field(default=None, init=False, repr=False)  # of queues that are served in C
    _by_python: bool = attrs.field(default=False, init=False)  # there was a look at a ring

    def start(self, queues: Iterable[Queue], features: int, *, up: bool, resting: bool) -> None:
        """Serve those of its two queues that are enabled; the first look at the rings is what watches the tap."""
        self.up, self.resting, self.deaf = up, resting, False
        for queue in queues:
            self.take(queue, features)

    def take(self, queue: Queue, features: int) -> None:
        """Serve *queue*, one of the two."""
        if self._watch is None:
            self._watch = FdWatch(queue.loop, self.tap.fd, self.guard(self._ready))
        with self._watch.loop.held():
            self._header = header_bytes(features)
            if queue.index % 2 == 0:
                self.rx = Receiver(queue, self.tap, features, wanted=self.wanted, mtu=self.mtu, hashes=self.hashes)
                self.deaf = False
                self._give_inbox()
            else:
                self.tx = Transmitter(queue, self.tap, features)

    def plane(self, queue: Queue, features: int) -> Plane | None:
        """What serves *queue*, which was taken, in C; None where Python moves the frames: those of an interface with a
        way of its own, and those that are steered.
        """
        port = port_of(self.tap)
        if port is None or self._watch is None or features & RSS:
            return None
        loop = self._watch.loop
        with loop.held():
            link = self._link
            if link is None:
                link = NetLink(port, loop.poll)
                loop.attend(self.tap.fd, self.guard(self._told))
                link.open()
                self._link = link
            return self._join(link, queue, features)

    def _join(self, link: NetLink, queue: Queue, features: int) -> Plane:
        header = header_bytes(features)
        plane: NetRx | NetTx
        if queue.index % 2 == 0:
            self.rx = plane = NetRx(link, queue.ring, features, header, self.mtu)
            plane.want(self.wanted)
            plane.hashes = self.hashes
        else:
            self.tx = plane = NetTx(link, features, header)
        link.join(plane, queue.index % 2 == 0)
        self._follow()
        return plane

    def release(self, queue: Queue) -> None:
        """The driver resets *queue* alone: when this returns nothing of it is used any more. Frames that come while
        there is no receive queue are dropped (5.1.6.5.5.2).
        """
        if self._watch is None:
            return
        with self._watch.loop.held():
            if queue.index % 2 == 0:
                self.rx, self.deaf = None, True
            else:
                self.tx = None
            if self._link is not None:
                self._link.join(None, queue.index % 2 == 0)
            self._follow()

    def stop(self) -> None:
        """Let go of the queues; frames that wait in the tap are the next driver's."""
        if self._watch is not None:
            self._watch.close()
            self._leave(self._watch.loop)
        for side, whose in ((self.rx, "for the guest"), (self.tx, "of the guest's")):
            if side is not None and side.dropped:
                log.debug("tap on descriptor %d: %d frames %s were dropped", self.tap.fd, side.dropped, whose)
        self._watch = self.rx = self.tx = None
        self._by_python = False
        self._peers = ()

    def _leave(self, loop: IoLoop) -> None:
        if self._link is not None:
            with loop.held():
                loop.remove(self.tap.fd)
                self._link.close()
            self._link = None

    def rest(self) -> None:
        """When this returns no frame goes to the driver any more, not even one that has been read. Control queue."""
        if self._watch is None or self.resting:
            return
        with self._watch.loop.held():
            self.resting = True
            if self.rx is not None:
                self.rx.forget()
            self._follow()

    def go_on(self) -> None:
        """The driver uses the pair again, and may have posted buffers meanwhile. Control queue."""
        if self._watch is not None and self.resting:
            self.resting = False
            self._watch.loop.call_soon(self.guard(self._ready))

    def limit(self, offloads: int) -> None:
        """When this returns no frame that needs other *offloads* goes to the driver. Control queue."""
        if self._watch is not None:
            with self._watch.loop.held():
                if self.rx is not None:
                    self.rx.limit(offloads)

    def want(self, wanted: ReceiveFilter | None) -> None:
        """When this returns no frame goes to the driver that *wanted* keeps out."""
        self.wanted = wanted
        if self._watch is not None:
            with self._watch.loop.held():
                if self.rx is not None:
                    self.rx.want(wanted)

    @property
    def served(self) -> bool:
        """Whether there is a queue, so that the interface's descriptor is looked at."""
        return self._watch is not None

    def steer(self, hashes: FrameHash | None, pairs: "Sequence[Pair]") -> None:
        """When this returns frames have *hashes*, and where those steer they go to one of *pairs* by them, whichever
        descriptor they come by.
        """
        if self._watch is None:
            self.hashes = hashes
            return
        with self._watch.loop.held():
            self.hashes, self._peers = hashes, pairs if hashes is not None and hashes.steers else ()
            if self.rx is not None:
                self.rx.hashes = hashes
                self._give_inbox()
            self._follow()
        self._watch.loop.call_soon(self.guard(self._ready))

    def _give_inbox(self) -> None:
        assert self._watch is not None
        if not isinstance(self.rx, Receiver):
            return
        loop, ready = self._watch.loop, self.guard(self._ready)
        if not self._peers:
            self.rx.inbox = None
        elif self.rx.inbox is None:
            self.rx.inbox = Inbox(lambda: loop.call_soon(ready))

    def cut(self, down: bool) -> None:
        """Whether there is no link: then nothing is passed on, either way. Control threads."""
        if self._watch is None:
            self.down = down
            return
        with self._watch.loop.held():
            self.down = down
            if down and self.rx is not None:
                self.rx.forget()
            self._follow()
        self._watch.loop.call_soon(self.guard(self._ready))

    def handle(self, queue: Queue) -> None:
        """Buffers for frames that may wait, or frames to send."""
        self._by_python = True
        try:
            if not self.up or self.down:
                self._discard()
            elif queue.index % 2 == 0:
                self._receive()
            elif isinstance(self.tx, Transmitter) and not self.tx.blocked:
                self.tx.pump()
        except OSError as e:
            self._gone(e)
        self._follow()

    def _told(self) -> None:
        """On the loop's thread: C has something to say."""
        error = self._link.error_taken() if self._link is not None else 0
        if error:
            self._gone(OSError(error, os.strerror(error)))
            self._follow()

    def _ready(self) -> None:
        """Frames arrived, there is room again, or something has changed: with a thread, before it is known who serves
        the queues, too, and then nothing is begun.
        """
        if self._link is not None:
            self._follow()
            self._link.look()
        elif self._by_python:
            self._move()

    def _move(self) -> None:
        try:
            if self.down:
                self._discard()
            elif isinstance(self.tx, Transmitter) and self.tx.blocked:
                self.tx.pump()
            self._receive()
        except OSError as e:
            self._gone(e)
        except GuestError:
            self.rx = self.tx = None  # the rings are not touched again, nor is the tap, until the driver resets
            raise
        finally:
            self._follow()

    def _follow(self) -> None:
        """Watch the tap for what the queues wait for."""
        if self._link is not None:
            self._link.state(up=self.up, resting=self.resting, losing=self.deaf or self.down, cut=self.down)
        elif self._watch is not None and self._by_python:
            wanted = bool(self._peers) or (isinstance(self.rx, Receiver) and self.rx.reads)
            reads = self.deaf or self.down or wanted
            events = READ if self.up and not self.resting and reads else 0
            events |= WRITE if self.up and isinstance(self.tx, Transmitter) and self.tx.blocked else 0
            self._watch.want(events)

    def _receive(self) -> None:
        if self._peers and not self.down and not self.resting:
            self._distribute()
        if self.down or (self.deaf and not self._peers):
            self._drop()
        elif isinstance(self.rx, Receiver) and not self.resting:
            self.rx.pump()

    def _distribute(self) -> None:
        """Pass frames on to the queues that they belong to (5.1.6.5.7.2). One whose queue is not there is dropped."""
        assert self.hashes is not None
        space, header = self._space, self._header if self.tap.vnet_header else 0
        for _ in range(BUDGET):
            size = self.tap.read(space)
            if size is None:
                return
            if MIN_FRAME <= size - header <= MAX_FRAME:
                target = self._peers[self.hashes.pair(*self.hashes.hash(space[header:size]))]
                target.take_in(bytes(space[:size]))

    def take_in(self, packet: bytes) -> None:
        """A frame for the receive queue, with its packet header; nothing happens where there is none. Any thread."""
        rx = self.rx
        if isinstance(rx, Receiver) and rx.inbox is not None and not self.resting and not self.down:
            rx.inbox.put(packet)

    def _drop(self) -> None:
        for _ in range(BUDGET):
            if self.tap.read(memoryview(bytearray(LOST))) is None:  # the kernel cuts the rest
                return

    def _gone(self, error: OSError) -> None:
        self.up = False
        self.gone(error)
        self._discard()

    def _discard(self) -> None:
        if self._link is not None:
            self._follow()
            self._link.look()
        elif isinstance(self.tx, Transmitter):
            self.tx.discard()
