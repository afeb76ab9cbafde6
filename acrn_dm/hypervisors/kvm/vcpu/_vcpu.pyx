# cython: auto_pickle=False, autotestdict=False
"""A vCPU that runs: the shared page, the request that gets it out of the guest, and the loop."""

from acrn_dm.base.errors import HostError
from acrn_dm.hypervisors.kvm.errors import failed

from acrn_dm.base._ioctl cimport DeviceFile, control
from acrn_dm.hypervisors.kvm cimport _linux_kvm as kvm_h
from acrn_dm.hypervisors.kvm.vcpu._exits cimport ending, memory_access, port_access
from acrn_dm.hypervisors.kvm.vcpu._state cimport VcpuState
from libc.errno cimport EAGAIN, EFAULT, EINTR, errno
from libc.stdint cimport uint8_t
from libc.string cimport memset
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap
from posix.signal cimport SIG_SETMASK, sigaction, sigaction_t, sigdelset, sigemptyset, sigfillset, sigset_t
from posix.types cimport pid_t
from posix.unistd cimport getpid


cdef enum:
    MAX_FAULTS = 8            # in a row, at one place


cdef extern from *:
    """
    #include <signal.h>
    #include <sys/syscall.h>
    #include <unistd.h>

    /* The vCPU thread reads these while another thread writes them. */
    #define LOAD_ACQUIRE(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define STORE_RELEASE(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)

    /* The signal only has to interrupt KVM_RUN; what to do is in immediate_exit. */
    static void acrn_dm_exit_handler(int signo) { (void)signo; }

    /* glibc has these two only from 2.30 on. */
    static pid_t acrn_dm_gettid(void) { return (pid_t)syscall(SYS_gettid); }
    static int acrn_dm_tgkill(pid_t pid, pid_t tid, int signo) { return (int)syscall(SYS_tgkill, pid, tid, signo); }
    """
    int pthread_sigmask(int how, const sigset_t *new, sigset_t *old) nogil
    pid_t acrn_dm_gettid() nogil
    int acrn_dm_tgkill(pid_t pid, pid_t tid, int signo) nogil
    void acrn_dm_exit_handler(int signo) noexcept nogil
    uint8_t LOAD_ACQUIRE(uint8_t *p) nogil
    void STORE_RELEASE(uint8_t *p, uint8_t value) nogil
    int SIGRTMIN, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP


cdef int EXIT_SIGNAL = SIGRTMIN
cdef bint _handler_installed = False


cdef int _install_exit_handler() except -1:
    """Without SA_RESTART, so that the signal interrupts KVM_RUN; once a process."""
    global _handler_installed
    cdef sigaction_t action
    if _handler_installed:
        return 0
    memset(&action, 0, sizeof(action))
    action.sa_handler = acrn_dm_exit_handler
    sigemptyset(&action.sa_mask)
    if sigaction(EXIT_SIGNAL, &action, NULL) < 0:
        raise failed("sigaction", errno)
    _handler_installed = True
    return 0


cdef int _enter(int fd, kvm_h.kvm_run *run) noexcept nogil:
    """KVM_RUN until an exit has to be handled: 0; or an errno, EINTR only when somebody asked to stop.

    Nothing is checked *before* KVM_RUN: entered with immediate_exit set it completes the access that is under way, then
    fails with EINTR. So the registers are at an instruction boundary whenever this returns EINTR.
    """
    cdef int result
    while True:
        result = control(fd, kvm_h.KVM_RUN, NULL)
        if result == 0:
            return 0
        if result == -EINTR:
            if LOAD_ACQUIRE(&run.immediate_exit):
                return EINTR
        elif result != -EAGAIN:  # EAGAIN: an application processor got INIT or SIPI and may start now
            return -result


cdef class Vcpu(VcpuState):
    """One vCPU. Made by ``Vm.create_vcpu``."""

    cdef int map(self, size_t size) except -1:
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
        DeviceFile.close(self)

    def arm(self):
        """Withdraw an earlier ``request_exit``; before the thread that will ``run`` starts."""
        STORE_RELEASE(&self._run.immediate_exit, 0)

    def request_exit(self):
        """Make ``run`` return at the next instruction boundary; also when it has not begun yet. From any thread.

        The flag is set before the signal is sent: a thread on its way into KVM_RUN sees the flag, one inside takes the
        signal.
        """
        if self._run == NULL:
            return
        STORE_RELEASE(&self._run.immediate_exit, 1)
        if self._tid:
            acrn_dm_tgkill(getpid(), self._tid, EXIT_SIGNAL)

    def run(self, dispatch, mend=lambda: False):
        """Run guest code on this thread and pass its accesses to *dispatch*, until ``request_exit``: returns None.

        Returns (name of a ``VmEvent``, detail) when the vCPU can't go on. What *dispatch* raises passes through. *mend*
        is asked whether an access to memory that the host has failed can be repeated.
        """
        cdef sigset_t blocked
        cdef sigset_t before
        cdef int err
        cdef int faults = 0
        if self._run == NULL or self._tid:
            raise RuntimeError("this vCPU is closed, or runs on another thread")
        _install_exit_handler()
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
                faults = faults + 1 if err == EFAULT else 0
                if 0 < faults <= MAX_FAULTS and mend():
                    continue
                if err:
                    return "INTERNAL_ERROR", f"{failed('KVM_RUN', err)}, {_place(self)}"
                if self._run.exit_reason == kvm_h.KVM_EXIT_MMIO:
                    memory_access(self._run, mmio_read, mmio_write)
                elif self._run.exit_reason == kvm_h.KVM_EXIT_IO:
                    port_access(self._run, pio_read, pio_write)
                else:
                    return ending(self._run, _place(self))
        finally:
            self._tid = 0
            pthread_sigmask(SIG_SETMASK, &before, NULL)


cdef str _place(VcpuState vcpu):
    """Where the vCPU stands; the run of a vCPU never fails because of it."""
    try:
        return f"APIC id {vcpu.apic_id} at rip {vcpu.registers()['rip']:#x}"
    except HostError:
        return f"APIC id {vcpu.apic_id}"


cdef void _vcpu_signals(sigset_t *blocked) noexcept nogil:
    """A vCPU thread takes EXIT_SIGNAL and its own faults; every other signal is for the threads that wait for it."""
    sigfillset(blocked)
    sigdelset(blocked, EXIT_SIGNAL)
    sigdelset(blocked, SIGSEGV)
    sigdelset(blocked, SIGBUS)
    sigdelset(blocked, SIGFPE)
    sigdelset(blocked, SIGILL)
    sigdelset(blocked, SIGABRT)
    sigdelset(blocked, SIGTRAP)
