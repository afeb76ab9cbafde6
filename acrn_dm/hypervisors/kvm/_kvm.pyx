# cython: auto_pickle=False, autotestdict=False
"""Linux KVM by its ioctls: three file descriptors as three classes. Policy (routing, CPUID, life cycle) is not here.

Every number and structure comes from ``linux/kvm.h`` at build time; what each call means is in the kernel's
Documentation/virt/kvm/api.rst, by name. Calls that may sleep in the kernel release the GIL; the caller keeps ``close``
from running meanwhile. ``signal_msi`` and ``irq_line`` are short and keep the GIL: any thread may call them any time.
"""

import errno as _errno

from acrn_dm.base.errors import HostError

from acrn_dm.hypervisors.kvm cimport _linux_kvm as kvm_h
from libc.errno cimport E2BIG, EAGAIN, EINTR, EPERM, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from posix.fcntl cimport O_CLOEXEC, O_RDWR, open as c_open
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap
from posix.signal cimport SIG_SETMASK, sigaction, sigaction_t, sigdelset, sigemptyset, sigfillset, sigset_t
from posix.types cimport pid_t
from posix.unistd cimport close as c_close, getpid


cdef extern from *:
    """
    #include <signal.h>
    #include <sys/ioctl.h>
    #include <sys/syscall.h>
    #include <unistd.h>

    /* The vCPU thread reads these while another thread writes them. */
    #define LOAD_ACQUIRE(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define STORE_RELEASE(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)

    /* The kick only has to interrupt KVM_RUN; what to do is in immediate_exit. */
    static void acrn_dm_kick_handler(int signo) { (void)signo; }

    /* glibc has these two only from 2.30 on. */
    static pid_t acrn_dm_gettid(void) { return (pid_t)syscall(SYS_gettid); }
    static int acrn_dm_tgkill(pid_t pid, pid_t tid, int signo) { return (int)syscall(SYS_tgkill, pid, tid, signo); }
    """
    int ioctl(int fd, unsigned long request, ...) nogil
    int pthread_sigmask(int how, const sigset_t *new, sigset_t *old) nogil
    pid_t acrn_dm_gettid() nogil
    int acrn_dm_tgkill(pid_t pid, pid_t tid, int signo) nogil
    void acrn_dm_kick_handler(int signo) noexcept nogil
    uint8_t LOAD_ACQUIRE(uint8_t *p) nogil
    void STORE_RELEASE(uint8_t *p, uint8_t value) nogil
    int SIGRTMIN, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP


CHIP_PIC_MASTER = kvm_h.KVM_IRQCHIP_PIC_MASTER
CHIP_PIC_SLAVE = kvm_h.KVM_IRQCHIP_PIC_SLAVE
CHIP_IOAPIC = kvm_h.KVM_IRQCHIP_IOAPIC
CPUID_INDEXED = kvm_h.KVM_CPUID_FLAG_SIGNIFCANT_INDEX  # the header's spelling
CAP_IRQ_ROUTING = kvm_h.KVM_CAP_IRQ_ROUTING
CAP_MAX_VCPUS = kvm_h.KVM_CAP_MAX_VCPUS
CAP_MAX_VCPU_ID = kvm_h.KVM_CAP_MAX_VCPU_ID
CAP_TSC_DEADLINE_TIMER = kvm_h.KVM_CAP_TSC_DEADLINE_TIMER
REQUIRED_CAPS = {
    "KVM_CAP_IRQCHIP": kvm_h.KVM_CAP_IRQCHIP,
    "KVM_CAP_USER_MEMORY": kvm_h.KVM_CAP_USER_MEMORY,
    "KVM_CAP_SET_TSS_ADDR": kvm_h.KVM_CAP_SET_TSS_ADDR,
    "KVM_CAP_SET_IDENTITY_MAP_ADDR": kvm_h.KVM_CAP_SET_IDENTITY_MAP_ADDR,
    "KVM_CAP_EXT_CPUID": kvm_h.KVM_CAP_EXT_CPUID,
    "KVM_CAP_PIT2": kvm_h.KVM_CAP_PIT2,
    "KVM_CAP_IRQ_ROUTING": kvm_h.KVM_CAP_IRQ_ROUTING,
    "KVM_CAP_IRQFD": kvm_h.KVM_CAP_IRQFD,
    "KVM_CAP_IRQFD_RESAMPLE": kvm_h.KVM_CAP_IRQFD_RESAMPLE,
    "KVM_CAP_IOEVENTFD": kvm_h.KVM_CAP_IOEVENTFD,
    "KVM_CAP_SIGNAL_MSI": kvm_h.KVM_CAP_SIGNAL_MSI,
    "KVM_CAP_IMMEDIATE_EXIT": kvm_h.KVM_CAP_IMMEDIATE_EXIT,
}

