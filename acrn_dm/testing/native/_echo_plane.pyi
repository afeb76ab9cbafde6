from typing_extensions import disjoint_base

from acrn_dm.virtio.native._plane import Plane

@disjoint_base
class EchoPlane(Plane):
    keeps: bool
    fails: int
    most: int
    limit: int
    @property
    def n_kept(self) -> int: ...
    def release(self) -> None: ...
    def return_twice(self, head: int) -> None: ...
