"""One boot of the reference guest on the emulated HSM in the outer VM, for what the rig counts."""

import sys

from acrn_dm.testing.guest.command_line import COMMAND_LINE
from acrn_dm.testing.guest.errors import HarnessError
from acrn_dm.testing.guest.inner.initramfs import guest_init, guest_initramfs
from acrn_dm.testing.guest.kernels.debian import debian_kernel
from acrn_dm.testing.guest.outer.vm import OuterVm
from lab.guest.reference import REFERENCE
from lab.hsm import preload
from lab.paths import LAB, ROOT, empty_scratch

BOOTED = LAB / "hsm" / "boot"  # where the rig's files are then
DISK_MIB = 1
LIMIT = 150.0


def boot_reference_guest() -> None:
    """Boot it with one vCPU, a disk and a console, until it powers off. Raises HarnessError, RigUnavailable."""
    scratch = empty_scratch(BOOTED.parent.name, BOOTED.name)
    environment = preload.environment(scratch)
    kernel = debian_kernel()
    disk = scratch / "disk"
    disk.write_bytes(bytes(DISK_MIB << 20))
    with OuterVm(name="hsm-boot") as vm:
        argv = [
            *(sys.executable, "-m", "acrn_dm", "--hypervisor", "hsm", "--cpu_affinity", "0"),
            *("-s", "0:0,hostbridge", "-s", "1:0,lpc", "-l", "com1,stdio", "-s", f"3,virtio-blk,{disk}"),
            *("-s", f"5,virtio-console,file:report={scratch / 'report'}", "-k", str(kernel.quick_image)),
            *("-r", str(guest_initramfs(kernel, init=guest_init(REFERENCE)))),
            *("-B", f"{COMMAND_LINE} {preload.tsc_frequency(vm)}", "lab"),
        ]
        done = vm.run(argv, cwd=ROOT, env=environment, timeout=LIMIT)
    if done.rc != 0:
        raise HarnessError(f"acrn-dm ended with {done.rc}: {done.stderr[-2000:]}")