# What usually stands behind an errno of a call, for the person who reads the message.
HINTS = {
    ("open /dev/kvm", _errno.ENOENT): "load kvm_intel or kvm_amd, and enable virtualization in the firmware",
    ("open /dev/kvm", _errno.EACCES): "join the group that owns /dev/kvm",
    ("open /dev/kvm", _errno.ENODEV): "load kvm_intel or kvm_amd, and enable virtualization in the firmware",
    ("KVM_CREATE_VM", _errno.EBUSY): "another hypervisor uses the processor's virtualization extensions",
    ("KVM_CREATE_VM", _errno.ENOMEM): "the host is out of memory",
    ("KVM_CREATE_VCPU", _errno.EINVAL): "fewer vCPUs, or smaller APIC ids: this kernel's limit is exceeded",
    ("KVM_CREATE_VCPU", _errno.EEXIST): "two vCPUs share an APIC id",
    ("KVM_SET_USER_MEMORY_REGION", _errno.EEXIST): "the range overlaps memory that is mapped already",
    ("KVM_SET_USER_MEMORY_REGION", _errno.EINVAL): "address and size have to be multiples of the page size",
    ("KVM_IOEVENTFD", _errno.EEXIST): "an ioeventfd claims this address already",
    ("KVM_IOEVENTFD", _errno.ENOENT): "no ioeventfd like this is registered",
    ("KVM_IOEVENTFD", _errno.ENOSPC): "this kernel's limit of I/O devices on one bus is exceeded: fewer queues",
    ("KVM_IOEVENTFD", _errno.EINVAL): "length 0, 1, 2, 4 or 8 (0 without a value to match), on an eventfd",
    ("KVM_IOEVENTFD", _errno.EBADF): "the eventfd is closed",
    ("KVM_IRQFD", _errno.EBUSY): "the eventfd is bound to an interrupt already",
    ("KVM_IRQFD", _errno.EINVAL): "only an eventfd can be bound",
    ("KVM_IRQFD", _errno.EBADF): "the eventfd is closed",
}


def failed(str call, int err):
    """Make the HostError of a *call* that failed with errno *err*, with the likely fix where one is known."""
    return HostError(call, err=err, hint=HINTS.get((call, err)))


cdef int _check(str call, int result) except -1:
    """Pass a system call's *result* on; HostError with errno if it is negative."""
    if result < 0:
        raise failed(call, errno)
    return result


cdef int _ioctl(str call, int fd, unsigned long request, void *argument) except -1:
    """An ioctl that may sleep, without the GIL; HostError if it fails."""
    cdef int result
    cdef int err
    with nogil:
        result = ioctl(fd, request, argument)
        err = errno
    if result < 0:
        raise failed(call, err)
    return result


cdef int _ioctl_value(str call, int fd, unsigned long request, unsigned long argument) except -1:
    """As ``_ioctl``; the argument is a number, not an address."""
    return _ioctl(call, fd, request, <void *>argument)


cdef void *_zeroed(size_t size) except NULL:
    cdef void *memory = calloc(1, size)
    if memory == NULL:
        raise MemoryError
    return memory


cdef class _Fd:
    """Owns a file descriptor; -1 when closed, which every ioctl answers with EBADF."""

    cdef readonly int fd

    def __cinit__(self):
        self.fd = -1

    def __dealloc__(self):
        if self.fd >= 0:
            c_close(self.fd)

    def close(self):
        """Close the descriptor; idempotent."""
        if self.fd >= 0:
            c_close(self.fd)
        self.fd = -1


