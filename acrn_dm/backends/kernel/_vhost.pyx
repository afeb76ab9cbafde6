# cython: auto_pickle=False, autotestdict=False
"""The kernel's vhost by its ioctls: one open ``/dev/vhost-*`` as one object. Order and policy are in ``kernel``.

Every number and structure comes from ``linux/vhost.h`` at build time. No host address passes through Python: rings are
given as guest addresses, which become pointers in the ring module's one function for that.
"""

import errno as _errno

from acrn_dm.base.errors import GuestError, HostError

from acrn_dm._fastring cimport MemoryMap, fr_translate
from acrn_dm.base._ioctl cimport DeviceFile, zeroed
from acrn_dm.backends.kernel cimport _linux_vhost as vhost_h
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset


LOG_ALL = 1 << vhost_h.VHOST_F_LOG_ALL  # "note every page written", a request of migration; guests must not see it
NET_HEADER = 1 << vhost_h.VHOST_NET_F_VIRTIO_NET_HDR  # "vhost adds the packet header", where the tap has none

# What usually stands behind an errno of a call, for the person who reads the message.
HINTS = {
    ("open", _errno.ENOENT): "load vhost_net or vhost_vsock",
    ("open", _errno.EACCES): "run as a user who may open it",
    ("open", _errno.EBUSY): "another program has this transport",
    ("VHOST_SET_OWNER", _errno.EBUSY): "it has an owner already",
    ("VHOST_SET_MEM_TABLE", _errno.E2BIG): "raise the vhost module's max_mem_regions",
    ("VHOST_NET_SET_BACKEND", _errno.EBADFD): "the interface is gone",
    ("VHOST_NET_SET_BACKEND", _errno.ENOTSOCK): "it is no tap",
    ("VHOST_VSOCK_SET_GUEST_CID", _errno.EADDRINUSE): "another virtual machine has this cid",
    ("VHOST_VSOCK_SET_GUEST_CID", _errno.EINVAL): "this cid is reserved",
}


def _failed(str call, int err):
    return HostError(call, err=err, hint=HINTS.get((call.partition(" ")[0], err)))


