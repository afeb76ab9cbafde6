/* What the rig writes: violations, the trace of calls, statistics; and the failures it is told to inject. */
#include "rig.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_CALLS 64
#define TRACE_BUFFER (256 << 10)
#define FLUSH_EVERY 64 /* frequent calls: whoever waits for the first of them need not wait long */

static FILE *report_file, *trace_file;
static unsigned unflushed;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    char name[32];
    unsigned seen;
} calls[MAX_CALLS];

uint64_t now_ns(void) {
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

const char *setting(const char *name) {
    const char *value = getenv(name);

    return value != NULL && *value != '\0' ? value : NULL;
}

long number_setting(const char *name, long otherwise) {
    const char *value = setting(name);

    return value != NULL ? strtol(value, NULL, 0) : otherwise;
}

static FILE *open_setting(const char *name) {
    const char *path = setting(name);

    return path != NULL ? fopen(path, "ae") : NULL;
}

void report_open(void) {
    pthread_mutex_lock(&lock);
    if (report_file == NULL)
        report_file = open_setting("RIG_REPORT");
    if (trace_file == NULL) {
        trace_file = open_setting("RIG_TRACE");
        if (trace_file != NULL)
            setvbuf(trace_file, NULL, _IOFBF, TRACE_BUFFER);
    }
    pthread_mutex_unlock(&lock);
}

void violation(const char *format, ...) {
    va_list arguments;

    pthread_mutex_lock(&lock);
    va_start(arguments, format);
    if (report_file != NULL) {
        vfprintf(report_file, format, arguments);
        fputc('\n', report_file);
        fflush(report_file);
    } else {
        fputs("rig: ", stderr);
        vfprintf(stderr, format, arguments);
        fputc('\n', stderr);
    }
    va_end(arguments);
    pthread_mutex_unlock(&lock);
}

/* Count the call; with lock held. */
static unsigned seen(const char *call) {
    for (int i = 0; i < MAX_CALLS; i++) {
        if (calls[i].name[0] == '\0')
            snprintf(calls[i].name, sizeof(calls[i].name), "%s", call);
        if (strcmp(calls[i].name, call) == 0)
            return ++calls[i].seen;
    }
    return 0;
}

int injected_failure(const char *call) {
    const char *plan = setting("RIG_FAIL");
    size_t length = strlen(call);
    unsigned turn;
    int error = 0;

    if (plan == NULL)
        return 0;
    pthread_mutex_lock(&lock);
    turn = seen(call);
    pthread_mutex_unlock(&lock);
    for (const char *entry = plan; entry != NULL; entry = strchr(entry, ',')) {
        unsigned wanted = 1;
        bool always = false;

        entry += *entry == ',';
        if (strncmp(entry, call, length) != 0 || (entry[length] != '@' && entry[length] != '='))
            continue;
        if (entry[length] == '@') {
            always = entry[length + 1] == '*';
            wanted = (unsigned)strtoul(entry + length + 1, NULL, 10);
        }
        if (always || wanted == turn)
            error = atoi(strchr(entry, '=') + 1);
    }
    return error;
}

/* The calls of the data path are not flushed one by one: a file may be behind a slow mount. */
static bool is_frequent(const char *call) {
    return strcmp(call, "ATTACH_IOREQ_CLIENT") == 0 || strcmp(call, "NOTIFY_REQUEST_FINISH") == 0 ||
           strcmp(call, "INJECT_MSI") == 0 || strcmp(call, "SET_IRQLINE") == 0 || strcmp(call, "REQUEST") == 0;
}

void trace(const char *call, long result, const char *format, ...) {
    int error = errno;
    va_list arguments;

    pthread_mutex_lock(&lock);
    if (trace_file != NULL) {
        fprintf(trace_file, "{\"call\":\"%s\",", call);
        va_start(arguments, format);
        vfprintf(trace_file, format, arguments);
        va_end(arguments);
        fprintf(trace_file, "%s\"result\":%ld,\"errno\":%d}\n", *format != '\0' ? "," : "", result,
                result < 0 ? error : 0);
        if (!is_frequent(call) || ++unflushed % FLUSH_EVERY == 0)
            fflush(trace_file);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static uint32_t percentile(const struct vm *vm, unsigned per_mille) {
    return vm->samples ? vm->samples_ns[(vm->samples - 1) * per_mille / 1000] : 0;
}

void write_stats(struct vm *vm) {
    const struct counters *c = &vm->count;
    FILE *file = open_setting("RIG_STATS");
    uint64_t total = 0;

    if (file == NULL)
        return;
    qsort(vm->samples_ns, vm->samples, sizeof(*vm->samples_ns), by_value);
    for (size_t i = 0; i < vm->samples; i++)
        total += vm->samples_ns[i];
    fprintf(file,
            "{\"ioreqs\":%zu,\"total_ns\":%llu,\"p50_ns\":%u,\"p90_ns\":%u,\"p99_ns\":%u,\"max_ns\":%u,"
            "\"pio\":%llu,\"mmio\":%llu,\"pcicfg\":%llu,\"wp\":%llu,\"cf8\":%llu,\"kernel_handled\":%llu,"
            "\"attach\":%llu,\"spurious\":%llu,\"notify\":%llu,\"msi\":%llu,\"irqline\":%llu,\"exits\":%llu}\n",
            vm->samples, (unsigned long long)total, percentile(vm, 500), percentile(vm, 900), percentile(vm, 990),
            percentile(vm, 1000), (unsigned long long)c->pio, (unsigned long long)c->mmio,
            (unsigned long long)c->pcicfg, (unsigned long long)c->wp, (unsigned long long)c->cf8,
            (unsigned long long)c->kernel_handled, (unsigned long long)c->attach, (unsigned long long)c->spurious,
            (unsigned long long)c->notify, (unsigned long long)c->msi, (unsigned long long)c->irqline,
            (unsigned long long)c->exits);
    fclose(file);
}
