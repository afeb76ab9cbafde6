"""Conversations with a vhost-user back-end: what is said, and in which order (docs/interop/vhost-user.rst).

Per connection: ``greet``. Per driver: ``prepare``, which tells the memory regions once per connection, ``set_up``,
``enable``, ``run``, at last ``stop``. Rings are enabled last, and GET_VRING_BASE comes before they are disabled: some
back-ends answer it wrongly for a disabled ring.
"""

import socket
from collections.abc import Callable, Mapping

import attrs

from acrn_dm.backends.user.exchange import Answer, Ask, Talk
from acrn_dm.backends.user.inflight import Inflight, InflightSlot
from acrn_dm.backends.wire import message as wire
from acrn_dm.backends.wire import payload
from acrn_dm.backends.wire.message import Message, PeerError, ProtocolFeature, Request
from acrn_dm.base.records import define, frozen
from acrn_dm.ring.position import RingPosition
from acrn_dm.virtio.defs import Status

NO_FEATURES = ProtocolFeature(0)
MAX_AHEAD = 32  # unanswered requests in a row: a socket holds a few hundred, and the back-end may not have read any
READY = Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK


@define(kw_only=True, eq=False)
class Peer:
    """The back-end behind one connection, as far as it is known."""

    features: int = attrs.field(repr=hex)  # virtio features and PROTOCOL_FEATURES
    protocol: ProtocolFeature = NO_FEATURES
    queues: int | None = None  # None: it did not say; queue pairs, for a network device
    slots: int = payload.MAX_REGIONS
    config: bytes = b""
    knows_memory: bool = False
    ahead: int = 0  # requests sent since it has shown last that it reads them

    @property
    def enables_rings(self) -> bool:
        """Rings are disabled until SET_VRING_ENABLE."""
        return bool(self.features & wire.PROTOCOL_FEATURES)


@frozen(kw_only=True)
class Wishes:
    """The wishes of a device: what it wants of its back-end, what it can't do without, and how much configuration space
    it asks for.
    """

    protocol: ProtocolFeature
    required: ProtocolFeature = NO_FEATURES
    config_size: int = 0


@frozen(kw_only=True)
class Region:
    """A region of guest memory. *user* is the address that ring addresses are relative to."""

    gpa: int = attrs.field(repr=hex)
    size: int = attrs.field(repr=hex)
    user: int = attrs.field(repr=hex)
    fd: int


@frozen(kw_only=True)
class Vring:
    """One ring to start: addresses as in *Region.user*, *base* is the first available entry to take."""

    index: int
    size: int
    desc: int = attrs.field(repr=hex)
    avail: int = attrs.field(repr=hex)
    used: int = attrs.field(repr=hex)
    base: int
    kick_fd: int
    call_fd: int


@frozen(kw_only=True)
class Plan:
    """The facts about one driver that ``prepare`` and ``set_up`` tell."""

    features: int = attrs.field(repr=hex)
    regions: tuple[Region, ...]
    vrings: tuple[Vring, ...]


def greet(wishes: Wishes, back_channel: socket.socket | None = None) -> Talk[Peer]:
    """The first words on a connection: who are you, what can you do. Closes *back_channel*, the back-end's end."""
    try:
        return (yield from _greet(wishes, back_channel))
    finally:
        if back_channel is not None:
            back_channel.close()


def _greet(wishes: Wishes, back_channel: socket.socket | None) -> Talk[Peer]:
    peer = Peer(features=(yield from _get_u64(Request.GET_FEATURES)))
    if peer.features & wire.PROTOCOL_FEATURES:
        offered = yield from _get_u64(Request.GET_PROTOCOL_FEATURES)
        peer.protocol = ProtocolFeature(offered & wishes.protocol)
        yield Ask(code=Request.SET_PROTOCOL_FEATURES, payload=wire.U64.pack(peer.protocol), answer=Answer.NONE)
    missing = wishes.required & ~peer.protocol
    if missing:
        raise PeerError(f"it lacks protocol features that this device needs: {missing.name}")
    yield from _command(peer, Request.SET_OWNER)
    if peer.protocol & ProtocolFeature.MQ:
        peer.queues = yield from _get_u64(Request.GET_QUEUE_NUM)
    if peer.protocol & ProtocolFeature.CONFIGURE_MEM_SLOTS:
        peer.slots = yield from _get_u64(Request.GET_MAX_MEM_SLOTS)
    if peer.protocol & ProtocolFeature.BACKEND_REQ and back_channel is not None:
        yield from _command(peer, Request.SET_BACKEND_REQ_FD, fds=(back_channel.fileno(),))
    if wishes.config_size:
        peer.config = yield from get_config(wishes.config_size)
    return peer


