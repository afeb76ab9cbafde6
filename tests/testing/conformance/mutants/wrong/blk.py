"""Disks that are wrong (virtio 5.2)."""

from typing import Any

import attrs

from acrn_dm import Chain, Queue
from acrn_dm.devices.virtio_blk.device import BlkDevice
from acrn_dm.devices.virtio_blk.request import HEADER, Limits, Op, Request, Status
from tests.testing.conformance.mutants.registry import breaks

CONFIG_WCE, FLUSH = 1 << 11, 1 << 9


def _operation(chain: Chain) -> tuple[int, int]:
    """Type and sector, without moving the cursor."""
    kind, _, sector = HEADER.unpack(b"".join(bytes(part) for part in chain.readable(0, HEADER.size)))
    return kind, sector


@breaks("d.blk.capacity", "dm.blk.end", how="blk")
class CountsItsCapacityInBytes(BlkDevice):
    """Shows its capacity in bytes."""

    def read_config(self, offset: int, size: int) -> bytes:
        space = super().read_config(0, self.config_size)
        capacity = 512 * int.from_bytes(space[:8], "little")
        return (capacity.to_bytes(8, "little") + space[8:])[offset : offset + size]


@breaks("d.cfg.le", "d.blk.capacity", "dm.blk.end", how="blk")
class ShowsItsCapacityBackwards(BlkDevice):
    """Shows its capacity in the other byte order."""

    def read_config(self, offset: int, size: int) -> bytes:
        space = super().read_config(0, self.config_size)
        return (space[7::-1] + space[8:])[offset : offset + size]


@breaks("blk.cfg.padding", how="blk")
class LeavesRubbishInThePadding(BlkDevice):
    """Shows something in unused1."""

    def read_config(self, offset: int, size: int) -> bytes:
        return (super().read_config(0, self.config_size - 3) + b"\1\2\3")[offset : offset + size]


@breaks("d.blk.sector512", "d.blk.capacity", "dm.blk.end", how="blk", options="sectorsize=4096")
class CountsItsCapacityInBlocks(BlkDevice):
    """Shows its capacity in blocks of its own size."""

    def read_config(self, offset: int, size: int) -> bytes:
        space = super().read_config(0, self.config_size)
        capacity = int.from_bytes(space[:8], "little") // 8
        return (capacity.to_bytes(8, "little") + space[8:])[offset : offset + size]


class _Answers(BlkDevice):
    """Changes answers."""

    def change(self, chain: Chain, status: Status, filled: int) -> tuple[Status, int]:
        raise NotImplementedError

    def _complete(self, queue: Queue, chain: Chain, status: Status, filled: int) -> None:
        super()._complete(queue, chain, *self.change(chain, status, filled))


@breaks("d.blk.status.values", how="blk")
class CallsUnknownRequestsFailed(_Answers):
    """Answers a request type that it does not know with IOERR."""

    def change(self, chain: Chain, status: Status, filled: int) -> tuple[Status, int]:
        return (Status.IOERR if status is Status.UNSUPP else status), filled


@breaks("d.blk.status.values", "d.blk.capacity", how="blk")
class CallsEverythingOk(_Answers):
    """Answers requests beyond its end with OK."""

    def change(self, chain: Chain, status: Status, filled: int) -> tuple[Status, int]:
        return (Status.OK if status is Status.IOERR else status), filled


@breaks("blk.ro.ioerr", how="blk", options="ro")
class IsSilentAboutReadOnly(_Answers):
    """Answers a write with OK where it may not write, and does not write."""

    def change(self, chain: Chain, status: Status, filled: int) -> tuple[Status, int]:
        return (Status.OK if status is Status.IOERR else status), filled


@breaks("d.blk.used_len.in", "d.vq.used_len", "dm.len_covers_writes", how="blk")
class CountsTheStatusOnly(_Answers):
    """Returns every read with a used length of 1."""

    def _complete(self, queue: Queue, chain: Chain, status: Status, filled: int) -> None:
        if not queue.closed:
            chain.write_at(chain.writable_bytes - 1, bytes((status,)))
            queue.push(chain, 1)


@breaks("d.blk.used_len.in", "split.used.len_bytes_written", "d.vq.used_len", how="blk")
class CountsWhatItDidNotRead(_Answers):
    """Counts the data of a failed read as written."""

    def change(self, chain: Chain, status: Status, filled: int) -> tuple[Status, int]:
        return status, chain.writable_bytes - 1


class _Forgets(BlkDevice):
    """Answers some requests with OK and does nothing about them."""

    forgotten: Op

    def _transfer(self, queue: Queue, chain: Chain, request: Request) -> None:
        if request.op is self.forgotten:
            self._complete(queue, chain, Status.OK, 0)
        else:
            super()._transfer(queue, chain, request)


