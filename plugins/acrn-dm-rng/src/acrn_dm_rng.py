"""The entropy device of virtio 1.4, 5.4: every buffer the driver posts comes back filled with random bytes."""

import logging
import os
import stat
from collections.abc import Iterable
from pathlib import Path

import attrs

from acrn_dm import DeviceContext, DeviceType, HostError, Queue, Resources, VirtioDevice, hookimpl, option

log = logging.getLogger(__name__)

MOST_BYTES = 64 << 10  # a guest that posts gigabytes gets this much a buffer: it may not keep the loop to itself


@attrs.frozen(kw_only=True)
class RngOptions:
    source: Path = option(default=Path("/dev/urandom"), help="character device the bytes come from; it must not block")
    kernel: bool = option(default=False, help="accepted for the original's scripts; its kernel backend is gone")


class VirtioRng(VirtioDevice):
    device_id = 4
    pci_class = 0x100000  # encryption controller, as the original has it
    transitional = True

    def __init__(self, options: RngOptions, context: DeviceContext) -> None:
        super().__init__(context)
        self.options = options
        self._fd = -1
        if options.kernel:
            log.warning("%s: kernel=on is ignored; the bytes come from %s", self.name, options.source)

    def check(self) -> list[str]:
        path = self.options.source
        usable = path.exists() and stat.S_ISCHR(path.stat().st_mode)
        return [] if usable else [f"{self.name}: source {str(path)!r} is no character device"]

    def realize(self, resources: Resources) -> None:
        try:
            self._fd = os.open(self.options.source, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as e:
            raise HostError.from_os(f"{self.name}: opening {self.options.source}", e) from e

    def handle_queue(self, queue: Queue) -> None:
        for chain in queue.pop_batch():
            chain.advance(os.readv(self._fd, chain.writable(0, MOST_BYTES)) if chain.writable_bytes else 0)
            queue.push(chain)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@hookimpl
def acrn_dm_device_types() -> Iterable[DeviceType]:
    summary = "entropy for the guest, seen as /dev/hwrng"
    yield DeviceType(name="virtio-rnd", aliases=("virtio-rng",), summary=summary, config=RngOptions, create=VirtioRng)
