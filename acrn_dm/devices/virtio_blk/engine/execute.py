"""The execution of a parsed request on an image."""

from acrn_dm.devices.virtio_blk.engine.bounce import BounceBuffer
from acrn_dm.devices.virtio_blk.image.backend import Image
from acrn_dm.devices.virtio_blk.request import Op, Request


def execute(image: Image | BounceBuffer, request: Request, views: list[memoryview], *, durable: bool) -> None:
    """Do *request* on *image*. Raises OSError."""
    if request.op is Op.READ:
        image.read(views, request.extents[0].offset)
    elif request.op is Op.WRITE:
        image.write(views, request.extents[0].offset, durable=durable)
    elif request.op is Op.FLUSH:
        image.flush()
    elif request.op is Op.DISCARD:
        for extent in request.extents:
            image.discard(extent.offset, extent.length)
    elif request.op is Op.WRITE_ZEROES:
        for extent in request.extents:
            image.write_zeroes(extent.offset, extent.length, unmap=extent.unmap, durable=durable)
    elif request.op is Op.SECURE_ERASE:
        for extent in request.extents:
            image.secure_erase(extent.offset, extent.length)
    elif request.op is Op.GET_LIFETIME:
        image.read_lifetime(views)
