"""Who moves a device's data: the contract between the transport and a backend, and how one is chosen.

The transport owns registers and eventfds; a backend owns the rings from ``start`` to ``stop``. It may run in this
process (``vbs_u``), in the kernel (vhost) or in another process (vhost-user): a ``SessionQueue`` has what each of them
needs, guest addresses, the kick's and the call's eventfd, and the index to start from.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import attrs

from acrn_dm.errors import ConfigError
from acrn_dm.pci.eventfds import CallEvent, KickEvent
from acrn_dm.resources import Resources
from acrn_dm.types import BackendType
from acrn_dm.virtio import features
from acrn_dm.virtio.device import VirtioDevice


@attrs.frozen(kw_only=True, eq=False)
class SessionQueue:
    """One enabled queue; *desc*, *avail*, *used* are guest physical addresses, both indices start at *next_avail*."""

    index: int
    size: int
    desc: int = attrs.field(repr=hex)
    avail: int = attrs.field(repr=hex)
    used: int = attrs.field(repr=hex)
    kick: KickEvent = attrs.field(repr=False)  # wait on kick.fd
    call: CallEvent = attrs.field(repr=False)  # call.signal(); or write call.fd after call.forward(loop)
    next_avail: int = 0


@attrs.frozen(kw_only=True, eq=False)
class Session:
    """What was negotiated. *queues* are the enabled ones by index."""

    features: int = attrs.field(repr=hex)
    queues: tuple[SessionQueue, ...]
    resources: Resources = attrs.field(repr=False)
    poll_ns: int | None = None  # look at the queues this often instead of being kicked

    @property
    def event_idx(self) -> bool:
        """VIRTIO_F_EVENT_IDX was negotiated."""
        return bool(self.features & features.EVENT_IDX)

    @property
    def indirect(self) -> bool:
        """VIRTIO_F_INDIRECT_DESC was negotiated."""
        return bool(self.features & features.INDIRECT_DESC)


class Backend(Protocol):
    """One backend instance serves one device. All methods run on control threads under the function's lock."""

    def offer(self, offered: int) -> int:
        """Return which of the device's *offered* features this backend can carry out; called after ``realize``."""

    def start(self, session: Session) -> None:
        """Serve the queues. Raises GuestError (bad rings) or HostError; ``stop`` is called then, too."""

    def stop(self) -> Mapping[int, int]:
        """Stop using rings, eventfds and memory; return the next available index of each queue that ran. Idempotent."""

    def close(self) -> None:
        """Give everything back. Idempotent."""


BackendFactory = Callable[[VirtioDevice], Backend]


def choose(device: VirtioDevice, types: Iterable[BackendType]) -> BackendType:
    """Return the backend type that *device* asks for. Raises ConfigError naming those that would do."""
    fitting = [t for t in types if "*" in t.kinds or device.context.kind in t.kinds]
    for backend_type in fitting:
        if backend_type.name == device.backend_name:
            return backend_type
    known = ", ".join(sorted(t.name for t in fitting)) or "none"
    raise ConfigError(f"no such backend; there are: {known}", option=device.name, value=device.backend_name)
