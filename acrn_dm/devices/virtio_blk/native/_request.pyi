from acrn_dm._fastring import Chain
from acrn_dm.devices.virtio_blk.request import Limits, Request, Status

__pyx_capi__: dict[str, object]  # the C functions, for Cython's cimport

def parse(chain: Chain, limits: Limits) -> Request | Status: ...
