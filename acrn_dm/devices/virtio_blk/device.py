"""virtio-blk (virtio 5.2): joins requests, image and worker threads.

What is durable when: in write-through mode every completed write is on the medium. In write-back mode a completed flush
means that all writes completed before it are; a write that is still in flight when the flush arrives is not promised
anything (5.2.6.2), so a flush never waits for requests. Requests complete in any order.

A request's used length counts from the start of the writable part, as 2.7.8.2 wants it: data and status when all data
was filled in, else only the data before the first gap.
"""

import errno
import functools
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs

from acrn_dm._fastring import Chain
from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.base.events.io_threads import pin_current_thread
from acrn_dm.base.files.claims import Claim
from acrn_dm.base.sandbox.needs import Needs
from acrn_dm.contract.resources import HostFault, Resources
from acrn_dm.contract.types import DeviceContext
from acrn_dm.devices.virtio_blk import medium
from acrn_dm.devices.virtio_blk.cache_mode import CONFIG_WCE, FLUSH, CacheMode
from acrn_dm.devices.virtio_blk.config import BlkConfig
from acrn_dm.devices.virtio_blk.config_space import ERASE, LAYOUT, QUEUE_SIZE, WRITEBACK_OFFSET, config_space
from acrn_dm.devices.virtio_blk.drivers import opening
from acrn_dm.devices.virtio_blk.drivers.stepping import begin
from acrn_dm.devices.virtio_blk.engine.bounce import BounceBuffer
from acrn_dm.devices.virtio_blk.engine.last_flush import LastFlush
from acrn_dm.devices.virtio_blk.engine.retry import RetryQueue
from acrn_dm.devices.virtio_blk.engine.workers import WorkerPool
from acrn_dm.devices.virtio_blk.error_policy import stops_guest
from acrn_dm.devices.virtio_blk.image.backend import Image
from acrn_dm.devices.virtio_blk.job import Job, data_of, filled, is_for, serial_number, write_data
from acrn_dm.devices.virtio_blk.limits import SECURE_ERASE, accepted, limits_of, offer
from acrn_dm.devices.virtio_blk.native.engines.choice import engine_of
from acrn_dm.devices.virtio_blk.planes import BlkPlanes, can_serve
from acrn_dm.devices.virtio_blk.rates import read_rates
from acrn_dm.devices.virtio_blk.request import Limits, Op, Request, Status, parse
from acrn_dm.devices.virtio_blk.restraint import Restraint
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.features import VERSION_1
from acrn_dm.virtio.native._plane import Plane
from acrn_dm.virtio.placement import Placement
from acrn_dm.virtio.queue import Queue

if TYPE_CHECKING:
    from concurrent.futures import Future

log = logging.getLogger(__name__)

SEG_MAX, BLK_SIZE, TOPOLOGY, MQ = 1 << 2, 1 << 6, 1 << 10, 1 << 12  # feature bits, 5.2.3
COMMON = SEG_MAX | BLK_SIZE | TOPOLOGY | FLUSH | CONFIG_WCE

BATCH, BATCHES = 64, 4  # chains at once, batches per turn of the loop; what is left gets another turn
CACHED_READ_BYTES = 128 << 10  # larger reads would keep the loop busy copying
ERRORS_LOGGED = 10  # per start of the device


