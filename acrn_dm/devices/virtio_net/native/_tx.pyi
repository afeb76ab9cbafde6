from typing_extensions import disjoint_base

from acrn_dm.devices.virtio_net.native._link import NetLink
from acrn_dm.virtio.native._plane import Plane

@disjoint_base
class NetTx(Plane):
    def __new__(cls, link: NetLink, features: int, header: int) -> NetTx: ...
    @property
    def dropped(self) -> int: ...
    def stop(self) -> None: ...
