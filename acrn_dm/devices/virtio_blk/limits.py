"""The limits of a disk's requests: by its options and its medium, and by what the driver accepted."""

import attrs

from acrn_dm.devices.virtio_blk.config import MAX_SEGMENT_SECTORS, SECTOR, BlkConfig
from acrn_dm.devices.virtio_blk.image.backend import Image
from acrn_dm.devices.virtio_blk.request import Limits
from acrn_dm.virtio.features import VERSION_1

RO, DISCARD, WRITE_ZEROES, LIFETIME, SECURE_ERASE = 1 << 5, 1 << 13, 1 << 14, 1 << 15, 1 << 16  # feature bits, 5.2.3
ZEROES_SECTORS = 1 << 16  # 32 MiB, because a medium without fallocate has it written out


def offer(config: BlkConfig, limits: Limits) -> int:
    """The features that follow from options and medium."""
    lifetime = LIFETIME if limits.lifetime else 0
    if config.ro:
        return RO | lifetime
    erase = SECURE_ERASE if config.secure_erase else 0
    return WRITE_ZEROES | (DISCARD if config.discard else 0) | erase | lifetime


def limits_of(config: BlkConfig, image: Image) -> Limits:
    """Those that the configuration space shows."""
    capacity = image.size // SECTOR
    writable = not config.ro
    discard = config.discard if writable else None
    return Limits(
        capacity=capacity,
        readonly=config.ro,
        discard_segments=discard.max_segments if discard else 0,
        discard_sectors=min(discard.max_sectors or capacity, MAX_SEGMENT_SECTORS) if discard else 0,
        zeroes_segments=int(writable),
        zeroes_sectors=min(ZEROES_SECTORS, capacity) if writable else 0,
        erase_segments=int(writable and config.secure_erase),
        erase_sectors=min(MAX_SEGMENT_SECTORS, capacity) if writable and config.secure_erase else 0,
        lifetime=image.lifetime is not None,
    )


def accepted(limits: Limits, features: int) -> Limits:
    """*limits* without the types of request that the driver did not accept."""
    return attrs.evolve(
        limits,
        legacy=not features & VERSION_1,
        discard_segments=limits.discard_segments if features & DISCARD else 0,
        zeroes_segments=limits.zeroes_segments if features & WRITE_ZEROES else 0,
        erase_segments=limits.erase_segments if features & SECURE_ERASE else 0,
        lifetime=limits.lifetime and bool(features & LIFETIME),
    )