def get_config(size: int) -> Talk[bytes]:
    """The device's configuration space."""
    answer = yield Ask(code=Request.GET_CONFIG, payload=payload.config(0, bytes(size)))
    said = _payload(answer)
    if not said:  # how some back-ends say no
        raise PeerError(f"GET_CONFIG of {size} bytes was refused")
    if len(said) != payload.CONFIG.size + size:
        raise PeerError(f"GET_CONFIG of {size} bytes was answered with {len(said)}")
    return said[payload.CONFIG.size :]


def set_config(peer: Peer, offset: int, data: bytes) -> Talk[None]:
    """The driver wrote *data* at *offset*."""
    yield from _command(peer, Request.SET_CONFIG, payload.config(offset, data))


def prepare(peer: Peer, plan: Plan, inflight: InflightSlot | None = None) -> Talk[None]:
    """Everything but the rings. Notes of what is in flight are shared where both sides can."""
    yield from choose(peer, plan.features)
    yield from _set_status(peer, READY)
    if inflight is not None and peer.protocol & ProtocolFeature.INFLIGHT_SHMFD:
        yield from _share_inflight(peer, inflight)
    if not peer.knows_memory:
        yield from _share_memory(peer, plan.regions)


def choose(peer: Peer, features: int) -> Talk[None]:
    """The driver accepted *features*, as far as the back-end knows them."""
    declared = features & peer.features | peer.features & wire.PROTOCOL_FEATURES
    yield from _command(peer, Request.SET_FEATURES, wire.U64.pack(declared))


def set_up(peer: Peer, plan: Plan, err_fd: int) -> Talk[None]:
    """Tell where the rings are; *err_fd* is written when one is broken. They are still disabled, if they can be."""
    for vring in plan.vrings:
        yield from _set_up(peer, vring, err_fd)


def enable(peer: Peer, states: Mapping[int, bool]) -> Talk[None]:
    """Enable and disable rings, by their index. At the end that is done, not only said: the driver goes on then, and
    what it does next must not overtake this on its way through an eventfd.
    """
    if not peer.enables_rings or not states:
        return
    for index, enabled in states.items():
        yield from _command(peer, Request.SET_VRING_ENABLE, payload.VRING_STATE.pack(index, enabled))
    if not peer.protocol & ProtocolFeature.REPLY_ACK:
        yield from _catch_up(peer)


def run(peer: Peer) -> Talk[None]:
    """The driver is ready."""
    yield from _set_status(peer, READY | Status.DRIVER_OK)


def stop(
    peer: Peer,
    indices: tuple[int, ...],
    position_said: Callable[[int], RingPosition] = RingPosition.from_base,
    *,
    reset: bool = True,
) -> Talk[dict[int, RingPosition]]:
    """Take the rings back; returns where each is, *position_said* being what their format makes of the answer. With
    *reset* the driver is forgotten, too.
    """
    positions = {}
    for index in indices:
        base = yield from _take_back(index)
        try:
            positions[index] = position_said(base)
        except ValueError as e:
            raise PeerError(f"GET_VRING_BASE of ring {index}: {e}") from e
    if peer.enables_rings:
        for index in indices:
            yield from _command(peer, Request.SET_VRING_ENABLE, payload.VRING_STATE.pack(index, 0))
    if reset:
        yield from forget_driver(peer)
    yield from _set_status(peer, Status(0))
    return positions


def forget_driver(peer: Peer) -> Talk[None]:
    """The driver is gone, with what it said through queues; where the back-end has a word for that."""
    if peer.protocol & ProtocolFeature.RESET_DEVICE:
        yield from _command(peer, Request.RESET_DEVICE)


def stop_ring(peer: Peer, index: int) -> Talk[None]:
    """Take one ring back; the others go on. Where it was does not matter: it begins anew."""
    yield from _take_back(index)
    if peer.enables_rings:
        yield from _command(peer, Request.SET_VRING_ENABLE, payload.VRING_STATE.pack(index, 0))


