"""virtio-rnd: the entropy device (virtio 5.4). One queue; every buffer comes back with random bytes in it."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import attrs

from acrn_dm import (
    AcrnDmError,
    DeviceContext,
    DeviceType,
    HostError,
    IoLoop,
    Queue,
    Resources,
    VirtioDevice,
    hookimpl,
    option,
)

log = logging.getLogger(__name__)

CHUNK = 64 << 10  # bytes for one buffer at most; fewer than it holds are allowed (5.4.6.1)
BATCH = 16  # buffers served before other devices on the loop have their turn


@attrs.frozen(kw_only=True)
class RngConfig:
    """Options."""

    source: Path = option(default=Path("/dev/urandom"), help="Where the bytes come from.")
    kernel: bool = option(default=False, help="Accepted with a warning; there is no in-kernel backend.")


class RngDevice(VirtioDevice):
    """Reads the source when the guest asks and never waits for it: while it has nothing, buffers stay queued."""

    device_id = 4
    pci_class = 0x100000
    transitional = True

    def __init__(self, config: RngConfig, context: DeviceContext) -> None:
        super().__init__(context)
        self.config = config
        self._fd = -1
        self._watching: IoLoop | None = None

    @property
    def backend_text(self) -> str:
        """The source."""
        return str(self.config.source)

    def check(self) -> list[str]:
        """Whether the source is there."""
        ok = os.access(self.config.source, os.R_OK) and not self.config.source.is_dir()
        return [] if ok else [f"{self.name}: source {self.config.source} can't be read"]

    def realize(self, resources: Resources) -> None:
        """Open the source. Raises HostError."""
        if self.config.kernel:
            log.warning("%s: kernel=on is served by this process", self.name)
        try:
            self._fd = os.open(self.config.source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as e:
            raise HostError.from_os(f"opening {self.config.source}", e) from e

    def handle_queue(self, queue: Queue) -> None:
        """Fill buffers while the source gives bytes."""
        for _ in range(BATCH):
            for chain in queue.pop_batch(1):
                try:
                    data = os.read(self._fd, min(chain.writable_bytes, CHUNK))
                except BlockingIOError:
                    queue.unpop([chain])
                    self._wait(queue)
                    return
                if not data and chain.writable_bytes:
                    raise HostError(f"source {self.config.source} has ended")
                chain.write(data)
                queue.push(chain)

    def stop(self) -> None:
        """The driver is gone, so nobody waits for the source."""
        self._rest()

    def close(self) -> None:
        """Close the source."""
        self._rest()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _wait(self, queue: Queue) -> None:
        def ready() -> None:
            self._rest()
            try:
                self.handle_queue(queue)
                queue.flush()
            except AcrnDmError as e:  # handle_queue's usual caller would do the same
                self.fail(e)

        if self._watching is None:
            self._watching = queue.loop
            queue.loop.add(self._fd, ready)

    def _rest(self) -> None:
        loop, self._watching = self._watching, None
        if loop is not None:
            loop.remove(self._fd)


@hookimpl
def acrn_dm_device_types() -> Sequence[DeviceType]:
    """Offer ``virtio-rnd``, which others call ``virtio-rng``."""
    summary = "entropy for the guest's random number generator"
    return [DeviceType(name="virtio-rnd", aliases=("virtio-rng",), summary=summary, config=RngConfig, create=RngDevice)]