cdef class NodeFile(DeviceFile):
    """An open vhost device. Each method is the ioctl of that name; all raise HostError.

    *index* is the queue's number inside this node; a descriptor of -1 takes away what was set.
    """

    cdef readonly str path

    def __cinit__(self, str path):
        self.failed = _failed
        self.path = path
        self.open_path(path)

    def get_features(self):
        """Return the feature bits the kernel has for the ring and for itself."""
        cdef uint64_t features = 0
        self.call("VHOST_GET_FEATURES", vhost_h.VHOST_GET_FEATURES, &features)
        return features

    def set_features(self, uint64_t features):
        """Tell what was negotiated."""
        self.call("VHOST_SET_FEATURES", vhost_h.VHOST_SET_FEATURES, &features)

    def set_owner(self):
        """Make this process's memory the one that guest addresses point into, and start a worker thread."""
        self.call("VHOST_SET_OWNER", vhost_h.VHOST_SET_OWNER, NULL)

    def reset_owner(self):
        """Undo ``set_owner`` and everything set since. Not every driver knows this one."""
        self.call("VHOST_RESET_OWNER", vhost_h.VHOST_RESET_OWNER, NULL)

    def set_mem_table(self, MemoryMap memory not None):
        """Show all of guest RAM."""
        cdef uint32_t n = memory.memory.n_regions
        cdef uint32_t i
        cdef vhost_h.vhost_memory *table = <vhost_h.vhost_memory *>zeroed(
            sizeof(vhost_h.vhost_memory) + n * sizeof(vhost_h.vhost_memory_region)
        )
        try:
            table.nregions = n
            for i in range(n):
                table.regions[i].guest_phys_addr = memory.memory.regions[i].gpa
                table.regions[i].memory_size = memory.memory.regions[i].size
                table.regions[i].userspace_addr = <uint64_t><size_t>memory.memory.regions[i].hva
            self.call("VHOST_SET_MEM_TABLE", vhost_h.VHOST_SET_MEM_TABLE, table)
        finally:
            free(table)

    def set_vring_num(self, unsigned int index, unsigned int num):
        """Entries of the ring."""
        self._set_state("VHOST_SET_VRING_NUM", vhost_h.VHOST_SET_VRING_NUM, index, num)

    def set_vring_base(self, unsigned int index, unsigned int base):
        """The next available index to take."""
        self._set_state("VHOST_SET_VRING_BASE", vhost_h.VHOST_SET_VRING_BASE, index, base)

    def get_vring_base(self, unsigned int index):
        """The next available index it would take."""
        cdef vhost_h.vhost_vring_state state
        state.index, state.num = index, 0
        self.call("VHOST_GET_VRING_BASE", vhost_h.VHOST_GET_VRING_BASE, &state)
        return state.num

    def set_vring_addr(self, unsigned int index, MemoryMap memory not None, uint64_t desc, uint64_t avail,
                       uint64_t used):
        """Where the ring is, in guest addresses. Raises GuestError outside RAM; the kernel checks the lengths."""
        cdef vhost_h.vhost_vring_addr addr
        memset(&addr, 0, sizeof(addr))
        addr.index = index
        addr.desc_user_addr = self._pointer(memory, desc)
        addr.avail_user_addr = self._pointer(memory, avail)
        addr.used_user_addr = self._pointer(memory, used)
        self.call("VHOST_SET_VRING_ADDR", vhost_h.VHOST_SET_VRING_ADDR, &addr)

    def set_vring_kick(self, unsigned int index, int fd):
        """The eventfd that says: look at the ring."""
        self._set_file("VHOST_SET_VRING_KICK", vhost_h.VHOST_SET_VRING_KICK, index, fd)

    def set_vring_call(self, unsigned int index, int fd):
        """The eventfd to write for an interrupt."""
        self._set_file("VHOST_SET_VRING_CALL", vhost_h.VHOST_SET_VRING_CALL, index, fd)

    def set_vring_err(self, unsigned int index, int fd):
        """The eventfd to write when the ring can't be used."""
        self._set_file("VHOST_SET_VRING_ERR", vhost_h.VHOST_SET_VRING_ERR, index, fd)

    def net_set_backend(self, unsigned int index, int fd):
        """vhost-net: move frames between the queue and the tap *fd*; -1 stops and waits."""
        self._set_file("VHOST_NET_SET_BACKEND", vhost_h.VHOST_NET_SET_BACKEND, index, fd)

    def vsock_set_guest_cid(self, uint64_t cid):
        """vhost-vsock: the guest's address."""
        self.call("VHOST_VSOCK_SET_GUEST_CID", vhost_h.VHOST_VSOCK_SET_GUEST_CID, &cid)

    def vsock_set_running(self, bint running):
        """vhost-vsock: start or stop moving data."""
        cdef int value = running
        self.call("VHOST_VSOCK_SET_RUNNING", vhost_h.VHOST_VSOCK_SET_RUNNING, &value)

    cdef int _set_state(self, str name, unsigned long request, unsigned int index, unsigned int num) except -1:
        cdef vhost_h.vhost_vring_state state
        state.index, state.num = index, num
        return self.call(name, request, &state)

    cdef int _set_file(self, str name, unsigned long request, unsigned int index, int fd) except -1:
        cdef vhost_h.vhost_vring_file file
        file.index, file.fd = index, fd
        return self.call(name, request, &file)

    cdef uint64_t _pointer(self, MemoryMap memory, uint64_t gpa) except 0:
        cdef uint64_t room
        cdef void *at = fr_translate(&memory.memory, gpa, &room)
        if at == NULL:
            raise GuestError(f"{self.path}: a ring at {gpa:#x} is not in RAM")
        return <uint64_t><size_t>at
