/* Copies that end where the memory they touch is gone, in place of the process: a mapped file may be cut short by others,
 * and so may the file that a client's memory is. The kernel then sends SIGBUS to the thread that touches it. */
#ifndef ACRN_DM_GUARDED_H
#define ACRN_DM_GUARDED_H

#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/uio.h>

static __thread sigjmp_buf *blk_copying; /* of this thread, while it copies */
static struct sigaction blk_bus_before;

static void blk_on_bus_error(int number, siginfo_t *info, void *context)
{
    sigjmp_buf *copying = blk_copying;
    if (copying != NULL)
        siglongjmp(*copying, 1);
    if (blk_bus_before.sa_flags & SA_SIGINFO) {
        blk_bus_before.sa_sigaction(number, info, context);
    } else if (blk_bus_before.sa_handler == SIG_DFL || blk_bus_before.sa_handler == SIG_IGN) {
        sigaction(number, &blk_bus_before, NULL);
        raise(number);
    } else {
        blk_bus_before.sa_handler(number);
    }
}

/* Once per process: a second time would make a ring of handlers where others have put theirs before ours. */
static int blk_guard(void)
{
    static int done;
    struct sigaction ours;
    if (done)
        return 1;
    memset(&ours, 0, sizeof(ours));
    ours.sa_sigaction = blk_on_bus_error;
    ours.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK; /* a copy is left by a jump, which unblocks nothing */
    sigemptyset(&ours.sa_mask);
    if (sigaction(SIGBUS, NULL, &blk_bus_before) != 0 || sigaction(SIGBUS, &ours, NULL) != 0)
        return 0;
    return done = 1;
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
