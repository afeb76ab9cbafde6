/* What the kernel restricts a thread at a time: done by the calling thread, and by others in a signal's handler. */
#ifndef ACRN_DM_SANDBOX_THREADS_H
#define ACRN_DM_SANDBOX_THREADS_H

#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* The same on every architecture; headers may be older than the kernel. */
#define SANDBOX_LANDLOCK_CREATE 444
#define SANDBOX_LANDLOCK_ADD 445
#define SANDBOX_LANDLOCK_RESTRICT 446

/* What a thread is to do: go into these namespaces, if there are any, or be restricted. */
#define SANDBOX_NAMESPACES 3
static int sandbox_namespaces[SANDBOX_NAMESPACES] = {-1, -1, -1};
static int sandbox_moves;
static int sandbox_ruleset = -1;
static volatile sig_atomic_t sandbox_answer; /* -1: none yet, 0: done, else an errno */

/* Both return 0 or an errno. Async-signal-safe. */
static inline int sandbox_move(void)
{
    int i;

    for (i = 0; i < SANDBOX_NAMESPACES; i++)
        if (sandbox_namespaces[i] >= 0 && syscall(SYS_setns, sandbox_namespaces[i], 0))
            return errno;
    return 0;
}

static inline int sandbox_this_thread(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2];
    unsigned long cap;

    if (sandbox_moves)
        return sandbox_move();
    if (sandbox_ruleset >= 0 && syscall(SANDBOX_LANDLOCK_RESTRICT, sandbox_ruleset, 0))
        return errno;
    for (cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        prctl(PR_CAPBSET_DROP, cap, 0, 0, 0); /* EPERM: it has no capability that it could keep */
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    memset(none, 0, sizeof(none));
    return syscall(SYS_capset, &header, none) ? errno : 0;
}

static void sandbox_handler(int number)
{
    int before = errno;
    (void)number;
    sandbox_answer = sandbox_this_thread();
    errno = before;
}

/* Have thread tid of this process do it. Returns 0 or an errno: ETIMEDOUT where it does not answer, ESRCH if it has ended. */
static inline int sandbox_other_thread(int tid, int milliseconds)
{
    struct sigaction act, before;
    struct timespec a_while = {0, 100000};
    int number = SIGRTMAX - 3, left, err = 0;

    memset(&act, 0, sizeof(act));
    act.sa_handler = sandbox_handler;
    act.sa_flags = SA_RESTART | SA_ONSTACK;
    sigaction(number, &act, &before);
    sandbox_answer = -1;
    if (syscall(SYS_tgkill, getpid(), tid, number))
        err = errno;
    for (left = milliseconds * 10; !err && sandbox_answer == -1; left--) {
        if (!left || (left % 100 == 0 && syscall(SYS_tgkill, getpid(), tid, 0)))
            err = left ? ESRCH : ETIMEDOUT;
        nanosleep(&a_while, NULL);
    }
    if (err != ETIMEDOUT)
        sigaction(number, &before, NULL);
    return err ? err : sandbox_answer;
}

#endif
