# cython: auto_pickle=False, autotestdict=False
"""Terminals that have to be given back even when a signal ends the process: the handlers of those signals.

Python's own handlers run between two instructions of its main thread, which a fault or abort() never reaches. These run
at once, call nothing but async-signal-safe functions, and let the signal do what it would have done without them.
"""

cdef extern from *:
    """
    #include <signal.h>
    #include <string.h>
    #include <termios.h>
    #include <unistd.h>

    #define ACRN_DM_TERMINALS 32
    #define ACRN_DM_SIGNALS 65

    static struct { volatile sig_atomic_t used; int fd; struct termios was; } acrn_dm_kept[ACRN_DM_TERMINALS];
    static struct sigaction acrn_dm_before[ACRN_DM_SIGNALS];

    static void acrn_dm_rescue(int number)
    {
        for (int i = 0; i < ACRN_DM_TERMINALS; i++) {
            if (acrn_dm_kept[i].used) {
                pid_t front = tcgetpgrp(acrn_dm_kept[i].fd);  /* -1: not our controlling terminal, so nobody else's */
                if (front < 0 || front == getpgrp())
                    tcsetattr(acrn_dm_kept[i].fd, TCSANOW, &acrn_dm_kept[i].was);
            }
        }
        sigaction(number, &acrn_dm_before[number], NULL);
        raise(number);  /* blocked until we return */
    }

    static int acrn_dm_keep(int fd)
    {
        for (int i = 0; i < ACRN_DM_TERMINALS; i++) {
            if (!acrn_dm_kept[i].used && tcgetattr(fd, &acrn_dm_kept[i].was) == 0) {
                acrn_dm_kept[i].fd = fd;
                acrn_dm_kept[i].used = 1;
                return i;
            }
        }
        return -1;
    }

    static int acrn_dm_is_fault(int number)
    {
        return number == SIGABRT || number == SIGSEGV || number == SIGBUS || number == SIGFPE || number == SIGILL;
    }

    /* Signals that end a process by default and that nobody handles; faults also where somebody reports them first. */
    static int acrn_dm_ends_process(int number, const struct sigaction *action)
    {
        static const int harmless[] = {SIGCHLD, SIGCONT, SIGURG, SIGWINCH, SIGTSTP, SIGTTIN, SIGTTOU, SIGSTOP, SIGKILL};
        for (unsigned i = 0; i < sizeof(harmless) / sizeof(harmless[0]); i++)
            if (number == harmless[i])
                return 0;
        if (acrn_dm_is_fault(number))
            return action->sa_handler != SIG_IGN && action->sa_handler != acrn_dm_rescue;
        return !(action->sa_flags & SA_SIGINFO) && action->sa_handler == SIG_DFL;
    }

    static void acrn_dm_arm(void)
    {
        for (int number = 1; number < ACRN_DM_SIGNALS; number++) {
            struct sigaction now, ours;
            if (sigaction(number, NULL, &now) != 0 || !acrn_dm_ends_process(number, &now))
                continue;
            memset(&ours, 0, sizeof(ours));
            ours.sa_handler = acrn_dm_rescue;
            ours.sa_flags = SA_ONSTACK;
            sigfillset(&ours.sa_mask);
            acrn_dm_before[number] = now;
            sigaction(number, &ours, NULL);
        }
    }

    static void acrn_dm_disarm(void)
    {
        for (int number = 1; number < ACRN_DM_SIGNALS; number++) {
            struct sigaction now;
            if (sigaction(number, NULL, &now) == 0 && now.sa_handler == acrn_dm_rescue)
                sigaction(number, &acrn_dm_before[number], NULL);
        }
    }

    static void acrn_dm_forget(int slot)
    {
        acrn_dm_kept[slot].used = 0;
        for (int i = 0; i < ACRN_DM_TERMINALS; i++)
            if (acrn_dm_kept[i].used)
                return;
        acrn_dm_disarm();
    }
    """
    int ACRN_DM_TERMINALS
    int acrn_dm_keep(int fd) noexcept
    void acrn_dm_arm() noexcept
    void acrn_dm_forget(int slot) noexcept


def keep(int fd):
    """Note how the terminal *fd* is now, and set it so again before a signal ends the process, unless another process
    group has it then. Returns a number for ``forget``; -1 when *fd* is no terminal or too many are kept.
    """
    cdef int slot = acrn_dm_keep(fd)
    if slot >= 0:
        acrn_dm_arm()
    return slot


def forget(int slot):
    """Leave it alone from now on. The last one takes the signals' handlers away."""
    if 0 <= slot < ACRN_DM_TERMINALS:
        acrn_dm_forget(slot)