cdef class Kvm(_Fd):
    """``/dev/kvm``: what the host can do, and the making of virtual machines."""

    def __cinit__(self):
        self.fd = _check("open /dev/kvm", c_open(b"/dev/kvm", O_RDWR | O_CLOEXEC))
        version = _ioctl_value("KVM_GET_API_VERSION", self.fd, kvm_h.KVM_GET_API_VERSION, 0)
        if version != kvm_h.KVM_API_VERSION:
            raise HostError(f"KVM_GET_API_VERSION: {version}, expected {kvm_h.KVM_API_VERSION}")
        for name, cap in REQUIRED_CAPS.items():
            if not self.check_extension(cap):
                raise HostError(f"KVM_CHECK_EXTENSION: no {name}", hint="a newer kernel is needed (4.12 or later)")

    def check_extension(self, int cap):
        """Return the value of a capability, 0 if it is absent."""
        return _ioctl_value("KVM_CHECK_EXTENSION", self.fd, kvm_h.KVM_CHECK_EXTENSION, cap)

    def supported_cpuid(self):
        """Return (function, index, flags, eax, ebx, ecx, edx) for each CPUID leaf KVM and the host offer."""
        cdef uint32_t room = 128
        cdef kvm_h.kvm_cpuid2 *cpuid
        while True:
            cpuid = <kvm_h.kvm_cpuid2 *>_zeroed(sizeof(kvm_h.kvm_cpuid2) + room * sizeof(kvm_h.kvm_cpuid_entry2))
            try:
                cpuid.nent = room
                if ioctl(self.fd, kvm_h.KVM_GET_SUPPORTED_CPUID, cpuid) == 0:
                    return [_cpuid_tuple(&cpuid.entries[i]) for i in range(cpuid.nent)]
                if errno != E2BIG or room > 4096:
                    raise failed("KVM_GET_SUPPORTED_CPUID", errno)
            finally:
                free(cpuid)
            room *= 2

    def create_vm(self):
        """Return a new, empty virtual machine."""
        cdef Vm vm = Vm.__new__(Vm)
        cdef int err
        vm._vcpu_mmap_size = _ioctl_value("KVM_GET_VCPU_MMAP_SIZE", self.fd, kvm_h.KVM_GET_VCPU_MMAP_SIZE, 0)
        while vm.fd < 0:
            with nogil:
                vm.fd = ioctl(self.fd, kvm_h.KVM_CREATE_VM, 0)
                err = errno
            if vm.fd < 0 and err != EINTR:  # a signal may interrupt the set-up of the MMU notifier
                raise failed("KVM_CREATE_VM", err)
        return vm


cdef tuple _cpuid_tuple(kvm_h.kvm_cpuid_entry2 *e):
    return (e.function, e.index, e.flags, e.eax, e.ebx, e.ecx, e.edx)


