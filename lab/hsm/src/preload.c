/*
 * The libc calls in front of the emulated module. The node does not exist: what opens it gets a descriptor of
 * /dev/null, whose number every later ioctl and close is recognised by; what asks whether it exists is told of /dev/null.
 */
#include "rig.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_FDS 4096
#define STAND_IN "/dev/null"

static struct vm *machines[MAX_FDS]; /* entries change on the thread that opens or closes the descriptor */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Everything else of the rig stays out of the process's symbols. */
#define EXPORT __attribute__((visibility("default")))
#define NEXT(name) ((__typeof__(&(name)))next(#name))

static void *next(const char *name) {
    return dlsym(RTLD_NEXT, name);
}

static bool is_node(const char *path) {
    return path != NULL && strcmp(path, hsm_node()) == 0;
}

static const char *stand_in(const char *path) {
    return is_node(path) ? STAND_IN : path;
}

static struct vm *machine(int fd) {
    struct vm *vm;

    if (fd < 0 || fd >= MAX_FDS)
        return NULL;
    vm = __atomic_load_n(&machines[fd], __ATOMIC_ACQUIRE);
    return vm != NULL && vm->pid == getpid() ? vm : NULL; /* a child's copies of our descriptors are not ours */
}

static int opened(const char *path, int fd) {
    if (!is_node(path) || fd < 0)
        return fd;
    if (fd >= MAX_FDS) {
        NEXT(close)(fd);
        return (int)set_failed(24); /* EMFILE */
    }
    pthread_mutex_lock(&lock);
    __atomic_store_n(&machines[fd], hsm_open(fd), __ATOMIC_RELEASE);
    pthread_mutex_unlock(&lock);
    return fd;
}

static int open_failure(const char *path) {
    int error;

    if (!is_node(path))
        return 0;
    report_open();
    error = injected_failure("open");
    if (error) {
        set_failed(error);
        trace("open", -1, "");
    }
    return error;
}

#define MODE_OF(flags, last)                                                                                           \
    ({                                                                                                                 \
        mode_t mode_ = 0;                                                                                              \
        if ((flags) & (O_CREAT | __O_TMPFILE)) {                                                                       \
            va_list list_;                                                                                             \
            va_start(list_, last);                                                                                     \
            mode_ = va_arg(list_, mode_t);                                                                             \
            va_end(list_);                                                                                             \
        }                                                                                                              \
        mode_;                                                                                                         \
    })

EXPORT int open(const char *path, int flags, ...) {
    mode_t mode = MODE_OF(flags, flags);

    return open_failure(path) ? -1 : opened(path, NEXT(open)(stand_in(path), flags, mode));
}

EXPORT int open64(const char *path, int flags, ...) {
    mode_t mode = MODE_OF(flags, flags);

    return open_failure(path) ? -1 : opened(path, NEXT(open64)(stand_in(path), flags, mode));
}

EXPORT int openat(int directory, const char *path, int flags, ...) {
    mode_t mode = MODE_OF(flags, flags);

    return open_failure(path) ? -1 : opened(path, NEXT(openat)(directory, stand_in(path), flags, mode));
}

EXPORT int openat64(int directory, const char *path, int flags, ...) {
    mode_t mode = MODE_OF(flags, flags);

    return open_failure(path) ? -1 : opened(path, NEXT(openat64)(directory, stand_in(path), flags, mode));
}

EXPORT int ioctl(int fd, unsigned long request, ...) {
    static int (*real)(int, unsigned long, ...);
    struct vm *vm = machine(fd);
    unsigned long argument;
    va_list list;

    va_start(list, request);
    argument = va_arg(list, unsigned long);
    va_end(list);
    if (vm != NULL)
        return (int)hsm_ioctl(vm, request, argument);
    if (real == NULL)
        real = NEXT(ioctl);
    return real(fd, request, argument);
}

EXPORT int close(int fd) {
    static int (*real)(int);
    struct vm *vm = machine(fd);

    if (real == NULL)
        real = NEXT(close);
    if (vm != NULL) {
        __atomic_store_n(&machines[fd], NULL, __ATOMIC_RELEASE);
        hsm_close(vm);
    }
    return real(fd);
}

EXPORT int access(const char *path, int mode) {
    return NEXT(access)(stand_in(path), mode);
}

EXPORT int faccessat(int directory, const char *path, int mode, int flags) {
    return NEXT(faccessat)(directory, stand_in(path), mode, flags);
}

EXPORT int stat(const char *path, struct stat *result) {
    return NEXT(stat)(stand_in(path), result);
}

EXPORT int stat64(const char *path, struct stat64 *result) {
    return NEXT(stat64)(stand_in(path), result);
}

EXPORT int lstat64(const char *path, struct stat64 *result) {
    return NEXT(lstat64)(stand_in(path), result);
}

EXPORT int fstatat64(int directory, const char *path, struct stat64 *result, int flags) {
    return NEXT(fstatat64)(directory, stand_in(path), result, flags);
}

EXPORT int statx(int directory, const char *path, int flags, unsigned mask, struct statx *result) {
    return NEXT(statx)(directory, stand_in(path), flags, mask, result);
}

__attribute__((destructor)) static void process_ends(void) {
    for (int fd = 0; fd < MAX_FDS; fd++) {
        struct vm *vm = machine(fd);

        if (vm != NULL && vm->created)
            violation("the process ended with a VM on descriptor %d: DESTROY_VM is missing", fd);
    }
}
