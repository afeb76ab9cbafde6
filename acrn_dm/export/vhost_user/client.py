"""One vhost-user client: its requests, in a table, and what they make of device, memory and rings."""

import logging
import os
import socket
from collections.abc import Callable
from typing import NamedTuple

from acrn_dm.backends.wire import message as wire
from acrn_dm.backends.wire import payload
from acrn_dm.backends.wire.channel import Channel
from acrn_dm.backends.wire.message import BackendRequest, Message, PeerError, ProtocolFeature, Request
from acrn_dm.base.errors import AcrnDmError, GuestError
from acrn_dm.export.turns import take_turn
from acrn_dm.export.vhost_user.device import ExportedDevice
from acrn_dm.export.vhost_user.inflight import make_region
from acrn_dm.export.vhost_user.rings import Rings
from acrn_dm.export.vhost_user.vring import Vring, check_eventfd
from acrn_dm.ring.factory import ring_format
from acrn_dm.virtio.defs import Status
from acrn_dm.virtio.optional import NegotiationWatcher

log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """An answer with a descriptor, which is closed when it is sent."""

    payload: bytes
    fd: int


# Returns the answer, or its payload, None for "no answer of its own".
Handler = Callable[["Client", Message], bytes | Answer | None]

OWN = wire.PROTOCOL_FEATURES | wire.LOG_ALL  # features between the two ends
OFFERED = (
    ProtocolFeature.MQ
    | ProtocolFeature.LOG_SHMFD
    | ProtocolFeature.REPLY_ACK
    | ProtocolFeature.BACKEND_REQ
    | ProtocolFeature.RESET_DEVICE
    | ProtocolFeature.CONFIGURE_MEM_SLOTS
    | ProtocolFeature.STATUS
)


def _offered(exported: ExportedDevice) -> ProtocolFeature:
    """For this device: where requests may overtake one another, their rings do not tell which are in flight."""
    config = ProtocolFeature.CONFIG if exported.device.config_size else 0
    notes = ProtocolFeature.INFLIGHT_SHMFD if exported.device.in_order is not True else 0
    return OFFERED | config | notes


