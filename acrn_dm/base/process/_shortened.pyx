# cython: auto_pickle=False, autotestdict=False
"""Mappings of files that another process may shorten: touching what has gone is a bus error, which ends this process.

For a mapping that is watched it does not: the handler puts zeros in its place, private ones, and signals an eventfd, by
which whoever shares the memory hears that the other side has broken it. It calls nothing but system calls.
"""

cdef extern from *:
    """
    #include <errno.h>
    #include <stdint.h>
    #include <sys/mman.h>
    #include <unistd.h>

    #include "base/process/bus_error.h"

    #define ACRN_DM_WATCHED 16384

    /* Free where the length is 0. */
    static struct { uintptr_t base; size_t length; int eventfd; } acrn_dm_watched[ACRN_DM_WATCHED];
    static struct sigaction acrn_dm_before_ours;
    static int acrn_dm_handled;

    /* Over the whole mapping, which ends where a page does: of huge ones, if it has such. Whether it has is told by the
       kernel alone, which refuses to cut a huge page and leaves the mapping as it was. */
    static int acrn_dm_put_zeros(uintptr_t base, size_t length)
    {
        static const size_t pages[] = {1u << 12, 1u << 21, 1u << 30};
        for (unsigned i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
            size_t whole = (length + pages[i] - 1) & ~(pages[i] - 1);
            int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
            if (mmap((void *)base, whole, PROT_READ | PROT_WRITE, flags, -1, 0) != MAP_FAILED)
                return 1;
        }
        return 0;
    }

    static int acrn_dm_was_shortened(uintptr_t at)
    {
        static const uint64_t one = 1;
        for (int i = 0; i < ACRN_DM_WATCHED; i++) {
            size_t length = __atomic_load_n(&acrn_dm_watched[i].length, __ATOMIC_ACQUIRE);
            if (length == 0 || at - acrn_dm_watched[i].base >= length)
                continue;
            if (!acrn_dm_put_zeros(acrn_dm_watched[i].base, length))
                return 0;
            return write(acrn_dm_watched[i].eventfd, &one, sizeof(one)) != 0;  /* a full one says it already */
        }
        return 0;
    }

    static void acrn_dm_on_bus_error(int number, siginfo_t *info, void *context)
    {
        int saved = errno;
        /* A handler above ours, which gives terminals back, raises the signal again in this process, without the
           address; the access is repeated then and faults with one. */
        int repeated = info->si_code == SI_TKILL && info->si_pid == getpid();
        if (!repeated && !(info->si_code > 0 && acrn_dm_was_shortened((uintptr_t)info->si_addr)))
            acrn_dm_hand_on(&acrn_dm_before_ours, number, info, context);
        errno = saved;
    }

    static int acrn_dm_watch(uintptr_t base, size_t length, int eventfd)
    {
        for (int i = 0; i < ACRN_DM_WATCHED; i++) {
            if (acrn_dm_watched[i].length != 0)
                continue;
            acrn_dm_watched[i].base = base;
            acrn_dm_watched[i].eventfd = eventfd;
            __atomic_store_n(&acrn_dm_watched[i].length, length, __ATOMIC_RELEASE);  /* last: the handler goes by it */
            acrn_dm_handle_bus_error(acrn_dm_on_bus_error, &acrn_dm_before_ours, &acrn_dm_handled);
            return i;
        }
        return -1;
    }

    static void acrn_dm_unwatch(int slot)
    {
        __atomic_store_n(&acrn_dm_watched[slot].length, 0, __ATOMIC_RELEASE);
    }
    """
    int ACRN_DM_WATCHED
    int acrn_dm_watch(size_t base, size_t length, int eventfd) noexcept
    void acrn_dm_unwatch(int slot) noexcept


def watch(const unsigned char[::1] mapping, int eventfd):
    """Have zeros put into *mapping*, all of a shared mapping, when its file has been shortened under it and it is
    touched, and *eventfd* signalled then. Returns a number for ``unwatch``. Raises OverflowError when too many are
    watched.

    It is the mapping's owner who unwatches it before it is unmapped, while nobody touches it.
    """
    cdef int slot = acrn_dm_watch(<size_t>&mapping[0], mapping.shape[0], eventfd)
    if slot < 0:
        raise OverflowError(f"more than {ACRN_DM_WATCHED} mappings are watched")
    return slot


def unwatch(int slot):
    """Take a mapping out again. Raises IndexError."""
    if not 0 <= slot < ACRN_DM_WATCHED:
        raise IndexError(slot)
    acrn_dm_unwatch(slot)
