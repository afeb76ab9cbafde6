"""Errors of ACRN's kernel module: what usually stands behind an errno, for the person who reads the message.

The module hands the hypervisor's own refusals on as a plain -1, which a program sees as EPERM; before a virtual machine
is created, and after it is destroyed, every call is EINVAL (Linux drivers/virt/acrn/hsm.c).
"""

import errno

from acrn_dm.base.errors import HostError

OPEN_HINTS = {
    errno.ENOENT: "boot the ACRN hypervisor; its Service VM's kernel needs CONFIG_ACRN_HSM",
    errno.ENODEV: "boot the ACRN hypervisor and load the module acrn",
    errno.ENXIO: "load the module acrn",
    errno.EACCES: "run as root, or as a user who may use the device",
    errno.EPERM: "run as root, in the Service VM",
    errno.ENOMEM: "the Service VM is out of memory",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}

REFUSED = "the hypervisor refused; its log says why (acrnlog, or the hypervisor's console)"
NO_VM = "there is no virtual machine on this descriptor"
NO_MEMORY = "the Service VM is out of memory"
HUGE_PAGES = "guest memory must be mapped, writable and stay: give it huge pages, or less memory (-m)"

HINTS = {
    ("CREATE_VM", errno.EINVAL): (
        "a VM of that name runs already, or the hypervisor's scenario has no such VM, or no VM slot left, or does not "
        "allow these CPUs (--cpu_affinity) or flags"
    ),
    ("CREATE_VM", errno.EPERM): REFUSED,
    ("CREATE_VM", errno.ENOMEM): NO_MEMORY,
    ("CREATE_VM", errno.ENOTTY): "the kernel module speaks another interface: try the other of hsm and vhm",
    ("GET_API_VERSION", errno.ENOTTY): "the kernel module is newer than 2.3: use the hypervisor hsm",
    ("START_VM", errno.EPERM): "the hypervisor starts a VM that was just created or reset, and no other",
    ("PAUSE_VM", errno.EPERM): "the hypervisor has powered the VM off",
    ("RESET_VM", errno.EPERM): "the hypervisor resets a VM that is paused, and no other",
    ("DESTROY_VM", errno.EPERM): "the hypervisor destroys a VM that is paused, and no other",
    ("SET_VCPU_REGS", errno.EPERM): "registers can be set before the start only, and CR0 and CR4 must be valid",
    ("SET_VCPU_REGS", errno.EINVAL): "a reserved field is not 0",
    ("SET_MEMSEG", errno.EEXIST): "the range overlaps memory that is mapped already",
    ("SET_MEMSEG", errno.EINVAL): HUGE_PAGES,
    ("SET_MEMSEG", errno.EFAULT): HUGE_PAGES,
    ("SET_MEMSEG", errno.ENOMEM): HUGE_PAGES,
    ("SET_MEMSEG", errno.EPERM): "the hypervisor can't map this memory; " + HUGE_PAGES,
    ("CREATE_IOREQ_CLIENT", errno.EEXIST): "another thread serves this virtual machine",
    ("CREATE_IOREQ_CLIENT", errno.EINVAL): NO_MEMORY,
    ("ATTACH_IOREQ_CLIENT", errno.ENODEV): "the client was destroyed",
    ("NOTIFY_REQUEST_FINISH", errno.EINVAL): "the VM has no such vCPU",
    ("NOTIFY_REQUEST_FINISH", errno.EPERM): "the hypervisor has powered the VM off",
    ("IOEVENTFD", errno.EEXIST): "an ioeventfd claims this address already",
    ("IOEVENTFD", errno.ENOENT): "no ioeventfd like this is registered",
    ("IOEVENTFD", errno.EINVAL): "length 1, 2, 4 or 8 (0, for any, without a value to match), on an eventfd",
    ("IOEVENTFD", errno.EBADF): "the eventfd is closed",
    ("IOEVENTFD", errno.ENODEV): "there is no buffer for asynchronous kicks",
    ("IRQFD", errno.EBUSY): "the eventfd is bound to an interrupt already",
    ("IRQFD", errno.ENOENT): "no irqfd like this is registered",
    ("IRQFD", errno.EINVAL): "only an eventfd can be bound, and only to a message (MSI), not to a line",
    ("IRQFD", errno.EBADF): "the eventfd is closed",
    ("INJECT_MSI", errno.EPERM): "the hypervisor does not take this message",
    ("SET_IRQLINE", errno.EPERM): "the hypervisor's IOAPIC has no such pin, or the VM is off",
    ("VM_INTR_MONITOR", errno.EFAULT): "the buffer must be one page",
    ("SETUP_ASYNCIO", errno.ENOTTY): "only ACRN's own kernel has it",
    ("SETUP_VM_EVENT_RING", errno.ENOTTY): "only ACRN's own kernel has it",
}

BY_ERRNO = {
    errno.EPERM: REFUSED,
    errno.EINVAL: NO_VM,
    errno.ENOMEM: NO_MEMORY,
    errno.ENOTTY: "the kernel module does not know this call",
    errno.EBADF: "the device file is closed",
    errno.EFAULT: "the kernel can't use the buffer",
}


def failed(call: str, err: int) -> HostError:
    """Make the HostError of a *call* that failed with errno *err*, with the likely fix."""
    if call.startswith("open "):
        return HostError(call, err=err, hint=OPEN_HINTS.get(err))
    return HostError(call, err=err, hint=HINTS.get((call, err)) or BY_ERRNO.get(err))
