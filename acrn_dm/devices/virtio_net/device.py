"""virtio-net (virtio 5.1): joins queue pairs, control queue and interface."""

import functools
import logging
import struct
from collections.abc import Callable, Collection, Sequence

import attrs

from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.base.files.claims import Claim
from acrn_dm.base.sandbox.needs import Needs
from acrn_dm.contract.resources import Resources
from acrn_dm.contract.types import DeviceContext
from acrn_dm.devices.loopwork import guarded
from acrn_dm.devices.virtio_net import backend
from acrn_dm.devices.virtio_net.backend import PacketFile
from acrn_dm.devices.virtio_net.coalescing import COMMANDS as COALESCING_COMMANDS
from acrn_dm.devices.virtio_net.coalescing import Coalescing
from acrn_dm.devices.virtio_net.config import NetConfig
from acrn_dm.devices.virtio_net.control import Answer, Command, Control, Done, Request, filtered
from acrn_dm.devices.virtio_net.drivers.carrier import carrier
from acrn_dm.devices.virtio_net.pair import Pair
from acrn_dm.devices.virtio_net.receive_filter import ReceiveFilter
from acrn_dm.devices.virtio_net.request import (
    COALESCING,
    CTRL_GUEST_OFFLOADS,
    CTRL_MAC_ADDR,
    CTRL_VLAN,
    CTRL_VQ,
    FILTERS,
    GUEST_ANNOUNCE,
    GUEST_OFFLOADS,
    HASH_REPORT,
    MAC,
    MQ,
    MRG_RXBUF,
    MTU,
    OFFLOADS,
    RSS,
    SPEED_DUPLEX,
    STATUS,
    header_bytes,
)
from acrn_dm.devices.virtio_net.steering._hash import FrameHash
from acrn_dm.devices.virtio_net.steering.parameters import (
    HASH_TYPES,
    MAX_KEY,
    MAX_TABLE,
    parse_hashes,
    parse_steering,
)
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.native._plane import Plane
from acrn_dm.virtio.placement import Placement, at_socket
from acrn_dm.virtio.queue import Queue

log = logging.getLogger(__name__)

QUEUE_SIZE = 1024
CONTROL_SIZE = 64
LINK_UP, ANNOUNCE = 1, 2  # bits of status
# mac, status, max_virtqueue_pairs, mtu, speed, duplex, and of hashes the longest key and table, and types: 5.1.4
CONFIG = struct.Struct("<6sHHHIBBHI")
CONFIG_ENDS = ((RSS | HASH_REPORT, 24), (SPEED_DUPLEX, 17), (MTU, 12), (MQ, 10))  # fields follow from the features
CONFIG_WITHOUT = 8
UNKNOWN_SPEED = 0xFFFF_FFFF


