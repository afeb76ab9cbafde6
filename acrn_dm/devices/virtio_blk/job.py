"""A request on its way through worker threads, and what stands around it."""

import logging
import os
from collections.abc import Generator
from typing import TYPE_CHECKING, TypeAlias

import attrs

from acrn_dm._fastring import Chain
from acrn_dm.base.files.digest import md5
from acrn_dm.devices.virtio_blk.engine.workers import WorkerPool
from acrn_dm.devices.virtio_blk.request import HEADER, LIFETIME_BYTES, Op, Request, Status

if TYPE_CHECKING:
    from concurrent.futures import Future

log = logging.getLogger(__name__)

Steps: TypeAlias = 'Generator["Future[None]", None, None]'  # a request that waits between them for somebody's future

MAX_ID_TEXT = 256  # of the option text, this much goes into the serial number


@attrs.define(eq=False)
class Job:
    """A request on its way through the worker threads of *pool*. *error* says how the host failed it, *err* is the
    errno where the guest is to stand still because of that.
    """

    pool: "WorkerPool[Job]"
    chain: Chain
    request: Request
    views: list[memoryview]
    durable: bool
    began: int = 0  # after how many releases of what waits for a retry
    status: Status = Status.OK
    error: str = ""
    err: int = 0
    steps: "Steps | None" = None  # what is left to do, of a request that has begun and waits for its driver


def serial_number(text: str) -> bytes:
    """20 ASCII bytes derived from the option text, as the original does, so that guests find their disks by it."""
    d = md5(os.fsencode(text)[:MAX_ID_TEXT])
    return "ACRN--{:02X}{:02X}-{:02X}{:02X}-{:02X}{:02X}".format(*d[:6]).encode()


def is_for(pool: WorkerPool[Job], job: Job) -> bool:
    return job.pool is pool


def data_of(chain: Chain, request: Request) -> list[memoryview]:
    """Where the data of a read goes, or that of a write is."""
    if request.op is Op.READ:
        return chain.writable(0, request.extents[0].length)
    if request.op is Op.GET_LIFETIME:
        return chain.writable(0, LIFETIME_BYTES)
    return chain.readable(HEADER.size) if request.op is Op.WRITE else []


def filled(job: Job) -> int:
    """Bytes that the answer to *job* has before its status."""
    if job.status is not Status.OK or job.request.op not in (Op.READ, Op.GET_LIFETIME):
        return 0
    return job.request.extents[0].length if job.request.extents else LIFETIME_BYTES


def write_data(chain: Chain, data: bytes) -> int:
    """Put *data* into the writable part, sparing the status byte."""
    return chain.write(data[: chain.writable_bytes - 1])
