"""Errors of KVM's calls: what usually stands behind an errno, for the person who reads the message."""

import errno

from acrn_dm.base.errors import HostError

HINTS = {
    ("open /dev/kvm", errno.ENOENT): "load kvm_intel or kvm_amd, and enable virtualization in the firmware",
    ("open /dev/kvm", errno.EACCES): "join the group that owns /dev/kvm",
    ("open /dev/kvm", errno.ENODEV): "load kvm_intel or kvm_amd, and enable virtualization in the firmware",
    ("KVM_CREATE_VM", errno.EBUSY): "another hypervisor uses the processor's virtualization extensions",
    ("KVM_CREATE_VM", errno.ENOMEM): "the host is out of memory",
    ("KVM_CREATE_VCPU", errno.EINVAL): "fewer vCPUs, or smaller APIC ids: this kernel's limit is exceeded",
    ("KVM_CREATE_VCPU", errno.EEXIST): "two vCPUs share an APIC id",
    ("KVM_SET_USER_MEMORY_REGION", errno.EEXIST): "the range overlaps memory that is mapped already",
    ("KVM_SET_USER_MEMORY_REGION", errno.EINVAL): "address and size have to be multiples of the page size",
    ("KVM_IOEVENTFD", errno.EEXIST): "an ioeventfd claims this address already",
    ("KVM_IOEVENTFD", errno.ENOENT): "no ioeventfd like this is registered",
    ("KVM_IOEVENTFD", errno.ENOSPC): "this kernel's limit of I/O devices on one bus is exceeded: fewer queues",
    ("KVM_IOEVENTFD", errno.EINVAL): "length 0, 1, 2, 4 or 8 (0 without a value to match), on an eventfd",
    ("KVM_IOEVENTFD", errno.EBADF): "the eventfd is closed",
    ("KVM_IRQFD", errno.EBUSY): "the eventfd is bound to an interrupt already",
    ("KVM_IRQFD", errno.EINVAL): "only an eventfd can be bound",
    ("KVM_IRQFD", errno.EBADF): "the eventfd is closed",
}


def failed(call: str, err: int) -> HostError:
    """Make the HostError of a *call* that failed with errno *err*, with the likely fix where one is known."""
    return HostError(call, err=err, hint=HINTS.get((call, err)))
