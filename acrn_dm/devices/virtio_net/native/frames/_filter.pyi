from typing_extensions import disjoint_base

from acrn_dm.devices.virtio_net.receive_filter import ReceiveFilter

@disjoint_base
class FrameFilter:
    def __new__(cls, wanted: ReceiveFilter) -> FrameFilter: ...
    def wants(self, frame: bytes | memoryview) -> bool: ...