cdef class Vm(_Fd):
    """One virtual machine. Made by ``Kvm.create_vm``."""

    cdef size_t _vcpu_mmap_size

    def set_low_pages(self, uint64_t identity_map, unsigned long tss):
        """Place the one identity-map page and the three TSS pages that KVM needs on Intel hosts."""
        _ioctl("KVM_SET_IDENTITY_MAP_ADDR", self.fd, kvm_h.KVM_SET_IDENTITY_MAP_ADDR, &identity_map)
        _ioctl_value("KVM_SET_TSS_ADDR", self.fd, kvm_h.KVM_SET_TSS_ADDR, tss)

    def create_irqchip(self):
        """Create both PICs, the IOAPIC and, with each later vCPU, its local APIC."""
        _ioctl_value("KVM_CREATE_IRQCHIP", self.fd, kvm_h.KVM_CREATE_IRQCHIP, 0)

    def create_pit(self):
        """Create the timer, which also answers port 0x61: guests calibrate their TSC with its gate."""
        cdef kvm_h.kvm_pit_config config
        memset(&config, 0, sizeof(config))
        config.flags = kvm_h.KVM_PIT_SPEAKER_DUMMY
        _ioctl("KVM_CREATE_PIT2", self.fd, kvm_h.KVM_CREATE_PIT2, &config)

    def set_boot_cpu(self, unsigned long apic_id):
        """Choose the boot processor; before any vCPU is created."""
        _ioctl_value("KVM_SET_BOOT_CPU_ID", self.fd, kvm_h.KVM_SET_BOOT_CPU_ID, apic_id)

    def create_vcpu(self, unsigned long apic_id):
        """Create a vCPU."""
        cdef Vcpu vcpu = Vcpu.__new__(Vcpu)
        vcpu.apic_id = apic_id
        vcpu.fd = _ioctl_value("KVM_CREATE_VCPU", self.fd, kvm_h.KVM_CREATE_VCPU, apic_id)
        vcpu._map(self._vcpu_mmap_size)
        return vcpu

    def set_memory(self, uint32_t slot, uint64_t gpa, uint64_t size, uint64_t hva):
        """Back [gpa, gpa + size) by our memory at *hva*; size 0 deletes the slot."""
        cdef kvm_h.kvm_userspace_memory_region region
        memset(&region, 0, sizeof(region))
        region.slot = slot
        region.guest_phys_addr = gpa
        region.memory_size = size
        region.userspace_addr = hva
        _ioctl("KVM_SET_USER_MEMORY_REGION", self.fd, kvm_h.KVM_SET_USER_MEMORY_REGION, &region)

    def signal_msi(self, uint64_t addr, uint32_t data):
        """Deliver an MSI; False if no local APIC is its destination, the guest blocked it, or the machine is closed."""
        cdef kvm_h.kvm_msi msi
        cdef int result
        if self.fd < 0:
            return False
        memset(&msi, 0, sizeof(msi))
        msi.address_lo = <uint32_t>addr
        msi.address_hi = <uint32_t>(addr >> 32)
        msi.data = data
        result = ioctl(self.fd, kvm_h.KVM_SIGNAL_MSI, &msi)
        if result < 0 and errno == EPERM:  # the kernel's plain -1: nobody has that APIC id
            return False
        return _check("KVM_SIGNAL_MSI", result) > 0

    def irq_line(self, uint32_t gsi, bint level):
        """Set the input level of a GSI; nothing happens on a closed machine."""
        cdef kvm_h.kvm_irq_level line
        if self.fd < 0:
            return
        line.irq = gsi
        line.level = level
        _check("KVM_IRQ_LINE", ioctl(self.fd, kvm_h.KVM_IRQ_LINE, &line))

    def ioeventfd(self, int fd, uint64_t addr, uint32_t length, datamatch, bint pio, bint assign):
        """Bind an eventfd to guest writes, or unbind it."""
        cdef kvm_h.kvm_ioeventfd binding
        memset(&binding, 0, sizeof(binding))
        binding.fd = fd
        binding.addr = addr
        binding.len = length
        if datamatch is not None:
            binding.datamatch = datamatch
            binding.flags |= kvm_h.KVM_IOEVENTFD_FLAG_DATAMATCH
        if pio:
            binding.flags |= kvm_h.KVM_IOEVENTFD_FLAG_PIO
        if not assign:
            binding.flags |= kvm_h.KVM_IOEVENTFD_FLAG_DEASSIGN
        _ioctl("KVM_IOEVENTFD", self.fd, kvm_h.KVM_IOEVENTFD, &binding)

    def irqfd(self, int fd, uint32_t gsi, resample_fd, bint assign):
        """Bind an eventfd to a GSI, or unbind it."""
        cdef kvm_h.kvm_irqfd binding
        memset(&binding, 0, sizeof(binding))
        binding.fd = fd
        binding.gsi = gsi
        if not assign:
            binding.flags = kvm_h.KVM_IRQFD_FLAG_DEASSIGN
        elif resample_fd is not None:
            binding.flags = kvm_h.KVM_IRQFD_FLAG_RESAMPLE
            binding.resamplefd = resample_fd
        _ioctl("KVM_IRQFD", self.fd, kvm_h.KVM_IRQFD, &binding)

    def set_gsi_routing(self, pins, msis):
        """Replace the routing table: *pins* are (gsi, chip, pin), *msis* are (gsi, addr, data)."""
        cdef size_t count = len(pins) + len(msis)
        cdef kvm_h.kvm_irq_routing *table = <kvm_h.kvm_irq_routing *>_zeroed(
            sizeof(kvm_h.kvm_irq_routing) + count * sizeof(kvm_h.kvm_irq_routing_entry))
        cdef kvm_h.kvm_irq_routing_entry *entry = table.entries
        cdef uint64_t addr
        try:
            table.nr = count
            for gsi, chip, pin in pins:
                entry.gsi = gsi
                entry.type = kvm_h.KVM_IRQ_ROUTING_IRQCHIP
                entry.u.irqchip.irqchip = chip
                entry.u.irqchip.pin = pin
                entry += 1
            for gsi, addr, data in msis:
                entry.gsi = gsi
                entry.type = kvm_h.KVM_IRQ_ROUTING_MSI
                entry.u.msi.address_lo = <uint32_t>addr
                entry.u.msi.address_hi = <uint32_t>(addr >> 32)
                entry.u.msi.data = data
                entry += 1
            _ioctl("KVM_SET_GSI_ROUTING", self.fd, kvm_h.KVM_SET_GSI_ROUTING, table)
        finally:
            free(table)


