"""What many disks cost: bringing a machine up, and a guest that switches decoding of one of them off and on."""

import sys
import time
from collections.abc import Iterator

from acrn_dm.contract.types import Bdf
from acrn_dm.devices.virtio_blk import acrn_dm_device_types
from acrn_dm.pci import config_space as cs
from acrn_dm.testing import SimMachine
from benchmarks.rows import Row, alone

DISKS = (25, 100, 200)
TOGGLES = 50
DECODE = cs.COMMAND_IO | cs.COMMAND_MEMORY | cs.COMMAND_MASTER
LIMIT_START_S, LIMIT_TOGGLE_MS = 1.0, 2.0  # of 200 disks


def measure(disks: int) -> tuple[float, float, float]:
    """Seconds to bring the machine up, seconds for all drivers to start, milliseconds of an access that toggles."""
    (blk,) = acrn_dm_device_types()
    with SimMachine() as machine:
        began = time.perf_counter()
        for i in range(disks):
            machine.add(blk, "nodisk", slot=i // 8, func=i % 8)
        machine.start()
        up = time.perf_counter()
        for i in range(disks):
            machine.driver(i // 8, i % 8).start()
        driven = time.perf_counter()
        for n in range(TOGGLES):
            at = n * disks // TOGGLES
            for command in (0, DECODE):
                machine.bus.config_write(Bdf(slot=at // 8, func=at % 8), cs.COMMAND, 2, command)
        done = time.perf_counter()
    return up - began, driven - up, (done - driven) * 1e3 / (2 * TOGGLES)


def rows(quick: bool) -> Iterator[Row]:
    """Rows of the most disks, which have limits but no peer."""
    found = [measure(DISKS[-1]) for _ in range(1 if quick else 3)]
    for at, (name, unit, limit) in enumerate(
        (("bringing up", "s", LIMIT_START_S), ("drivers' start", "s", None), ("toggle", "ms", LIMIT_TOGGLE_MS))
    ):
        yield alone(f"{DISKS[-1]} disks, {name}", unit, [one[at] for one in found], at_most=limit)


def main() -> int:
    """Print the table; 1 if 200 disks cost more than they may."""
    print(f"{'disks':>6} {'up s':>8} {'drivers s':>10} {'toggle ms':>10}")
    for disks in DISKS:
        up, driven, toggle = measure(disks)
        print(f"{disks:6} {up:8.3f} {driven:10.3f} {toggle:10.3f}")
    return int(up > LIMIT_START_S or toggle > LIMIT_TOGGLE_MS)


if __name__ == "__main__":
    sys.exit(main())
