from typing import Final

from typing_extensions import disjoint_base

from acrn_dm.devices.virtio_blk.native.engines._engine import BlkEngine

BUILT: Final[bool]

@disjoint_base
class UringEngine(BlkEngine):
    def __new__(cls, fd: int, depth: int) -> UringEngine: ...