class NetDevice(VirtioDevice):
    """A network card on a tap. A pair's queues share one I/O loop, because they share the tap's descriptor.

    Queues 2n and 2n + 1 are pair n; the last queue is the control queue, or for a driver without MQ number 2 (5.1.2). A
    driver may enable queues that are neither: nothing is done with them.
    """

    device_id = 1
    pci_class = 0x020000
    transitional = True
    in_order = True

    def __init__(
        self, config: NetConfig, context: DeviceContext, open_backend: Callable[[str], PacketFile] = backend.open_tap
    ) -> None:
        super().__init__(context)
        if config.vhost != "off" and context.backend is not None:
            raise ConfigError("vhost and backend exclude each other", option=self.name)
        if config.driver is not None and context.iothread.count > 1:  # it knows of one thread
            raise ConfigError("a packet driver's frames are moved by one thread", option=f"{self.name} iothread")
        self._carrier = carrier(self.name, config, context.driver, open_backend)
        self.config = config = self._carrier.config
        self.taps: tuple[PacketFile, ...] = ()
        self.pairs: tuple[Pair, ...] = ()
        self._control: Control | None = None
        self._header_bytes = 0  # of the packet headers that were negotiated
        self._features = 0  # what a driver has negotiated, with its later choice of offloads
        self._deaf: frozenset[int] = frozenset()  # pairs whose receive queue was reset alone
        self._pairs_used = 1  # 5.1.6.5.5: until the driver asks for more
        self._offloads: int | None = None  # what the driver chose of those it negotiated, if it did
        self._mac = config.address(context.bdf)
        self._filter: ReceiveFilter | None = None  # what the driver wants, from its start on
        self._coalescing = Coalescing()
        self._hashes: FrameHash | None = None  # what frames are hashed by, and steered if the driver wants that
        self._link = 0
        self._cut = False  # the link is down by command
        self._unplugged = False  # it is by the driver's word
        self._announce = False  # the driver is asked to tell the network where it is

    @property
    def features(self) -> int:
        """Offloads where the interface has packet headers, which a tap always has. Another process has them from the
        negotiated features; there is no way to tell it of a later choice.
        """
        offered = MAC | STATUS | MRG_RXBUF | CTRL_VQ | GUEST_ANNOUNCE | CTRL_MAC_ADDR | self._optional
        if all(tap.vnet_header for tap in self.taps):
            offered |= OFFLOADS & self._carrier.offloads
        if self.config.vhost_user is None:  # whoever moves frames elsewhere knows of no filter, nor when we interrupt
            offered |= FILTERS | COALESCING
        return offered | (CTRL_GUEST_OFFLOADS if self.taps and offered & OFFLOADS else 0)

    @property
    def _optional(self) -> int:
        """Features that follow from the options."""
        offered = MQ if self.config.mq > 1 else 0
        offered |= RSS if self.config.rss else 0
        offered |= HASH_REPORT if self.config.hash else 0
        offered |= MTU if self.config.mtu is not None else 0
        return offered | (SPEED_DUPLEX if self.config.speed is not None or self.config.duplex is not None else 0)

    @property
    def queue_sizes(self) -> Sequence[int]:
        """The pairs, then the control queue."""
        return (*((QUEUE_SIZE,) * (2 * self.config.mq)), CONTROL_SIZE)

    @property
    def config_size(self) -> int:
        """mac, status, and what the options add."""
        return next((end for feature, end in CONFIG_ENDS if self._optional & feature), CONFIG_WITHOUT)

    def thread(self, queue: int) -> int:
        """Each pair has one of its own, if there are so many; the control queue the first."""
        return queue // 2 if queue < 2 * self.config.mq else 0

    def local_queues(self, features: int) -> Collection[int]:
        """The control queue, and what the driver has no right to use."""
        return range(2 * self._pairs(features), len(self.queue_sizes))

    def wants_queue(self, index: int) -> bool:
        """Pairs that VQ_PAIRS_SET did not ask for exist and rest, and all without a link."""
        return index // 2 < self._pairs_used and not self._cut

    @property
    def placement(self) -> Placement:
        """The kernel's vhost or another process, if asked for; the interface, or the socket."""
        if self.config.vhost_user is not None:
            return at_socket(self.config.vhost_user)
        tap, vhost = self._carrier.text, self.config.vhost
        if vhost == "off":
            return Placement(text=tap)
        note = "vhost, if usable" if vhost == "auto" else "vhost"
        return Placement(backend="vhost", optional=vhost == "auto", text=f"{tap} ({note})")

    def check(self) -> list[str]:
        """Whether the interface is there, and nobody else's."""
        return self._carrier.check()

    def claims(self) -> Sequence[Claim]:
        """The interface, the socket, or what the driver says."""
        return self._carrier.claims()

    def realize(self, resources: Resources) -> None:
        """Open the tap, or the driver. Raises ConfigError, HostError or PluginError."""
        loop = resources.main_loop
        self.taps = self._carrier.open(lambda up: loop.call_soon(lambda: self._carrier_up(up)))
        guard = functools.partial(guarded, self)
        self.pairs = tuple(Pair(tap, self._tap_gone, guard, mtu=self.config.mtu or 0) for tap in self.taps)
        self._link = LINK_UP

    def sandbox_needs(self) -> Needs:
        """What is asked of a tap, or what the driver says."""
        return self._carrier.sandbox_needs()

    def read_config(self, offset: int, size: int) -> bytes:
        """5.1.4."""
        config = self.config
        up = LINK_UP if self._link and not self._cut and not self._unplugged else 0
        speed = UNKNOWN_SPEED if config.speed is None else config.speed
        fields = (up | (ANNOUNCE if self._announce else 0), config.mq, config.mtu or 0, speed, config.duplex_code)
        return CONFIG.pack(self._mac, *fields, MAX_KEY, MAX_TABLE, HASH_TYPES)[offset : offset + size]

    def write_config(self, offset: int, data: bytes) -> None:
        """Read-only for a modern driver (5.1.4)."""

    def write_legacy_config(self, offset: int, data: bytes) -> None:
        """Legacy drivers may write the address (5.1.4.1): it is stored until the reset and means nothing to us."""
        mac = bytearray(self._mac)
        room = max(0, len(mac) - offset)
        mac[offset : offset + len(data[:room])] = data[:room]
        self._mac = bytes(mac)
        if self._filter is not None:
            self._use(attrs.evolve(self._filter, mac=self._mac))

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        """Tell the tap what was negotiated and begin to read. Raises HostError.

        The queues of the pairs are missing where somebody else moves the frames.
        """
        control, served = 2 * self._pairs(features), [q.index for q in queues]
        if control > 2 and served and control not in served:  # a front-end has it, and hands over what it enabled
            self._pairs_used = max(served) // 2 + 1
        wanted = features if self._offloads is None else features & ~GUEST_OFFLOADS | self._offloads
        self._features = wanted
        vlans = frozenset[int]() if features & CTRL_VLAN else None
        self._use(self._filter or ReceiveFilter(mac=self._mac, vlans=vlans))
        if self._link and self.taps:
            self._header_bytes = header_bytes(features)
            self._configure(wanted & GUEST_OFFLOADS)
        for i, pair in enumerate(self.pairs[: self._pairs(features)]):
            own = [q for q in queues if q.index // 2 == i]
            pair.start(own, wanted, up=bool(self._link), resting=i >= self._pairs_used)
        self._hash(self._hashes)
        if self._link and self.taps:
            self._attach(self._pairs_used)
        for queue in queues:
            self._take_control(queue)
            self._take_data(queue)

    def _take_data(self, queue: Queue) -> None:
        if queue.index < 2 * self._pairs(self._features):
            self._coalescing.take(queue)

    def _take_control(self, queue: Queue) -> None:
        """Serve commands, if *queue* is where they come."""
        features = self._features
        if features & CTRL_VQ and queue.index == 2 * self._pairs(features):
            self._control = Control(queue, features, self.config.mq, self._set_pairs, self._carry_out)

    def queue_reset(self, queue: Queue) -> None:
        """Frames for a receive queue go to others, or nowhere where there is none (5.1.6.5.5.2)."""
        pair = queue.index // 2
        self._coalescing.release(queue.index)
        if self._control is not None and queue is self._control.queue:
            self._control.close()
            self._control = None
        elif pair < len(self.pairs):
            self.pairs[pair].release(queue)
            if queue.index % 2 == 0:
                self.receives(pair, False)

    def queue_enabled(self, queue: Queue) -> None:
        """As at DRIVER_OK."""
        pair = queue.index // 2
        self._take_control(queue)
        self._take_data(queue)
        if pair < min(len(self.pairs), self._pairs(self._features)):
            self.pairs[pair].take(queue, self._features)
            if queue.index % 2 == 0:
                self.receives(pair, True)

    def receives(self, pair: int, able: bool) -> None:
        """Whether the receive queue of *pair* is there; it is not while the driver resets it alone. A tap with several
        queues hands no frames to one that is not.
        """
        self._deaf = self._deaf - {pair} if able else self._deaf | {pair}
        if self._link and len(self.taps) > 1:
            self._told(lambda: self._attach(self._pairs_used))

    def plane(self, features: int, queue: Queue) -> Plane | None:
        """What moves the frames of *queue*, if it is one of a pair's and C can."""
        pair = queue.index // 2
        used = pair < min(len(self.pairs), self._pairs(features))
        return self.pairs[pair].plane(queue, self._features) if used else None

    def handle_queue(self, queue: Queue) -> None:
        """Frames, buffers for them, or commands."""
        if self._control is not None and queue.index == self._control.queue.index:
            self._control.serve()
        elif queue.index // 2 < len(self.pairs):
            self.pairs[queue.index // 2].handle(queue)

    def stop(self) -> None:
        """Let go of the queues; frames that wait in the tap are the next driver's."""
        for pair in self.pairs:
            pair.stop()
        self._coalescing.stop()
        control, self._control = self._control, None
        if control is not None:
            control.close()
        if self._deaf and self.taps and self._link:  # the interface's settings can be put back by an attached one only
            self._told(lambda: self.taps[0].attach(True))
        self._deaf = frozenset()

    def reset(self) -> None:
        """What the driver chose is the driver's."""
        self._mac = self.config.address(self.context.bdf)
        self._pairs_used, self._offloads = 1, None
        self._filter, self._announce = None, False
        self._coalescing.reset()
        self._hashes = None

    def close(self) -> None:
        """Close the tap."""
        self.stop()
        taps, self.taps, self.pairs = self.taps, (), ()
        self._carrier.close()
        for tap in taps:
            tap.close()

    def _pairs(self, features: int) -> int:
        """Those a driver may use that negotiated *features*; the control queue follows them (5.1.2)."""
        return self.config.mq if features & (MQ | RSS) else 1

    def _configure(self, offloads: int) -> None:
        for tap in self.taps:
            tap.configure(header_bytes=self._header_bytes, offloads=offloads)

    def _attach(self, pairs: int) -> None:
        for i, tap in enumerate(self.taps):
            unread = self._hashes is not None and self._hashes.steers and not self.pairs[i].served
            tap.attach(i < pairs and i not in self._deaf and not unread)

    def _set_pairs(self, pairs: int, done: Done) -> None:
        """The driver's VQ_PAIRS_SET. The interface's queues decide where frames go, whoever moves them; without an
        interface the other process does, which is told. What was read for a pair that is switched off is forgotten: the
        driver gets nothing by it from the acknowledgement on (5.1.6.5.5). It ends steering by hashes (5.1.6.5.5).
        """
        assert self._control is not None
        assert self.transport is not None
        if self._hashes is not None and self._hashes.steers:
            self._hash(self._hashes.unsteered())
        loop, told = self._control.queue.loop, self._use_pairs(pairs)
        answer = guarded(self, lambda: done(told))
        self.transport.queues_changed(lambda: loop.call_soon(answer))

    def _use_pairs(self, pairs: int) -> bool:
        for pair in self.pairs[pairs:]:
            pair.rest()
        told = self._told(lambda: self._attach(pairs))
        if told:
            self._pairs_used = pairs
        else:
            self._told(lambda: self._attach(self._pairs_used))
        for pair in self.pairs[: self._pairs_used]:
            pair.go_on()
        return told

    def _steer(self, data: bytes) -> bool:
        """RSS_CONFIG: frames go where their hashes say, whichever pair's descriptor they come by."""
        wanted = parse_steering(data, self._pairs(self._features))
        if wanted is None:
            return False
        before = self._hashes
        self._hash(wanted.hashes)
        if self._use_pairs(wanted.pairs):
            return True
        self._hash(before)
        return False

    def _report(self, data: bytes) -> bool:
        """HASH_CONFIG: frames have hashes, the interface chooses their queues."""
        hashes = parse_hashes(data)
        if hashes is not None:
            self._hash(hashes)
        return hashes is not None

    def _hash(self, hashes: FrameHash | None) -> None:
        self._hashes = hashes
        for pair in self.pairs:
            pair.steer(hashes, self.pairs)

    def _carry_out(self, request: Request) -> Answer:
        """A command that is done when this returns; frames under way are held to it, too."""
        if request.command in COALESCING_COMMANDS:
            return self._coalescing.carry_out(request)
        if request.command is Command.GUEST_OFFLOADS_SET:
            return self._set_offloads(request.value)
        if request.command is Command.MQ_RSS_CONFIG:
            return self._steer(request.data)
        if request.command is Command.MQ_HASH_CONFIG:
            return self._report(request.data)
        if request.command is Command.ANNOUNCE_ACK:
            self._announce = False
            return True
        assert self._filter is not None
        wanted = filtered(self._filter, request)
        if wanted is not None:
            self._mac = wanted.mac
            self._use(wanted)
        return wanted is not None

    def _use(self, wanted: ReceiveFilter) -> None:
        self._filter = wanted
        for pair in self.pairs:
            pair.want(None if wanted.open else wanted)

    def set_link(self, up: bool) -> None:
        """Plug the cable in, or pull it: without a link no frame goes either way, and those that come are lost. A
        driver that finds itself on the network again is asked to say so (GUEST_ANNOUNCE). Raises ConfigError where
        there is no interface any more.
        """
        if not self._link:
            raise ConfigError(f"{self._carrier.text} is gone", option=self.name)
        if self._cut is not up:
            return
        self._cut = not up
        for pair in self.pairs:
            pair.cut(self._cut)
        self._announce = up and bool(self._features & GUEST_ANNOUNCE)
        if self.transport is not None:
            self.transport.queues_changed(lambda: None)
        self.config_changed()

    def _set_offloads(self, offloads: int) -> bool:
        """5.1.6.5.6.1: only what was negotiated."""
        if self._control is None or offloads & ~(self._control.features & GUEST_OFFLOADS):
            return False
        told = self._told(lambda: self._configure(offloads))
        if told:
            self._offloads = offloads
            self._features = self._features & ~GUEST_OFFLOADS | offloads
            for pair in self.pairs:
                pair.limit(offloads)
        return told

    def _told(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except HostError as e:
            log.warning("%s: %s", self.name, e)
            return False
        return True

    def _tap_gone(self, error: OSError) -> None:
        if self._link:
            log.error("%s: %s: %s; the link is down", self.name, self._carrier.text, error)
            self._link = 0
            self.config_changed()

    def _carrier_up(self, up: bool) -> None:
        """A driver's word on the link: the guest is told, and what it sends all the same is the driver's to judge."""
        if self._unplugged is up:
            self._unplugged = not up
            self.config_changed()
