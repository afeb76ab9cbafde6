"""A disk behind vhost-user, as a program, that takes notes of what is in flight and dies where it is told to.

Protocol feature INFLIGHT_SHMFD is all there is to it; ``peer`` knows the rest of the protocol, ``disk_ring``
what a ring does. A new region is made as a file, for tests to look into. A successor uses none but the one it is given.

On standard output it says ``owes QUEUE HEAD...`` when a ring starts, and ``does QUEUE HEAD TYPE SECTOR`` for a request.
"""

import argparse
import mmap
import os
import signal
import struct
from pathlib import Path

import attrs

from acrn_dm.backends.wire import payload
from acrn_dm.backends.wire.message import PROTOCOL_FEATURES, ProtocolFeature, Request
from acrn_dm.export.vhost_user.client_memory import ClientMemory
from acrn_dm.ring.layout import RingLayout, RingMemory
from tests.backends.user.peers.disk_ring import STEPS, Buffers, Conduct, Ring
from tests.backends.user.peers.inflight_region import QueueNotes, queue_bytes
from tests.backends.user.peers.peer import Answer, Connection, Peer, Received

FEATURES = 1 << 32 | 1 << 12 | 1 << 9 | PROTOCOL_FEATURES  # VERSION_1, MQ, FLUSH
PROTOCOL = ProtocolFeature.MQ | ProtocolFeature.REPLY_ACK | ProtocolFeature.CONFIG | ProtocolFeature.INFLIGHT_SHMFD
REGION_START = 4096  # in its file: whoever keeps the region has to keep that, too
SECTOR = 512
READ, WRITE, FLUSH = 0, 1, 4
OK, UNSUPPORTED = 0, 2


@attrs.define(eq=False)
class Vring:
    """What was said about a ring so far."""

    size: int = 0
    base: int = 0
    desc: int = 0
    used: int = 0
    avail: int = 0
    kick_fd: int = -1
    call_fd: int = -1


