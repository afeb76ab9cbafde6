"""File descriptors: how many a machine needs, and whether the host lets it have them."""

from acrn_dm.base.files import descriptors as open_files
from acrn_dm.contract.config import MachineConfig
from acrn_dm.pci.bus import PciBus
from acrn_dm.virtio.pci.transport import VirtioPci
from acrn_dm.virtio.placement import USERSPACE

FILES_OF_A_DEVICE = 4  # an image, a tap, a socket and its client


def descriptors(config: MachineConfig, bus: PciBus) -> int:
    """How many files the machine has open when every driver uses all queues, a little more rather than less.

    A queue has an eventfd for kicks and one for calls. Where another process or the kernel moves the data, there are up
    to two more: of a vhost node and its errors, or of a shadow ring.
    """
    needed = 64 + 2 * config.vcpus
    for function in bus.functions:
        if isinstance(function, VirtioPci):
            each = 2 if function.placement.backend == USERSPACE else 4
            needed += FILES_OF_A_DEVICE + each * len(function.device.queue_sizes)
    return needed


def check_descriptors(config: MachineConfig, bus: PciBus) -> list[str]:
    """One line where the host does not let us open as many files."""
    needed, limit = descriptors(config, bus), open_files.limit()
    text = f"the machine needs {needed} file descriptors, and {limit} is the limit"
    return [] if needed <= limit else [f"{text}; raise it (ulimit -Hn {needed}, or LimitNOFILE= of a service)"]