# Local vector table of the local APIC (Intel SDM volume 3, 11.5.1): register offsets and delivery modes.
cdef enum:
    LVT_LINT0 = 0x350
    LVT_LINT1 = 0x360
    LVT_DELIVERY_NMI = 4 << 8
    LVT_DELIVERY_EXTINT = 7 << 8

cdef int KICK_SIGNAL = SIGRTMIN
cdef bint _handler_installed = False


cdef int _install_kick_handler() except -1:
    """Without SA_RESTART, so that the signal interrupts KVM_RUN; once a process."""
    global _handler_installed
    cdef sigaction_t action
    if _handler_installed:
        return 0
    memset(&action, 0, sizeof(action))
    action.sa_handler = acrn_dm_kick_handler
    sigemptyset(&action.sa_mask)
    _check("sigaction", sigaction(KICK_SIGNAL, &action, NULL))
    _handler_installed = True
    return 0


cdef int _enter(int fd, kvm_h.kvm_run *run) noexcept nogil:
    """KVM_RUN until an exit has to be handled: 0; or an errno, EINTR only when somebody asked to stop.

    Nothing is checked *before* KVM_RUN: entered with immediate_exit set it completes the access that is under way, then
    fails with EINTR. So the registers are at an instruction boundary whenever this returns EINTR.
    """
    while True:
        if ioctl(fd, kvm_h.KVM_RUN, 0) == 0:
            return 0
        if errno == EINTR:
            if LOAD_ACQUIRE(&run.immediate_exit):
                return EINTR
        elif errno != EAGAIN:  # EAGAIN: an application processor got INIT or SIPI and may start now
            return errno


