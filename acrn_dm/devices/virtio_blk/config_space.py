"""The configuration space as the driver sees it (struct virtio_blk_config, 5.2.4)."""

import struct

from acrn_dm.devices.virtio_blk.config import SECTOR, SectorSize
from acrn_dm.devices.virtio_blk.request import Limits

QUEUE_SIZE = 256
SEGMENTS = QUEUE_SIZE - 2  # data buffers of one request where the driver has no indirect descriptors
WRITEBACK_OFFSET = 32
LAYOUT = struct.Struct("<QIIHBBIBBHIBxHIIIIIB3x")  # up to unused1: 60 bytes
ERASE = struct.Struct("<III")  # max_secure_erase_sectors, max_secure_erase_seg, secure_erase_sector_alignment


def config_space(
    limits: Limits, sizes: SectorSize | None, *, writeback: bool, queues: int, discard_alignment: int
) -> bytes:
    """All fields that disks of ours may have; sizes in sectors of 512 bytes unless named otherwise."""
    logical = sizes.logical if sizes is not None else SECTOR
    physical = max(sizes.logical, sizes.physical) if sizes is not None else SECTOR
    blocks_exp = (physical // logical).bit_length() - 1
    erase = (limits.erase_sectors, limits.erase_segments, physical // SECTOR)
    return LAYOUT.pack(
        limits.capacity,
        0,  # size_max: not offered
        SEGMENTS,
        *(0, 0, 0),  # geometry: not offered
        logical,
        *(blocks_exp, 0, 0, 0),  # topology: physical_block_exp, alignment_offset, min_io_size, opt_io_size
        writeback,
        queues,
        *(limits.discard_sectors, limits.discard_segments, discard_alignment),
        *(limits.zeroes_sectors, limits.zeroes_segments, limits.zeroes_segments > 0),  # zeroing may deallocate
    ) + ERASE.pack(*erase)
