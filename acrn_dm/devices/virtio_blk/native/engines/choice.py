"""The choice of an engine: io_uring where asked for or let, and where the host has it; else threads."""

import logging

from acrn_dm.devices.virtio_blk.native.engines._engine import BlkEngine
from acrn_dm.devices.virtio_blk.native.engines._pool import PoolEngine
from acrn_dm.devices.virtio_blk.native.engines._uring import BUILT, UringEngine

log = logging.getLogger(__name__)


def make_engine(aio: str, fd: int, depth: int, *, name: str) -> BlkEngine:
    """An engine for *depth* requests at a time on *fd*. *name* says whose, in what is logged. Raises OSError."""
    if aio == "threads":
        return PoolEngine(fd, depth)
    try:
        return UringEngine(fd, depth)
    except OSError as e:
        if aio == "io_uring":
            why = e.strerror if BUILT else "built without liburing"
            log.warning("%s: aio=io_uring is served by threads: %s", name, why)
        return PoolEngine(fd, depth)


def engine_of(image: object, aio: str, depth: int, *, name: str) -> BlkEngine:
    """An engine for *image*: of its own, where its driver has some, else as ``make_engine``. Raises OSError."""
    own = getattr(image, "engine", None)
    made: BlkEngine = own(depth) if own is not None else make_engine(aio, image.fd, depth, name=name)  # type: ignore[attr-defined]
    return made