cdef class Vcpu(_Fd):
    """One vCPU. Made by ``Vm.create_vcpu``."""

    cdef readonly unsigned long apic_id
    cdef kvm_h.kvm_run *_run
    cdef size_t _run_size
    cdef pid_t _tid  # of the thread inside ``run``, else 0; changes only under the GIL

    cdef int _map(self, size_t size) except -1:
        cdef void *address = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, self.fd, 0)
        if address == MAP_FAILED:
            raise failed("mmap of kvm_run", errno)
        self._run = <kvm_h.kvm_run *>address
        self._run_size = size
        return 0

    def __dealloc__(self):
        if self._run != NULL:
            munmap(self._run, self._run_size)

    def close(self):
        """Give mapping and descriptor back; idempotent. Not while a thread is in ``run``."""
        if self._tid:
            raise RuntimeError("a thread runs this vCPU")
        if self._run != NULL:
            munmap(self._run, self._run_size)
            self._run = NULL
        _Fd.close(self)

    def tsc_khz(self):
        """Return the frequency of the guest's time stamp counter in kHz."""
        return _ioctl_value("KVM_GET_TSC_KHZ", self.fd, kvm_h.KVM_GET_TSC_KHZ, 0)

    def set_cpuid(self, entries):
        """Set the CPUID leaves, as ``Kvm.supported_cpuid`` gives them."""
        cdef size_t i
        cdef kvm_h.kvm_cpuid_entry2 *e
        cdef kvm_h.kvm_cpuid2 *cpuid = <kvm_h.kvm_cpuid2 *>_zeroed(
            sizeof(kvm_h.kvm_cpuid2) + len(entries) * sizeof(kvm_h.kvm_cpuid_entry2))
        try:
            cpuid.nent = len(entries)
            for i, entry in enumerate(entries):
                e = &cpuid.entries[i]
                e.function, e.index, e.flags, e.eax, e.ebx, e.ecx, e.edx = entry
            _ioctl("KVM_SET_CPUID2", self.fd, kvm_h.KVM_SET_CPUID2, cpuid)
        finally:
            free(cpuid)

    def set_msrs(self, msrs):
        """Set model-specific registers, a sequence of (index, value)."""
        cdef size_t i
        cdef int done
        cdef kvm_h.kvm_msrs *table = <kvm_h.kvm_msrs *>_zeroed(
            sizeof(kvm_h.kvm_msrs) + len(msrs) * sizeof(kvm_h.kvm_msr_entry))
        try:
            table.nmsrs = len(msrs)
            for i, (index, value) in enumerate(msrs):
                table.entries[i].index = index
                table.entries[i].data = value
            done = _ioctl("KVM_SET_MSRS", self.fd, kvm_h.KVM_SET_MSRS, table)
        finally:
            free(table)
        if done < len(msrs):
            raise HostError(f"KVM_SET_MSRS: the host refuses MSR {msrs[done][0]:#x}")

    def wire_lint(self):
        """Connect LINT0 to the PICs and LINT1 to NMI, as firmware leaves a local APIC (MP specification 1.4, 3.6.2)."""
        cdef kvm_h.kvm_lapic_state lapic
        cdef uint32_t lint0 = LVT_DELIVERY_EXTINT
        cdef uint32_t lint1 = LVT_DELIVERY_NMI
        _ioctl("KVM_GET_LAPIC", self.fd, kvm_h.KVM_GET_LAPIC, &lapic)
        memcpy(lapic.regs + LVT_LINT0, &lint0, sizeof(lint0))
        memcpy(lapic.regs + LVT_LINT1, &lint1, sizeof(lint1))
        _ioctl("KVM_SET_LAPIC", self.fd, kvm_h.KVM_SET_LAPIC, &lapic)

    def set_boot_registers(self, r):
        """Set the entry state; *r* is a ``BootRegisters``. The IDT, TR and LDT stay as after power-on."""
        cdef kvm_h.kvm_sregs sregs
        cdef kvm_h.kvm_regs regs
        _ioctl("KVM_GET_SREGS", self.fd, kvm_h.KVM_GET_SREGS, &sregs)
        _segment(&sregs.cs, r.code)
        _segment(&sregs.ds, r.data)
        sregs.es = sregs.ds
        sregs.fs = sregs.ds
        sregs.gs = sregs.ds
        sregs.ss = sregs.ds
        sregs.gdt.base = r.gdt_base
        sregs.gdt.limit = r.gdt_limit
        sregs.cr0 = r.cr0
        sregs.cr3 = r.cr3
        sregs.cr4 = r.cr4
        sregs.efer = r.efer
        _ioctl("KVM_SET_SREGS", self.fd, kvm_h.KVM_SET_SREGS, &sregs)
        memset(&regs, 0, sizeof(regs))
        regs.rip = r.rip
        regs.rax = r.rax
        regs.rbx = r.rbx
        regs.rsi = r.rsi
        regs.rsp = r.rsp
        regs.rflags = 2  # bit 1 is always set
        _ioctl("KVM_SET_REGS", self.fd, kvm_h.KVM_SET_REGS, &regs)

    def registers(self):
        """Return general registers by name; only while no thread is in ``run``."""
        cdef kvm_h.kvm_regs r
        _ioctl("KVM_GET_REGS", self.fd, kvm_h.KVM_GET_REGS, &r)
        return {"rax": r.rax, "rbx": r.rbx, "rcx": r.rcx, "rdx": r.rdx, "rsi": r.rsi, "rdi": r.rdi,
                "rsp": r.rsp, "rip": r.rip, "rflags": r.rflags}

    def arm(self):
        """Withdraw an earlier ``kick``; before the thread that will ``run`` starts."""
        STORE_RELEASE(&self._run.immediate_exit, 0)

    def kick(self):
        """Make ``run`` return at the next instruction boundary; also when it has not begun yet. From any thread.

        The flag is set before the signal is sent: a thread on its way into KVM_RUN sees the flag, one inside takes the
        signal.
        """
        if self._run == NULL:
            return
        STORE_RELEASE(&self._run.immediate_exit, 1)
        if self._tid:
            acrn_dm_tgkill(getpid(), self._tid, KICK_SIGNAL)

    def was_paused(self):
        """Let the guest's clock say that it stood still, so that its watchdogs take no lock-up for real."""
        # EINVAL where the guest uses no kvmclock, or not yet: nobody to tell.
        ioctl(self.fd, kvm_h.KVM_KVMCLOCK_CTRL, 0)

    def run(self, dispatch):
        """Run guest code on this thread and pass its accesses to *dispatch*, until ``kick``: returns None.

        Returns (name of a ``VmEvent``, detail) when the vCPU can't go on. What *dispatch* raises passes through.
        """
        cdef sigset_t blocked
        cdef sigset_t before
        cdef int err
        if self._run == NULL or self._tid:
            raise RuntimeError("this vCPU is closed, or runs on another thread")
        _install_kick_handler()
        _vcpu_signals(&blocked)
        pio_read, pio_write = dispatch.pio_read, dispatch.pio_write
        mmio_read, mmio_write = dispatch.mmio_read, dispatch.mmio_write
        pthread_sigmask(SIG_SETMASK, &blocked, &before)
        self._tid = acrn_dm_gettid()
        try:
            while True:
                with nogil:
                    err = _enter(self.fd, self._run)
                if err == EINTR:
                    return None
                if err:
                    return self._run_failed(err)
                if self._run.exit_reason == kvm_h.KVM_EXIT_MMIO:
                    self._mmio(mmio_read, mmio_write)
                elif self._run.exit_reason == kvm_h.KVM_EXIT_IO:
                    self._pio(pio_read, pio_write)
                else:
                    return self._event()
        finally:
            self._tid = 0
            pthread_sigmask(SIG_SETMASK, &before, NULL)

    cdef int _pio(self, pio_read, pio_write) except -1:
        """One IN or OUT, or what a string instruction does in one go: *count* elements, at most a page of them."""
        cdef uint8_t *data = <uint8_t *>self._run + self._run.io.data_offset
        cdef uint8_t size = self._run.io.size
        cdef uint16_t port = self._run.io.port
        cdef bint out = self._run.io.direction == kvm_h.KVM_EXIT_IO_OUT
        for _ in range(self._run.io.count):
            if out:
                pio_write(port, size, _load(data, size))
            else:
                _store(data, size, pio_read(port, size))
            data += size
        return 0

    cdef int _mmio(self, mmio_read, mmio_write) except -1:
        """One load or store; sizes that are no power of two are split into naturally aligned parts, upwards."""
        cdef uint64_t gpa = self._run.mmio.phys_addr
        cdef uint32_t length = self._run.mmio.len
        cdef bint store = self._run.mmio.is_write
        cdef uint32_t done = 0
        cdef uint32_t size
        while done < length:
            size = _part(gpa + done, length - done)
            if store:
                mmio_write(gpa + done, size, _load(self._run.mmio.data + done, size))
            else:
                _store(self._run.mmio.data + done, size, mmio_read(gpa + done, size))
            done += size
        return 0

    cdef tuple _event(self):
        cdef uint32_t reason = self._run.exit_reason
        if reason == kvm_h.KVM_EXIT_SHUTDOWN:
            return "TRIPLE_FAULT", self._place()
        if reason == kvm_h.KVM_EXIT_HLT:
            return "HALTED", self._place()
        if reason == kvm_h.KVM_EXIT_INTERNAL_ERROR:
            return "INTERNAL_ERROR", self._internal_error()
        if reason == kvm_h.KVM_EXIT_FAIL_ENTRY:
            code = self._run.fail_entry.hardware_entry_failure_reason
            return "INTERNAL_ERROR", f"the processor refused to enter the guest, reason {code:#x}, {self._place()}"
        if reason == kvm_h.KVM_EXIT_SYSTEM_EVENT:
            return "INTERNAL_ERROR", f"system event {self._run.system_event.type}, {self._place()}"
        return "INTERNAL_ERROR", f"unexpected KVM exit {reason}, {self._place()}"

    cdef str _internal_error(self):
        cdef uint32_t count = min(self._run.internal.ndata, 16)
        data = " ".join(f"{self._run.internal.data[i]:#x}" for i in range(count))
        if self._run.internal.suberror == kvm_h.KVM_INTERNAL_ERROR_EMULATION:
            return f"KVM can't emulate the instruction ({data}), {self._place()}"
        return f"KVM internal error {self._run.internal.suberror} ({data}), {self._place()}"

    cdef tuple _run_failed(self, int err):
        return "INTERNAL_ERROR", f"{failed('KVM_RUN', err)}, {self._place()}"

    cdef str _place(self):
        """Where the vCPU stands; the run of a vCPU never fails because of it."""
        try:
            return f"APIC id {self.apic_id} at rip {self.registers()['rip']:#x}"
        except HostError:
            return f"APIC id {self.apic_id}"


