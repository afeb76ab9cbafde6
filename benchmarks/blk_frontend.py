"""``python -m benchmarks.blk_frontend [--handed-on] SOCKET OPTIONS DRIVER``: our vhost-user front-end, with the
benchmark's driver (``_blk_driver.c``) in front of it and a disk's daemon behind.

The machine has no vCPUs: the driver polls its memory, a shared file, and writes the eventfd that the front-end has
bound to the notify register. Each line of standard input has the driver's last six arguments; what it says is printed.
"""

import subprocess
import sys

import attrs

from acrn_dm.backends import user as vhost_user
from acrn_dm.backends.user import terms
from acrn_dm.base.irq import IoEventFd
from acrn_dm.devices import virtio_blk
from acrn_dm.memory.guest_memory import MIB
from acrn_dm.ring.layout import RingLayout
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.virtio import defs

SLOT, MEMORY, DATA = 3, 64 * MIB, MIB
LAYOUT = RingLayout(size=256, desc=0, avail=0x2000, used=0x4000)  # as in _blk_driver.c
FLUSH, EVENT_IDX = 1 << 9, 1 << 29


def start(machine: SimMachine, driver: VirtioDriver) -> str:
    """Begin with an empty ring; returns what the driver is told instead of a socket."""
    accepted = driver.negotiate(driver.registers.offered() & (FLUSH | EVENT_IDX))
    machine.memory.write(0, bytes(DATA))
    driver.registers.queue_size(0)  # selects it
    driver.registers.write("queue_size", LAYOUT.size)
    driver.registers.place_queue(0, LAYOUT)
    driver.driver_ok()
    bound = [call.argument for call in machine.vm.calls if call.name == "ioeventfd" and call.assign]
    kick = bound[-1]
    assert isinstance(kick, IoEventFd)
    return f"ring:{machine.memory.regions[0].fd},{kick.fd},{int(accepted & EVENT_IDX != 0)}"


def drive(machine: SimMachine, driver: VirtioDriver, program: str, arguments: list[str]) -> str:
    """What *program* says, with a driver's life around it."""
    how = start(machine, driver)
    fds = [int(number) for number in how.removeprefix("ring:").split(",")[:2]]
    done = subprocess.run([program, how, *arguments], capture_output=True, text=True, pass_fds=fds, check=False)
    driver.reset()
    return done.stdout.strip() or f"failed: {done.stderr.strip()}"


def main() -> int:
    """Serve until the end of standard input."""
    arguments = sys.argv[1:]
    if "--handed-on" in arguments:
        arguments.remove("--handed-on")
        # As if the daemon took notes: its requests are its own affair.
        terms.KNOWN[defs.BLOCK] = attrs.evolve(terms.KNOWN[defs.BLOCK], after_loss=terms.AfterLoss.GO_ON)
    socket, options, program = arguments
    with SimMachine(memory=MEMORY, plugins=[virtio_blk, vhost_user]) as machine:
        machine.machine.io_loops.threads = True
        machine.add("virtio-blk", f"vhost-user={socket}{options}", slot=SLOT)
        driver = machine.driver(SLOT)
        machine.main_loop.start()
        for line in sys.stdin:
            print(drive(machine, driver, program, line.split()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