class BlkDevice(VirtioDevice):
    """A disk on a raw image, or none yet (``nodisk``: every request fails until an image is adopted)."""

    device_id = 2
    pci_class = 0x010000
    transitional = True

    def __init__(self, config: BlkConfig, context: DeviceContext) -> None:
        super().__init__(context)
        self.config, self._driver = opening.plain(config, context.driver)
        self.serial = serial_number(context.text or str(self.config.path or "nodisk"))
        self.image: Image | None = None
        self.errors = 0  # requests that the host failed
        self._unpausable = False  # that was said
        self._queues = max(1, min(config.mq, context.vcpus))
        self._features = 0
        self._mode = CacheMode(config.cache == "writeback")
        self._limits = Limits(capacity=0)
        self._pools: dict[int, WorkerPool[Job]] = {}
        self._left: tuple[WorkerPool[Job], ...] = ()  # of the last session
        self._planes = BlkPlanes(self.name, self._handed)
        self._ending: dict[int, WorkerPool[Job]] = {}  # of queues that were reset alone
        self._flush: LastFlush | None = None
        self._resources: Resources | None = None
        self._retries: RetryQueue[Job] = RetryQueue(self._pause)
        self._restraint = Restraint(self._transfer)

    @property
    def features(self) -> int:
        """FLUSH and CONFIG_WCE are always there: a driver may want write-back where the option says write-through."""
        if self.config.vhost_user is not None:
            return 0  # the other process says what it has
        return COMMON | (MQ if self._queues > 1 else 0) | offer(self.config, self._limits)

    @property
    def queue_sizes(self) -> Sequence[int]:
        """Request queues only."""
        return (QUEUE_SIZE,) * self._queues

    @property
    def config_size(self) -> int:
        """Up to the last field that a feature on offer has."""
        return LAYOUT.size + (ERASE.size if self.features & SECURE_ERASE else 0)

    @property
    def placement(self) -> Placement:
        """Another process, if asked for; the image's path, or its socket."""
        return opening.placement(self.config, self._driver)

    def check(self) -> list[str]:
        """Whether the image, or the driver, can be used."""
        self._say_remarks(self.config)
        return opening.problems(self.config, self._driver, self.name)

    def claims(self) -> Sequence[Claim]:
        """The image, or what the driver says."""
        return opening.claims(self.config, self._driver)

    def realize(self, resources: Resources) -> None:
        """Open the image. Raises ConfigError, HostError or PluginError."""
        self._resources = resources
        image = opening.open_image(self.config, self._driver)
        if image is not None:
            self._adopt(image)

    def insert_medium(self, text: str) -> None:
        """A disk for ``nodisk``: threads and queues stay as they are, and so do the features that the driver knows.

        Raises ConfigError and HostError; then the slot is as empty as before.
        """
        if self.image is not None:
            raise ConfigError("has a disk already", option=self.name, value=text)
        config = BlkConfig.from_string(text)
        if config.path is None:
            raise ConfigError("the path of an image is missing", option=self.name, value=text)
        image = medium.open_image(config)
        self._say_remarks(config)
        self.config = attrs.evolve(config, mq=self.config.mq, iothread=self.config.iothread)
        self._mode.option = config.cache == "writeback"  # from the next reset on
        self._adopt(image)
        log.info("%s: inserted %s", self.name, config.path)
        self.config_changed()

    def set_limits(self, text: str) -> None:
        """Hold the disk to the limits in *text* from now on, and to no others. Raises ConfigError or HostError."""
        if self.config.vhost_user is not None:
            raise ConfigError("the process behind vhost-user has the limits", option=self.name)
        rates = read_rates(text, self.name)
        self.config = attrs.evolve(self.config, **attrs.asdict(rates))
        self._restraint.set(self.config)
        self._equip()

    def sandbox_needs(self) -> Needs:
        """io_uring, what is asked of a block device, and what the driver says."""
        return opening.sandbox_needs(self.config, self._driver, self.image)

    def read_config(self, offset: int, size: int) -> bytes:
        """5.2.4."""
        discard = self.config.discard if not self.config.ro else None
        space = config_space(
            self._limits,
            self.image.sectors if self.image is not None else self.config.sectorsize,
            writeback=self._mode.writeback,
            queues=self._queues,
            discard_alignment=discard.alignment if discard else 0,
        )
        return space[offset : offset + size]

    def write_config(self, offset: int, data: bytes) -> None:
        """Only ``writeback`` can be written."""
        self._write_mode(offset, data, legacy=False)

    def write_legacy_config(self, offset: int, data: bytes) -> None:
        """The same, also before the driver is ready (5.2.5.3)."""
        self._write_mode(offset, data, legacy=True)

    def _write_mode(self, offset: int, data: bytes, *, legacy: bool) -> None:
        if offset <= WRITEBACK_OFFSET < offset + len(data):
            self._mode.write(data[WRITEBACK_OFFSET - offset] != 0, legacy=legacy)
            self._planes.promise(not self._mode.writeback)

    def negotiated(self, features: int) -> None:
        """The cache mode follows."""
        self._mode.features_ok(features)

    def loop_name(self, queue: int) -> str:
        """With ``iothread`` queue j is served by loop j mod N of the device's own."""
        count = min(self.config.iothread.count, self._queues)
        bdf = self.context.bdf
        return f"iothr-{queue % count}-blk{bdf.slot}:{bdf.func}" if count else "io"

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        """Make a pool of worker threads for each queue; the threads come with the load."""
        self._features = features
        self.errors = 0
        self._mode.driver_ok(features)
        self._retries.open()
        self._ending.clear()
        for queue in queues:
            self.queue_enabled(queue)

    def queue_enabled(self, queue: Queue) -> None:
        """A pool for it."""
        bdf = self.context.bdf
        name = f"blk-{bdf.slot}:{bdf.func}-{queue.index}"
        self._pools[queue.index] = WorkerPool(name, queue.loop, self._execute, self._finisher(queue))
        self._restraint.add(queue)
        self._pin(queue)

    def plane(self, features: int, queue: Queue) -> Plane | None:
        """What serves *queue* without Python. A loop that is stepped has it where ``aio`` asks for it only."""
        steps = self.config.aio == "auto" and self._driver is None and not queue.loop.runs_by_itself
        if steps or self.config.aio == "python" or not can_serve(self.image):
            return None
        if queue.loop.clock.stands_still and self._restraint.throttle.active:
            return None  # planes wait by this host's clock
        plane = self._planes.add(queue, self.serial, legacy=not features & VERSION_1)
        self._equip()
        return plane

    def queue_reset(self, queue: Queue) -> None:
        """As ``cancel``, for the requests of one queue."""
        self._planes.drop(queue)
        self._restraint.drop(queue)
        pool = self._pools.pop(queue.index)
        self._retries.drop(functools.partial(is_for, pool))
        pool.cancel()
        pool.close()
        self._ending[queue.index] = pool
        self._left = (*self._left, pool)

    def queue_busy(self, index: int) -> bool:
        """Whether a thread is in the host's kernel for a request of a queue that was reset alone."""
        return self._planes.queue_busy(index) or (index in self._ending and self._ending[index].busy)

    def handle_queue(self, queue: Queue) -> None:
        """Parse what is there; answer at once what needs no waiting, hand the rest to the threads."""
        for _ in range(BATCHES):
            self._accept(queue, queue.pop_batch(BATCH))
            queue.flush()

    def cancel(self) -> None:
        """Requests that have begun end at their next piece; the others are dropped."""
        self._retries.close()
        self._restraint.drop()
        self._planes.cancel()
        for pool in self._pools.values():
            pool.cancel()

    @property
    def busy(self) -> bool:
        """Whether the host's kernel still has a request that was given up."""
        return self._planes.busy or any(pool.busy for pool in (*self._pools.values(), *self._left))

    def stop(self) -> None:
        """Unless cancelled, let everything in flight be executed, and answer it: after a pause a queue goes on behind
        what was taken from it, whichever of that was answered. Raises HostError behind ``Resources.pause_s`` seconds.
        """
        until = time.monotonic() + (self._resources.pause_s if self._resources else 0.0)
        failed = self._retries.close()
        self._restraint.release()
        drained = self._planes.drain(until - time.monotonic())  # what it can't do comes to the pools
        pools, self._pools = tuple(self._pools.values()), {}
        self._left = (*self._left, *pools)
        try:
            if not drained:
                raise HostError(f"{self.name}: requests are stuck in the host")
            for pool in pools:
                if not pool.cancelled:
                    pool.finish(pool.drain(max(0.0, until - time.monotonic())))
                    pool.finish([job for job in failed if job.pool is pool])
        except HostError:
            self._planes.cancel()
            for pool in pools:
                pool.cancel()
            raise
        finally:
            self._planes.close()
            for pool in pools:
                pool.close()
            self._left = tuple(pool for pool in self._left if pool.busy)
        self._features = 0

    def reset(self) -> None:
        """The next driver begins with the cache mode of the option."""
        self._mode.reset()

    def prepare_close(self) -> None:
        """Begin to put what write-back mode still holds on the medium."""
        if self.image is not None and not self.config.ro and self._flush is None:
            self._flush = LastFlush(self.name, self.image)

    def close(self) -> None:
        """Close the image, flushed. One that the host does not let go of stays open until the process ends."""
        self.cancel()
        self.stop()
        self.prepare_close()
        flush, self._flush = self._flush, None
        image, self.image = self.image, None
        flushed = flush is None or flush.wait()
        if image is None:
            return
        if self.busy or not flushed:
            self._planes.abandon()
            log.error("%s: %s is stuck in the host; it is left as it is", self.name, self.placement.text)
        else:
            image.close()

    def _say_remarks(self, config: BlkConfig) -> None:
        for line in medium.remarks(config):
            log.warning("%s: %s", self.name, line)

    def _adopt(self, image: Image) -> None:
        """Make *image* the medium: capacity and limits follow from it."""
        self.image = image
        self._limits = limits_of(self.config, image)
        self._restraint.set(self.config)
        self._equip()

    def _equip(self) -> None:
        """Tell the planes what requests are held to, and give the medium to those that have none."""
        self._planes.limit(self._current_limits(), durable=not self._mode.writeback)
        if self.image is not None:
            try:
                self._planes.adopt(
                    self.image, lambda depth: engine_of(self.image, self.config.aio, depth, name=self.name)
                )
                self._planes.restrain(self._restraint.throttle)
            except OSError as e:
                raise HostError.from_os(f"{self.name}: an engine for {self.placement.text}", e) from e

    def _current_limits(self) -> Limits:
        return accepted(self._limits, self._features)

    def _accept(self, queue: Queue, chains: list[Chain]) -> None:
        limits = self._current_limits()
        for chain in chains:
            request = parse(chain, limits)
            if isinstance(request, Status):
                self._complete(queue, chain, request, 0)
            elif self.image is None:
                self._complete(queue, chain, Status.IOERR, 0)
            elif request.op is Op.GET_ID:
                self._complete(queue, chain, Status.OK, write_data(chain, self.serial))
            elif not self._restraint.parks(queue, chain, request):
                self._transfer(queue, chain, request)

    def _transfer(self, queue: Queue, chain: Chain, request: Request) -> None:
        assert self.image is not None
        views = data_of(chain, request)
        if request.op is Op.READ:
            length = request.extents[0].length
            if length <= CACHED_READ_BYTES and self.image.read_cached(views, request.extents[0].offset):
                self._complete(queue, chain, Status.OK, length)
                return
        self._submit(self._job(queue, chain, request, views))

    def _job(self, queue: Queue, chain: Chain, request: Request, views: list[memoryview]) -> Job:
        return Job(self._pools[queue.index], chain, request, views, durable=not self._mode.writeback)

    def _submit(self, job: Job) -> None:
        job.began, job.status, job.error, job.err = self._retries.releases, Status.OK, "", 0
        job.pool.submit(job)

    def _execute(self, job: Job) -> "Future[None] | None":
        """On a worker thread. A failure of the host is an answer to the guest, never the end of the request. Returns
        what it waits for, if it does.
        """
        assert self.image is not None
        image = self.image if self._features & VERSION_1 else BounceBuffer(self.image, job.pool.still_wanted)
        later = None
        try:
            later = begin(image, job)
        except OSError as e:
            self._failed(job, e)
        except Exception:
            job.status = Status.IOERR
            log.exception("%s: executing %s", self.name, job.request)
        if later is None and not job.err:
            job.views = []
        return later

    def _failed(self, job: Job, e: OSError) -> None:
        job.status = Status.UNSUPP if e.errno == errno.EOPNOTSUPP else Status.IOERR
        job.error = str(e)  # the text only: the error refers to frames, they to guest memory
        stops = stops_guest(self.config, job.request.op, e) and not job.pool.cancelled
        job.err = e.errno or errno.EIO if stops else 0

    def _handed(self, queue: Queue, chain: Chain, request: Request, err: int) -> None:
        """On the loop's thread: what a plane does not do, or what the host has failed there with *err*."""
        if not err:
            self._transfer(queue, chain, request)
            return
        job = self._job(queue, chain, request, data_of(chain, request))
        job.began = 0  # nobody knows: after a resume since the start it is tried anew before it asks for a pause
        self._failed(job, OSError(err, os.strerror(err)))
        job.pool.finish([job])

    def _pause(self, job: Job) -> bool:
        assert self._resources is not None
        fault = HostFault(device=self.name, operation=job.request.op.name.lower(), err=job.err, resumed=self._resumed)
        pauses = self._resources.pause_guest(fault)
        if not pauses and not self._unpausable:
            self._unpausable = True
            log.warning("%s: errors are reported to the guest: nobody could resume it if it was paused", self.name)
        return pauses

    def _resumed(self) -> None:
        """On the main loop: everything that waits is tried again, each by its queue's loop."""
        self._retries.release()
        for pool in tuple(self._pools.values()):
            pool.loop.call_soon(functools.partial(self._retries.retry, functools.partial(is_for, pool), self._submit))

    def _finisher(self, queue: Queue) -> Callable[[list[Job]], None]:
        def finish(jobs: list[Job]) -> None:
            for job in jobs:
                if job.err and self._retries.keep(job, job.began, self._submit):
                    continue
                if job.error:
                    self._report(job)
                self._complete(queue, job.chain, job.status, filled(job))
            queue.flush()

        return finish

    def _complete(self, queue: Queue, chain: Chain, status: Status, filled: int) -> None:
        """Answer with *status*, *filled* bytes of data being in place; see the module for the used length."""
        if queue.closed:
            return
        room = chain.writable_bytes - 1
        chain.write_at(room, bytes((status,)))
        queue.push(chain, room + 1 if filled == room else filled)

    def _report(self, job: Job) -> None:
        self.errors += 1
        if self.errors <= ERRORS_LOGGED:
            last = ", no more of these are logged" if self.errors == ERRORS_LOGGED else ""
            log.error("%s: %s at %s: %s%s", self.name, job.request.op.name, job.request.extents[:1], job.error, last)

    def _pin(self, queue: Queue) -> None:
        iothread = self.config.iothread
        index = queue.index % min(iothread.count, self._queues) if iothread.count else 0
        if index < len(iothread.cpus) and iothread.cpus[index]:
            cpus = iothread.cpus[index]
            queue.loop.call_soon(lambda: pin_current_thread(self.name, queue.loop, cpus))