cdef void _vcpu_signals(sigset_t *blocked) noexcept nogil:
    """A vCPU thread takes the kick and its own faults; every other signal is for the threads that wait for it."""
    sigfillset(blocked)
    sigdelset(blocked, KICK_SIGNAL)
    sigdelset(blocked, SIGSEGV)
    sigdelset(blocked, SIGBUS)
    sigdelset(blocked, SIGFPE)
    sigdelset(blocked, SIGILL)
    sigdelset(blocked, SIGABRT)
    sigdelset(blocked, SIGTRAP)


cdef int _segment(kvm_h.kvm_segment *out, segment) except -1:
    """From the access-rights word of the VMX guest state (Intel SDM volume 3, 25.4.1)."""
    cdef uint32_t access = segment.access
    memset(out, 0, sizeof(out[0]))
    out.base = segment.base
    out.limit = segment.limit
    out.selector = segment.selector
    out.type = access & 0xF
    out.s = (access >> 4) & 1
    out.dpl = (access >> 5) & 3
    out.present = (access >> 7) & 1
    out.avl = (access >> 12) & 1
    out.long_mode = (access >> 13) & 1
    out.db = (access >> 14) & 1
    out.g = (access >> 15) & 1
    out.unusable = (access >> 16) & 1
    return 0


cdef uint32_t _part(uint64_t gpa, uint32_t left) noexcept nogil:
    """Size of the next access of a split one: all of it if it is a power of two, else what alignment allows."""
    cdef uint32_t size = 8
    if left in (1, 2, 4, 8):
        return left
    while size > left or gpa & (size - 1):
        size >>= 1
    return size


cdef uint64_t _load(const uint8_t *data, uint32_t size) noexcept nogil:
    cdef uint64_t value = 0
    memcpy(&value, data, size)  # x86 is little-endian, as guest registers are
    return value


cdef int _store(uint8_t *data, uint32_t size, value) except -1:
    cdef uint64_t bits = value & 0xFFFF_FFFF_FFFF_FFFF  # a device may answer with more bits than it was asked for
    memcpy(data, &bits, size)
    return 0
