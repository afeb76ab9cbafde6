"""Requests that are done in steps: between two of them they wait for somebody else's future, and for no thread."""

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from acrn_dm.devices.virtio_blk.engine.bounce import BounceBuffer
from acrn_dm.devices.virtio_blk.engine.execute import execute
from acrn_dm.devices.virtio_blk.engine.pieces import Views, given_up_unless
from acrn_dm.devices.virtio_blk.image.backend import Image
from acrn_dm.devices.virtio_blk.job import Job, Steps
from acrn_dm.devices.virtio_blk.request import Request

if TYPE_CHECKING:
    from concurrent.futures import Future


@runtime_checkable
class Stepwise(Protocol):
    """An image whose requests are done in steps."""

    def steps(self, request: Request, views: Views, *, durable: bool) -> Steps:
        """Do *request*; yields what has to be waited for. Raises OSError."""


def begin(image: Image | BounceBuffer, job: Job) -> "Future[None] | None":
    """Do *job* on *image*, or as much of it as needs no waiting for a future; returns that, None when all is done.
    Raises OSError.
    """
    with given_up_unless(lambda: not job.pool.cancelled):
        if isinstance(image, Stepwise):
            return _advance(image, job)
        execute(image, job.request, job.views, durable=job.durable)
        return None


def _advance(image: Stepwise, job: Job) -> "Future[None] | None":
    steps = job.steps or image.steps(job.request, job.views, durable=job.durable)
    job.steps = None
    later = next(steps, None)
    if later is not None:
        job.steps = steps
    return later
