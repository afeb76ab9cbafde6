"""Device-specific configuration space between the driver's accesses and the device's two methods.

Any offset and width is legal for the driver (4.1.5.1.3.1 demands it of legacy devices): what lies past the end reads as
zero and is dropped when written. A device that raises costs its own driver a reset and nothing else.
"""

from collections.abc import Callable

from acrn_dm.virtio.backend import Backend
from acrn_dm.virtio.core import VirtioCore


class DeviceConfig:
    """The bounds of every access: *size*, ``config_size`` as it was when the device was built. The backend answers: it
    may know better than the device.
    """

    def __init__(self, size: int, backend: Callable[[], Backend], core: VirtioCore) -> None:
        self.size = size
        self._backend = backend
        self._core = core

    def read(self, offset: int, size: int) -> int:
        """Read *size* bytes at *offset*, little-endian."""
        length = self._clip(offset, size)
        if length == 0:
            return 0
        return int.from_bytes(self._core.device_config()[offset : offset + length], "little")

    def write(self, offset: int, size: int, value: int, *, legacy: bool = False) -> None:
        """Write *size* bytes at *offset*, little-endian. Through which registers counts together with what was
        negotiated: only a *legacy* driver may write what only it may.
        """
        length = self._clip(offset, size)
        if length == 0:
            return
        backend = self._backend()
        write = backend.write_legacy_config if legacy and self._core.legacy else backend.write_config
        try:
            write(offset, value.to_bytes(size, "little")[:length])
        except Exception as e:
            self._core.needs_reset(e)

    def _clip(self, offset: int, size: int) -> int:
        return max(0, min(size, self.size - offset))
