"""The declarations of ``linux/vhost.h`` that are used: numbers and structures are the header's, at build time."""

from libc.stdint cimport uint32_t, uint64_t


cdef extern from "linux/vhost.h" nogil:
    const unsigned long VHOST_GET_FEATURES
    const unsigned long VHOST_SET_FEATURES
    const unsigned long VHOST_SET_OWNER
    const unsigned long VHOST_RESET_OWNER
    const unsigned long VHOST_SET_MEM_TABLE
    const unsigned long VHOST_SET_VRING_NUM
    const unsigned long VHOST_SET_VRING_ADDR
    const unsigned long VHOST_SET_VRING_BASE
    const unsigned long VHOST_GET_VRING_BASE
    const unsigned long VHOST_SET_VRING_KICK
    const unsigned long VHOST_SET_VRING_CALL
    const unsigned long VHOST_SET_VRING_ERR
    const unsigned long VHOST_NET_SET_BACKEND
    const unsigned long VHOST_VSOCK_SET_GUEST_CID
    const unsigned long VHOST_VSOCK_SET_RUNNING

    enum:
        VHOST_F_LOG_ALL  # bit numbers
        VHOST_NET_F_VIRTIO_NET_HDR

    struct vhost_vring_state:
        unsigned int index
        unsigned int num

    struct vhost_vring_file:
        unsigned int index
        int fd

    struct vhost_vring_addr:
        unsigned int index
        unsigned int flags
        uint64_t desc_user_addr
        uint64_t used_user_addr
        uint64_t avail_user_addr
        uint64_t log_guest_addr

    struct vhost_memory_region:
        uint64_t guest_phys_addr
        uint64_t memory_size
        uint64_t userspace_addr
        uint64_t flags_padding

    struct vhost_memory:
        uint32_t nregions
        uint32_t padding
        vhost_memory_region *regions  # really an array of any length at the end