@breaks("d.blk.req.layout", "dm.blk.data", how="blk")
class ForgetsWrites(_Forgets):
    """Answers writes with OK and writes nothing."""

    forgotten = Op.WRITE


@breaks("blk.stable.flush", how="blk", options="writeback")
class ForgetsFlushes(_Forgets):
    """Answers flushes with OK and flushes nothing."""

    forgotten = Op.FLUSH


@breaks("blk.wz.zeroes", how="blk")
class ForgetsZeroes(_Forgets):
    """Answers a request to write zeroes with OK and leaves what was there."""

    forgotten = Op.WRITE_ZEROES


@breaks("blk.stable.before_complete.wt", "blk.stable.before_complete.noflush", how="blk")
class IsNeverWriteThrough(BlkDevice):
    """Leaves writes in the host's cache, also in write-through mode."""

    def _submit(self, job: Any) -> None:
        job.durable = False
        super()._submit(job)


class _OneSegment(BlkDevice):
    def _accept(self, queue: Queue, chains: list[Chain]) -> None:
        for chain in chains:
            if self.fits(chain):
                super()._accept(queue, [chain])
            else:
                self._complete(queue, chain, Status.IOERR, 0)

    def fits(self, chain: Chain) -> bool:
        return len(chain.writable(chain.writable_bytes - 1)) == 1 and len(chain.writable()) > 1


@breaks("framing.no_assumptions", "d.blk.req.layout", how="blk")
class WantsItsStatusApart(_OneSegment):
    """Fails requests whose status byte has no descriptor of its own."""

    def fits(self, chain: Chain) -> bool:
        return len(chain.writable()[-1]) == 1


@breaks("framing.no_assumptions", "d.blk.req.layout", how="blk")
class WantsItsHeaderWhole(_OneSegment):
    """Fails requests whose header is cut into descriptors."""

    def fits(self, chain: Chain) -> bool:
        return len(chain.readable()[0]) >= HEADER.size


@breaks("d.blk.get_id", how="blk")
class HasNoSerialNumber(_Answers):
    """Answers GET_ID with rubbish behind its name."""

    def realize(self, resources: Any) -> None:
        super().realize(resources)
        self.serial = b"\xff" * 20

    def change(self, chain: Chain, status: Status, filled: int) -> tuple[Status, int]:
        return status, filled


class _Limited(BlkDevice):
    def _current_limits(self) -> Limits:
        return super()._current_limits()


@breaks("blk.ro.ioerr", "blk.ro.no_write", how="blk", options="ro")
class WritesWhereItMayNot(_Limited):
    """Takes writes although it is read-only."""

    def _current_limits(self) -> Limits:
        return attrs.evolve(super()._current_limits(), readonly=False)

    def realize(self, resources: Any) -> None:
        config, self.config = self.config, attrs.evolve(self.config, ro=False)
        super().realize(resources)
        self.config = config


@breaks("blk.wce.init0", how="blk", options="writeback")
class BeginsInWriteBack(BlkDevice):
    """Begins in write-back mode, where the driver did not accept FLUSH."""

    def negotiated(self, features: int) -> None:
        """It does not follow."""
        super().negotiated(features | FLUSH)


@breaks("d.blk.wce.rw", how="blk")
class CanNotBeToldItsMode(BlkDevice):
    """Ignores what the driver writes into writeback."""

    def write_config(self, offset: int, data: bytes) -> None:
        """Nothing."""


@breaks("blk.flush.offer_with_wce", how="blk")
class OffersAModeWithoutFlush(BlkDevice):
    """Offers CONFIG_WCE without FLUSH."""

    @property
    def features(self) -> int:
        return super().features & ~FLUSH


@breaks("blk.capacity.notify", how="blk empty")
class GrowsInSilence(BlkDevice):
    """Says nothing when its capacity has changed."""

    def config_changed(self) -> None:
        """Nothing."""


@breaks("dm.lost_some", "d.blk.num_queues", how="blk", options="mq=2,{image}")
class HasADeadQueue(BlkDevice):
    """Offers two request queues and serves the first."""

    def handle_queue(self, queue: Queue) -> None:
        if queue.index == 0:
            super().handle_queue(queue)


@breaks("blk.dwz.unknown_flags.discard", "blk.discard.unmap", how="blk", options="discard")
class DiscardsWithAnyFlags(BlkDevice):
    """Discards, whatever a segment's flags say."""

    def _accept(self, queue: Queue, chains: list[Chain]) -> None:
        rest = []
        for chain in chains:
            if _operation(chain)[0] == 11:
                self._complete(queue, chain, Status.OK, 0)
            else:
                rest.append(chain)
        super()._accept(queue, rest)