class Disk(Peer):
    """*image* at *path*, one connection after another."""

    def __init__(self, path: Path, image: Path, region: Path, conduct: Conduct) -> None:
        self._conduct = conduct
        self._image = os.open(image, os.O_RDWR)
        self._region_path = region
        self._region: mmap.mmap | None = None
        self._memory = ClientMemory()
        self._vrings: dict[int, Vring] = {}
        self._rings: dict[int, Ring] = {}
        answers: dict[int, Answer] = {
            Request.SET_OWNER: self._begin,
            Request.GET_INFLIGHT_FD: self._make_region,
            Request.SET_INFLIGHT_FD: self._take_region,
            Request.SET_MEM_TABLE: self._set_memory,
            Request.SET_VRING_NUM: self._set_state,
            Request.SET_VRING_BASE: self._set_state,
            Request.SET_VRING_ADDR: self._set_addresses,
            Request.SET_VRING_KICK: self._set_eventfd,
            Request.SET_VRING_CALL: self._set_eventfd,
            Request.SET_VRING_ENABLE: self._enable,
            Request.GET_VRING_BASE: self._get_base,
        }
        config = struct.pack("<Q52x", os.fstat(self._image).st_size // SECTOR)
        super().__init__(path, answers, features=FEATURES, protocol=PROTOCOL, config=config)

    # Answers, beyond those of a peer that moves no data

    def _begin(self, connection: Connection, request: Received) -> None:
        connection.socket.settimeout(None)  # a driver may be silent for as long as it likes
        self._stop_all()
        self.answer_well(connection, request)

    def _make_region(self, connection: Connection, request: Received) -> None:
        _, _, queues, entries = payload.parse_inflight(request.payload)
        size = queues * queue_bytes(entries)
        self._region_path.unlink(missing_ok=True)
        fd = os.open(self._region_path, os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, REGION_START + size)
        description = payload.INFLIGHT.pack(size, REGION_START, queues, entries) + bytes(4)
        connection.send(request.code, description, fds=(fd,))
        os.close(fd)

    def _take_region(self, connection: Connection, request: Received) -> None:
        size, start, queues, entries = payload.parse_inflight(request.payload)
        self._region = mmap.mmap(request.fds[0], size, offset=start)
        for index in range(queues):
            self._notes(index, entries).prepare(entries)
        self._entries = entries
        self.answer_well(connection, request)

    def _notes(self, index: int, entries: int) -> QueueNotes:
        assert self._region is not None
        return QueueNotes(self._region, index * queue_bytes(entries))

    def _set_memory(self, connection: Connection, request: Received) -> None:
        regions = list(payload.REGION.iter_unpack(request.payload[payload.TABLE_HEADER.size :]))
        self._memory.replace(regions, [os.dup(fd) for fd in request.fds])
        self.answer_well(connection, request)

    def _set_state(self, connection: Connection, request: Received) -> None:
        index, value = payload.VRING_STATE.unpack(request.payload)
        setattr(self._vring(index), "size" if request.code == Request.SET_VRING_NUM else "base", value)
        self.answer_well(connection, request)

    def _set_addresses(self, connection: Connection, request: Received) -> None:
        index, _, desc, used, avail, _ = payload.VRING_ADDR.unpack(request.payload)
        vring = self._vring(index)
        vring.desc, vring.used, vring.avail = map(self._memory.guest_address, (desc, used, avail))
        self.answer_well(connection, request)

    def _set_eventfd(self, connection: Connection, request: Received) -> None:
        name = "kick_fd" if request.code == Request.SET_VRING_KICK else "call_fd"
        setattr(self._vring(request.payload[0]), name, request.fds[0])
        self.answer_well(connection, request)

    def _enable(self, connection: Connection, request: Received) -> None:
        index, enabled = payload.VRING_STATE.unpack(request.payload)
        if enabled:
            vring = self._vring(index)
            layout = RingLayout(size=vring.size, desc=vring.desc, avail=vring.avail, used=vring.used)
            self._rings[index] = Ring(
                index,
                self._memory.guest_memory,
                layout,
                base=vring.base,
                eventfds=(vring.kick_fd, vring.call_fd),
                notes=self._notes(index, self._entries),
                conduct=self._conduct,
                execute=self._execute,
            )
        self.answer_well(connection, request)

    def _get_base(self, connection: Connection, request: Received) -> None:
        index, _ = payload.VRING_STATE.unpack(request.payload)
        ring = self._rings.pop(index)
        ring.stop()
        connection.send(request.code, payload.VRING_STATE.pack(index, ring.next_avail))

    def _stop_all(self) -> None:
        while self._rings:
            self._rings.popitem()[1].stop()

    def _vring(self, index: int) -> Vring:
        return self._vrings.setdefault(index, Vring())

    def _execute(self, kind: int, sector: int, data: Buffers, memory: RingMemory) -> tuple[int, int]:
        """Move *data*; returns the status and how many bytes were read into memory."""
        if kind not in (READ, WRITE, FLUSH):
            return UNSUPPORTED, 0
        at = start = sector * SECTOR
        for gpa, length in data:
            if kind == WRITE:
                os.pwrite(self._image, memory.read(gpa, length), at)
            else:
                memory.write(gpa, os.pread(self._image, length, at))
            at += length
        if kind == FLUSH:
            os.fdatasync(self._image)
        return OK, at - start if kind == READ else 0


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    for name in ("path", "image", "region"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--gather", type=int, default=0)
    parser.add_argument("--limit", type=int, default=1 << 63)
    parser.add_argument("--die", choices=STEPS)
    options = vars(parser.parse_args())
    path, image, region = (options.pop(name) for name in ("path", "image", "region"))
    disk = Disk(path, image, region, Conduct(**options))
    while disk:
        signal.pause()


if __name__ == "__main__":
    main()