class Client:
    """The client's connection and what it has set up. *gone* is called once, when the connection is over."""

    def __init__(self, exported: ExportedDevice, peer: socket.socket, gone: Callable[[], None]) -> None:
        self._exported = exported
        self._device = exported.device
        self._channel = Channel(peer)
        self._gone = gone
        self._back: Channel | None = None
        self._rings = Rings(exported)
        self._offered = _offered(exported)
        self._open = True
        self.is_owner = False
        exported.changed, exported.broken = self._config_changed, self._ring_broken
        exported.main_loop.add(self._channel.fd, self._on_ready)
        exported.main_loop.add(self._rings.memory.shortened, self._on_shortened)

    def close(self) -> None:
        """End the connection and forget everything the client brought. Idempotent."""
        if not self._open:
            return
        self._open = False
        try:
            self._rings.reset()
        except AcrnDmError as e:  # it has no say any more, and the next one is served
            log.warning("%s: %s", self._device.name, e)
        self._exported.main_loop.remove(self._channel.fd)
        self._exported.main_loop.remove(self._rings.memory.shortened)
        self._rings.memory.close()
        self._channel.close()
        self._close_back()
        self._gone()

    def _on_shortened(self) -> None:
        log.warning("the client has shortened memory that its device uses")
        self.close()

    # Messages

    def _on_ready(self) -> None:
        take_turn(self._channel.receive, self._serve, self.close)

    def _serve(self, message: Message) -> None:
        handler = HANDLERS.get(message.code)
        if handler is None or message.is_reply:
            raise PeerError(f"{wire.name(message.code)} is not served")
        try:
            answer = handler(self, message)
        except GuestError as e:  # the client's driver, not the client: it hears of it and goes on
            log.warning("%s: %s", wire.name(message.code), e)
            self._acknowledge(message, 1)
            return
        if isinstance(answer, Answer):
            try:
                self._channel.send(message.code, answer.payload, flags=wire.REPLY, fds=(answer.fd,))
            finally:
                os.close(answer.fd)
        elif answer is not None:
            self._channel.reply(message, answer)
        else:
            self._acknowledge(message, 0)

    def _acknowledge(self, message: Message, verdict: int) -> None:
        if message.needs_reply and self._rings.protocol & ProtocolFeature.REPLY_ACK:
            self._channel.reply(message, wire.U64.pack(verdict))

    # Features and status

    def get_features(self, message: Message) -> bytes:
        """GET_FEATURES."""
        return wire.U64.pack(self._exported.features | OWN)

    def set_features(self, message: Message) -> None:
        """SET_FEATURES. Whether rings are enabled is none of its business, unless there are no protocol features."""
        chosen = message.number
        unknown = chosen & ~(self._exported.features | OWN)
        if unknown:
            raise PeerError(f"SET_FEATURES with {unknown:#x}, which was not offered")
        before, self._rings.features = self._rings.features, chosen
        changed = before ^ chosen
        if changed & wire.LOG_ALL:
            self._rings.update_log()
        if isinstance(self._device, NegotiationWatcher) and changed != wire.LOG_ALL:
            self._device.negotiated(chosen & ~OWN)

    def get_protocol_features(self, message: Message) -> bytes:
        """GET_PROTOCOL_FEATURES."""
        return wire.U64.pack(self._offered)

    def set_protocol_features(self, message: Message) -> None:
        """SET_PROTOCOL_FEATURES; unknown bits are ignored."""
        self._rings.protocol = ProtocolFeature(message.number & self._offered)

    def get_queue_num(self, message: Message) -> bytes:
        """GET_QUEUE_NUM."""
        return wire.U64.pack(len(self._rings))

    def set_owner(self, message: Message) -> None:
        """SET_OWNER: "sets the sender as the owner of the session"."""
        self.is_owner = True

    def nothing(self, message: Message) -> None:
        """RESET_OWNER, which old clients send at times when it must not have an effect."""

    def get_status(self, message: Message) -> bytes:
        """GET_STATUS."""
        return wire.U64.pack(self._rings.status)

    def set_status(self, message: Message) -> None:
        """SET_STATUS; 0 stops the device and forgets no ring."""
        self._rings.status = message.number & 0xFF
        if self._rings.status & Status.DRIVER_OK:
            self._rings.start_if_ready()
        else:
            self._rings.stop()

    def reset_device(self, message: Message) -> None:
        """RESET_DEVICE."""
        self._rings.reset()

    # Memory

    def set_mem_table(self, message: Message) -> None:
        """SET_MEM_TABLE."""
        regions = payload.parse_memory_table(message)
        self._rings.with_device_stopped(lambda: self._rings.memory.replace(regions, message.fds))

    def get_max_mem_slots(self, message: Message) -> bytes:
        """GET_MAX_MEM_SLOTS."""
        return wire.U64.pack(payload.MAX_SLOTS)

    def add_mem_reg(self, message: Message) -> None:
        """ADD_MEM_REG."""
        fields = payload.parse_single_region(message)
        self._rings.with_device_stopped(lambda: self._rings.memory.add(fields, message.take_fd()))

    def rem_mem_reg(self, message: Message) -> None:
        """REM_MEM_REG; QEMU sends a descriptor along that is of no use."""
        fields = payload.parse_single_region(message)
        self._rings.with_device_stopped(lambda: self._rings.memory.remove(fields))

    # Rings

    def set_vring_num(self, message: Message) -> None:
        """SET_VRING_NUM."""
        index, size = message.fields(payload.VRING_STATE)
        self._rings.stopped(index).set_size(size, ring_format(self._rings.features))

    def set_vring_addr(self, message: Message) -> None:
        """SET_VRING_ADDR. They are looked up when the ring starts: memory may come later. Other ones stop it."""
        index, desc, avail, used = payload.parse_vring_addr(message)
        vring = self._rings.ring(index)
        if (vring.desc, vring.avail, vring.used) != (desc, avail, used):
            self._rings.stop()
            vring.desc, vring.avail, vring.used = desc, avail, used
        log = payload.parse_vring_log(message)
        if vring.log != log:  # a migration begins or ends; rings that run go on
            vring.log = log
            self._rings.update_log()

    def set_vring_base(self, message: Message) -> None:
        """SET_VRING_BASE."""
        index, base = message.fields(payload.VRING_STATE)
        try:
            position = ring_format(self._rings.features).position_said(base)
        except ValueError as e:
            raise PeerError(f"SET_VRING_BASE of ring {index} to {base}") from e
        self._rings.place(index, position)

    def get_vring_base(self, message: Message) -> bytes:
        """GET_VRING_BASE stops the ring; where it was is kept."""
        index, _ = message.fields(payload.VRING_STATE)
        self._rings.stop()
        vring = self._rings.ring(index)
        vring.set_kick(-1)
        position = vring.position or ring_format(self._rings.features).start
        return payload.VRING_STATE.pack(index, position.base)

    def set_vring_kick(self, message: Message) -> None:
        """SET_VRING_KICK starts the ring."""
        vring, fd = self._ring_and_fd(message)
        if fd < 0:
            raise PeerError(f"ring {vring.index} without a kick: polling is not served")
        self._rings.stop()
        vring.set_kick(fd)
        self._rings.start_if_ready()

    def set_vring_call(self, message: Message) -> None:
        """SET_VRING_CALL; also while the ring runs, when the client masks a vector."""
        vring, fd = self._ring_and_fd(message)
        vring.call.replace(fd)

    def set_vring_err(self, message: Message) -> None:
        """SET_VRING_ERR; also while the ring runs."""
        vring, fd = self._ring_and_fd(message)
        vring.set_err(fd)

    def set_vring_enable(self, message: Message) -> None:
        """SET_VRING_ENABLE."""
        index, enable = message.fields(payload.VRING_STATE)
        if enable not in (0, 1):
            raise PeerError(f"SET_VRING_ENABLE of ring {index} with {enable}")
        self._rings.enable(index, bool(enable))

    # Configuration space

    def get_config(self, message: Message) -> bytes:
        """GET_CONFIG; an empty answer says no."""
        offset, room = payload.parse_config(message)
        if offset + len(room) > self._device.config_size:
            return b""
        return payload.config(offset, self._device.read_config(offset, len(room)))

    def set_config(self, message: Message) -> None:
        """SET_CONFIG."""
        offset, data = payload.parse_config(message)
        if offset + len(data) <= self._device.config_size:
            self._device.write_config(offset, data)

    def set_backend_req_fd(self, message: Message) -> None:
        """SET_BACKEND_REQ_FD."""
        fd = message.take_fd()
        self._close_back()
        try:
            self._back = Channel(socket.socket(fileno=fd))
        except OSError as e:
            os.close(fd)
            raise PeerError(f"SET_BACKEND_REQ_FD with no socket: {e}") from e

    # Pages written

    def set_log_base(self, message: Message) -> bytes:
        """SET_LOG_BASE, which is always answered."""
        self._must_be_agreed(message, ProtocolFeature.LOG_SHMFD)
        self._rings.log.replace(message)
        self._rings.update_log()
        return wire.U64.pack(0)

    def set_log_fd(self, message: Message) -> None:
        """SET_LOG_FD: an eventfd for logs that are full, which these never are."""
        os.close(message.take_fd())

    # What is in flight

    def get_inflight_fd(self, message: Message) -> Answer:
        """GET_INFLIGHT_FD."""
        self._must_be_agreed(message, ProtocolFeature.INFLIGHT_SHMFD)
        return Answer(*make_region(message, ring_format(self._rings.features), len(self._rings)))

    def set_inflight_fd(self, message: Message) -> None:
        """SET_INFLIGHT_FD, before rings start."""
        self._must_be_agreed(message, ProtocolFeature.INFLIGHT_SHMFD)
        self._rings.stop()
        self._rings.inflight.replace(message, len(self._rings))

    # Helpers

    def _must_be_agreed(self, message: Message, feature: ProtocolFeature) -> None:
        """Raises PeerError where the client may not say such a thing."""
        if not self._rings.protocol & feature:
            raise PeerError(f"{wire.name(message.code)} without {feature.name}")

    def _ring_and_fd(self, message: Message) -> tuple[Vring, int]:
        index, has_fd = payload.parse_vring_fd(message)
        vring = self._rings.ring(index)
        return vring, check_eventfd(message.take_fd()) if has_fd else -1

    def _config_changed(self) -> None:
        if self._back is not None:
            try:
                self._back.send(BackendRequest.CONFIG_CHANGE_MSG)
            except AcrnDmError as e:
                log.warning("telling the client of a configuration change: %s", e)
                self._close_back()

    def _ring_broken(self, error: Exception) -> None:
        log.warning("%s: %s", self._device.name, error)
        self._rings.broken()

    def _close_back(self) -> None:
        back, self._back = self._back, None
        if back is not None:
            back.close()


