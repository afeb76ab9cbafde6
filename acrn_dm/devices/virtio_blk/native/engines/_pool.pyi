from typing_extensions import disjoint_base

from acrn_dm.devices.virtio_blk.native.engines._engine import BlkEngine

@disjoint_base
class PoolEngine(BlkEngine):
    def __new__(cls, fd: int, depth: int) -> PoolEngine: ...