def _take_back(index: int) -> Talk[int]:
    """Stop a ring; returns where it is, as the back-end says it."""
    answer = yield Ask(code=Request.GET_VRING_BASE, payload=payload.VRING_STATE.pack(index, 0))
    assert answer is not None
    said, base = answer.fields(payload.VRING_STATE)
    if said != index:
        raise PeerError(f"GET_VRING_BASE of ring {index} was answered with ring {said} at {base}")
    return base


def _set_up(peer: Peer, vring: Vring, err_fd: int) -> Talk[None]:
    index = vring.index
    yield from _command(peer, Request.SET_VRING_NUM, payload.VRING_STATE.pack(index, vring.size))
    yield from _command(peer, Request.SET_VRING_BASE, payload.VRING_STATE.pack(index, vring.base))
    addresses = payload.vring_addr(index, desc=vring.desc, avail=vring.avail, used=vring.used)
    yield from _command(peer, Request.SET_VRING_ADDR, addresses)
    for request, fd in (
        (Request.SET_VRING_ERR, err_fd),
        (Request.SET_VRING_CALL, vring.call_fd),
        (Request.SET_VRING_KICK, vring.kick_fd),  # last: it starts the ring
    ):
        yield from _command(peer, request, payload.vring_fd(index), fds=(fd,))


def _share_memory(peer: Peer, regions: tuple[Region, ...]) -> Talk[None]:
    if len(regions) > peer.slots:
        raise PeerError(f"it takes {peer.slots} memory regions, the guest has {len(regions)}")
    packed = [payload.region(region.gpa, region.size, region.user) for region in regions]
    if peer.protocol & ProtocolFeature.CONFIGURE_MEM_SLOTS:
        for description, region in zip(packed, regions, strict=True):
            yield from _command(peer, Request.ADD_MEM_REG, payload.single_region(description), fds=(region.fd,))
    else:
        fds = tuple(region.fd for region in regions)
        yield from _command(peer, Request.SET_MEM_TABLE, payload.memory_table(packed), fds=fds)
    peer.knows_memory = True


def _share_inflight(peer: Peer, slot: InflightSlot) -> Talk[None]:
    """Give back the region of an earlier connection, or ask for a new one; QEMU sends a new one back, too."""
    if slot.region is None:
        answer = yield Ask(code=Request.GET_INFLIGHT_FD, payload=slot.request(), fd_expected=True)
        assert answer is not None
        slot.region = Inflight.from_answer(answer)
    description = slot.region.describe(slot.queues, slot.entries)
    yield from _command(peer, Request.SET_INFLIGHT_FD, description, fds=(slot.region.fd,))


def _set_status(peer: Peer, status: Status) -> Talk[None]:
    if not peer.protocol & ProtocolFeature.STATUS:
        return
    yield from _command(peer, Request.SET_STATUS, wire.U64.pack(status))
    if status & Status.FEATURES_OK and not status & Status.DRIVER_OK:
        now = yield from _get_u64(Request.GET_STATUS)
        if not now & Status.FEATURES_OK:
            raise PeerError("it refused the features that the driver chose")


def _command(peer: Peer, code: Request, payload: bytes = b"", fds: tuple[int, ...] = ()) -> Talk[None]:
    """A request without an answer of its own: acknowledged where REPLY_ACK was agreed, else confirmed now and then,
    so that a back-end's pace and the number of rings do not matter.
    """
    if peer.protocol & ProtocolFeature.REPLY_ACK:
        yield Ask(code=code, payload=payload, fds=fds, answer=Answer.ACK)
        return
    yield Ask(code=code, payload=payload, fds=fds, answer=Answer.NONE)
    peer.ahead += 1
    if peer.ahead >= MAX_AHEAD:
        yield from _catch_up(peer)


def _catch_up(peer: Peer) -> Talk[None]:
    """Ask what every back-end answers; requests are served in order, so all before are done then."""
    yield from _get_u64(Request.GET_FEATURES)
    peer.ahead = 0


def _get_u64(code: Request) -> Talk[int]:
    answer = yield Ask(code=code)
    assert answer is not None
    return answer.number


def _payload(answer: Message | None) -> bytes:
    assert answer is not None
    return answer.payload
