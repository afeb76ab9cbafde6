/* Handlers of SIGBUS that stand above others: each takes what is its own and hands the rest on to the one before. */
#ifndef ACRN_DM_BUS_ERROR_H
#define ACRN_DM_BUS_ERROR_H

#include <signal.h>
#include <string.h>

/* What the earlier handler would have done; the default ends the process, when this returns. */
static void acrn_dm_hand_on(const struct sigaction *before, int number, siginfo_t *info, void *context)
{
    if (before->sa_flags & SA_SIGINFO) {
        before->sa_sigaction(number, info, context);
    } else if (before->sa_handler == SIG_DFL || before->sa_handler == SIG_IGN) {
        sigaction(number, before, NULL);
        raise(number);
    } else {
        before->sa_handler(number);
    }
}

/* Put *handler* above the one there is, which *before* keeps; 0 where the kernel refuses. Once for each *before*: a
 * second time would make a ring of handlers where others have put theirs between. Nothing is blocked meanwhile, for a
 * handler may leave by a jump, which unblocks nothing. */
static int acrn_dm_handle_bus_error(void (*handler)(int, siginfo_t *, void *), struct sigaction *before, int *done)
{
    struct sigaction ours;
    if (*done)
        return 1;
    memset(&ours, 0, sizeof(ours));
    ours.sa_sigaction = handler;
    ours.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    sigemptyset(&ours.sa_mask);
    return *done = sigaction(SIGBUS, NULL, before) == 0 && sigaction(SIGBUS, &ours, NULL) == 0;
}

#endif
