/* Copies that end where the memory they touch is gone, in place of the process: a mapped file may be cut short by others,
 * and so may the file that a client's memory is. The kernel then sends SIGBUS to the thread that touches it. */
#ifndef ACRN_DM_GUARDED_H
#define ACRN_DM_GUARDED_H

#include <setjmp.h>
#include <stddef.h>
#include <string.h>
#include <sys/uio.h>

#include "base/process/bus_error.h"

static __thread sigjmp_buf *blk_copying; /* of this thread, while it copies */
static struct sigaction blk_bus_before;

static void blk_on_bus_error(int number, siginfo_t *info, void *context)
{
    sigjmp_buf *copying = blk_copying;
    if (copying != NULL)
        siglongjmp(*copying, 1);
    acrn_dm_hand_on(&blk_bus_before, number, info, context);
}

static int blk_guard(void)
{
    static int done;
    return acrn_dm_handle_bus_error(blk_on_bus_error, &blk_bus_before, &done);
}

/* Copy *from* to *n* vectors; 0 where that met memory that is gone. */
static inline int blk_copy_guarded(const unsigned char *from, const struct iovec *to, unsigned n)
{
    sigjmp_buf here;
    if (sigsetjmp(here, 0) != 0) {
        blk_copying = NULL;
        return 0;
    }
    *(sigjmp_buf *volatile *)&blk_copying = &here;
    for (unsigned i = 0; i < n; i++) {
        memcpy(to[i].iov_base, from, to[i].iov_len);
        from += to[i].iov_len;
    }
    __asm__ volatile("" ::: "memory");
    *(sigjmp_buf *volatile *)&blk_copying = NULL;
    return 1;
}

#endif
