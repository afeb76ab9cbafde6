import mmap

from acrn_dm.devices.virtio_blk.native.engines._engine import BlkEngine

class RamEngine(BlkEngine):
    def __new__(cls, memory: mmap.mmap) -> RamEngine: ...
