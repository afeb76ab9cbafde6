"""Extras that ACRN's own kernel has and Linux's does not: asynchronous kicks, and events of the virtual machine.

Each is probed once, when the virtual machine has been created; without them everything works, kicks make the vCPU wait
a little longer, and a triple fault looks like a power-off.
"""

import logging
import struct

from acrn_dm.contract.hypervisor import VmEvent
from acrn_dm.hypervisors.acrn.module.abi import Port
from acrn_dm.hypervisors.acrn.module.errors import failed
from acrn_dm.hypervisors.acrn.shared import SharedRing

log = logging.getLogger(__name__)

KICK_SIZE = 8  # the kernel's own pointer to an eventfd
EVENT = struct.Struct("<I28x")
TRIPLE_FAULT = 2  # 0 the clock was set, 1 power-off: the device model sees those itself


class Extras:
    """The shared pages of one virtual machine."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._kicks: SharedRing | None = None  # read by the kernel alone
        self._events: SharedRing | None = None

    @property
    def asyncio(self) -> bool:
        """Whether kicks may be asynchronous."""
        return self._kicks is not None

    def set_up(self) -> None:
        """Offer the pages."""
        self._kicks = self._offer("SETUP_ASYNCIO", KICK_SIZE)
        self._events = self._offer("SETUP_VM_EVENT_RING", EVENT.size)

    def take_events(self) -> list[tuple[VmEvent, str]]:
        """Return what the hypervisor has to say, oldest first."""
        if self._events is None:
            return []
        kinds = [EVENT.unpack(element)[0] for element in self._events.take()]
        return [(VmEvent.TRIPLE_FAULT, "") for kind in kinds if kind == TRIPLE_FAULT]

    def close(self) -> None:
        """Unmap the pages, when nobody fills them any more. Idempotent."""
        for ring in (self._kicks, self._events):
            if ring is not None:
                ring.close()
        self._kicks = self._events = None

    def _offer(self, call: str, element_size: int) -> SharedRing | None:
        """Pass the page's address by value."""
        ring = SharedRing(element_size)
        result = self._port.attempt(call, ring.address)
        if result >= 0:
            return ring
        ring.close()
        log.info("goes on without: %s", failed(call, -result))
        return None
