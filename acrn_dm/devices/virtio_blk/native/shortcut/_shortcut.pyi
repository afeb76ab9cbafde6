from typing import Final

from typing_extensions import disjoint_base

from acrn_dm.devices.virtio_blk.image._standing import Standing

@disjoint_base
class BlkShortcut:
    taken: Final[int]
    def __new__(cls, standing: Standing, fd: int, *, cached: bool, in_memory: bool, maps: bool) -> BlkShortcut: ...
    @property
    def mapped(self) -> bool: ...
    def close(self) -> None: ...