HANDLERS: dict[int, Handler] = {
    Request.GET_FEATURES: Client.get_features,
    Request.SET_FEATURES: Client.set_features,
    Request.SET_OWNER: Client.set_owner,
    Request.RESET_OWNER: Client.nothing,
    Request.SET_MEM_TABLE: Client.set_mem_table,
    Request.SET_VRING_NUM: Client.set_vring_num,
    Request.SET_VRING_ADDR: Client.set_vring_addr,
    Request.SET_VRING_BASE: Client.set_vring_base,
    Request.GET_VRING_BASE: Client.get_vring_base,
    Request.SET_VRING_KICK: Client.set_vring_kick,
    Request.SET_VRING_CALL: Client.set_vring_call,
    Request.SET_VRING_ERR: Client.set_vring_err,
    Request.GET_PROTOCOL_FEATURES: Client.get_protocol_features,
    Request.SET_PROTOCOL_FEATURES: Client.set_protocol_features,
    Request.GET_QUEUE_NUM: Client.get_queue_num,
    Request.SET_VRING_ENABLE: Client.set_vring_enable,
    Request.SET_BACKEND_REQ_FD: Client.set_backend_req_fd,
    Request.GET_CONFIG: Client.get_config,
    Request.SET_CONFIG: Client.set_config,
    Request.SET_LOG_BASE: Client.set_log_base,
    Request.SET_LOG_FD: Client.set_log_fd,
    Request.GET_INFLIGHT_FD: Client.get_inflight_fd,
    Request.SET_INFLIGHT_FD: Client.set_inflight_fd,
    Request.RESET_DEVICE: Client.reset_device,
    Request.GET_MAX_MEM_SLOTS: Client.get_max_mem_slots,
    Request.ADD_MEM_REG: Client.add_mem_reg,
    Request.REM_MEM_REG: Client.rem_mem_reg,
    Request.SET_STATUS: Client.set_status,
    Request.GET_STATUS: Client.get_status,
}
