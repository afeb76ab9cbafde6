/* A driver of one virtio-blk queue that polls, behind a vhost-user front-end of its own: what measures a disk's daemon.
 *
 * blk_driver SOCKET DEPTH BYTES read|write SECONDS IMAGE_BYTES CPU [sleep]
 *
 * Keeps DEPTH requests of BYTES at random offsets in flight for SECONDS and prints requests a second, how many failed,
 * and how many kicks the device wanted. Interrupts are off, or, as guests do it, what is slept for when nothing is
 * done; the split ring has an event index where the device does.
 *
 * SOCKET "ring:MEMORY,KICK,EVENT_IDX" is a device that somebody has set up already: two descriptors, of the memory and of
 * an eventfd, and whether there is an event index. Then rings lie where they lie here, and are empty.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { QUEUE = 256, MAX_DEPTH = QUEUE / 3, NEXT = 1, WRITE = 2, MEMORY = 64 << 20, NO_INTERRUPT = 1, NO_NOTIFY = 1 };
enum { DESC = 0, AVAIL = 0x2000, USED = 0x4000, HEADERS = 0x10000, DATA = 0x100000, PATIENCE_S = 20 };
#define USER 0x10000000ull
#define FLUSH (1ull << 9) /* without it every write has to be on the medium before it is answered (5.2.6.2) */
#define EVENT_IDX (1ull << 29)
#define PROTOCOL (1ull << 30)
#define VERSION_1 (1ull << 32)
enum { GET_FEATURES = 1, SET_FEATURES, SET_OWNER, SET_MEM_TABLE = 5, SET_VRING_NUM = 8, SET_VRING_ADDR, SET_VRING_BASE };
enum { SET_VRING_KICK = 12, SET_VRING_CALL, GET_PROTOCOL = 15, SET_PROTOCOL, SET_VRING_ENABLE = 18 };

struct desc { uint64_t addr; uint32_t len; uint16_t flags, next; };
struct request { uint32_t type, reserved; uint64_t sector; uint8_t status, padding[47]; };

static uint8_t *ram;
static int peer, kick_fd, call_fd = -1;
static int event_idx, sleeps;
static unsigned long done, failed, kicks;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void say(uint32_t code, const void *payload, uint32_t size, int fd)
{
    uint32_t head[3] = {code, 1, size};
    struct iovec parts[2] = {{head, sizeof(head)}, {(void *)payload, size}};
    union { char room[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control = {{0}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = size ? 2 : 1};
    if (fd >= 0) {
        message.msg_control = control.room;
        message.msg_controllen = sizeof(control.room);
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof(int));
    }
    if (sendmsg(peer, &message, 0) < 0)
        fail("sendmsg");
}

static void say_u64(uint32_t code, uint64_t value, int fd)
{
    say(code, &value, sizeof(value), fd);
}

static void say_ring(uint32_t code, uint32_t value)
{
    uint32_t state[2] = {0, value};
    say(code, state, sizeof(state), -1);
}

static uint64_t ask(uint32_t code)
{
    uint32_t head[3];
    uint64_t value;
    say(code, NULL, 0, -1);
    if (recv(peer, head, sizeof(head), MSG_WAITALL) != sizeof(head) || recv(peer, &value, 8, MSG_WAITALL) != 8)
        fail("no answer");
    return value;
}

static void connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    double until = now() + PATIENCE_S;
    strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
    peer = socket(AF_UNIX, SOCK_STREAM, 0);
    while (connect(peer, (struct sockaddr *)&address, sizeof(address)) != 0) { /* the daemon may be starting */
        if (now() > until)
            fail(path);
        usleep(10000);
    }
}

static void map(int fd)
{
    if ((ram = mmap(0, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) == MAP_FAILED)
        fail("memory");
    memset(ram + DATA, 1, MEMORY - DATA);
}

static int is_set_up(const char *how)
{
    int fd;
    if (sscanf(how, "ring:%d,%d,%d", &fd, &kick_fd, &event_idx) != 3)
        return 0;
    map(fd);
    return 1;
}

static void set_up(void)
{
    int fd = memfd_create("ram", 0);
    kick_fd = eventfd(0, EFD_NONBLOCK), call_fd = eventfd(0, EFD_NONBLOCK);
    if (ftruncate(fd, MEMORY) != 0)
        fail("memory");
    map(fd);
    uint64_t features = ask(GET_FEATURES);
    event_idx = (features & EVENT_IDX) != 0;
    if (features & PROTOCOL)
        ask(GET_PROTOCOL), say_u64(SET_PROTOCOL, 0, -1);
    say(SET_OWNER, NULL, 0, -1);
    say_u64(SET_FEATURES, VERSION_1 | (features & (FLUSH | EVENT_IDX | PROTOCOL)), -1);
    struct { uint32_t n, padding; uint64_t gpa, size, user, offset; } table = {1, 0, 0, MEMORY, USER, 0};
    say(SET_MEM_TABLE, &table, sizeof(table), fd);
    say_ring(SET_VRING_NUM, QUEUE);
    say_ring(SET_VRING_BASE, 0);
    struct { uint32_t index, flags; uint64_t desc, used, avail, log; } at = {
        0, 0, USER + DESC, USER + USED, USER + AVAIL, 0};
    say(SET_VRING_ADDR, &at, sizeof(at), -1);
    say_u64(SET_VRING_CALL, 0, call_fd);
    say_u64(SET_VRING_KICK, 0, kick_fd);
    if (features & PROTOCOL)
        say_ring(SET_VRING_ENABLE, 1);
    ask(GET_FEATURES); /* what was said before is done */
}

static struct request *request(int i)
{
    return (struct request *)(ram + HEADERS) + i;
}

static void prepare(int depth, uint32_t bytes, int write)
{
    struct desc *table = (struct desc *)(ram + DESC);
    for (int i = 0; i < depth; i++) {
        uint64_t at = HEADERS + i * sizeof(struct request);
        table[3 * i] = (struct desc){at, 16, NEXT, 3 * i + 1};
        table[3 * i + 1] = (struct desc){DATA + (uint64_t)i * bytes, bytes, NEXT | (write ? 0 : WRITE), 3 * i + 2};
        table[3 * i + 2] = (struct desc){at + 16, 1, WRITE, 0};
        request(i)->type = write;
    }
    *(uint16_t *)(ram + AVAIL) = sleeps ? 0 : NO_INTERRUPT;
}

/* Random sectors of *blocks* places of *bytes*. */
static uint64_t somewhere(uint64_t blocks, uint32_t bytes)
{
    static uint64_t state = 88172645463325252ull;
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state % blocks * bytes / 512;
}

static void kick_if_wanted(uint16_t from, uint16_t to)
{
    volatile uint16_t *avail_event = (void *)(ram + USED + 4 + 8 * QUEUE), *flags = (void *)(ram + USED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (event_idx ? (uint16_t)(to - *avail_event - 1) >= (uint16_t)(to - from) : (*flags & NO_NOTIFY) != 0)
        return;
    uint64_t one = 1;
    if (write(kick_fd, &one, sizeof(one)) < 0)
        fail("kick");
    kicks++;
}

static void wait_past(uint16_t seen)
{
    uint16_t *idx = (uint16_t *)(ram + USED + 2);
    double until = 0;
    for (unsigned long spins = 1; __atomic_load_n(idx, __ATOMIC_ACQUIRE) == seen; spins++) {
        __builtin_ia32_pause();
        if (spins % (1 << 20))
            continue;
        if (until == 0)
            until = now() + PATIENCE_S;
        else if (now() > until)
            fprintf(stderr, "stuck after %lu requests\n", done), exit(1);
    }
}

static void sleep_past(uint16_t seen)
{
    uint16_t *idx = (uint16_t *)(ram + USED + 2);
    struct pollfd called = {.fd = call_fd, .events = POLLIN};
    uint64_t n;
    while (__atomic_load_n(idx, __ATOMIC_ACQUIRE) == seen)
        if (poll(&called, 1, PATIENCE_S * 1000) != 1 || read(call_fd, &n, sizeof(n)) < 0)
            fprintf(stderr, "stuck after %lu requests\n", done), exit(1);
}

static double drive(int depth, uint32_t bytes, double seconds, uint64_t blocks)
{
    uint16_t *avail = (uint16_t *)(ram + AVAIL), *used_event = avail + 2 + QUEUE, *used = (uint16_t *)(ram + USED + 2);
    uint32_t *elements = (uint32_t *)(ram + USED + 4);
    uint16_t next = 0, seen = 0;
    int idle[MAX_DEPTH], n_idle = depth;
    double began = now(), at = began;
    for (int i = 0; i < depth; i++)
        idle[i] = i;
    for (unsigned long turn = 0; at < began + seconds; turn++) {
        uint16_t from = next;
        while (n_idle > 0) {
            int i = idle[--n_idle];
            request(i)->sector = somewhere(blocks, bytes);
            request(i)->status = 0xff;
            avail[2 + next++ % QUEUE] = 3 * i;
        }
        *used_event = sleeps ? seen : seen - 1;
        __atomic_store_n(avail + 1, next, __ATOMIC_RELEASE);
        kick_if_wanted(from, next);
        sleeps ? sleep_past(seen) : wait_past(seen);
        for (uint16_t end = __atomic_load_n(used, __ATOMIC_ACQUIRE); seen != end; seen++, done++) {
            int i = elements[2 * (seen % QUEUE)] / 3;
            failed += request(i)->status != 0;
            idle[n_idle++] = i;
        }
        if (turn % 16 == 0)
            at = now();
    }
    return done / (at - began);
}

int main(int argc, char **argv)
{
    sleeps = argc == 9 && strcmp(argv[8], "sleep") == 0;
    if (argc != 8 + sleeps)
        return fprintf(stderr, "usage: blk_driver SOCKET DEPTH BYTES read|write SECONDS IMAGE_BYTES CPU [sleep]\n"), 64;
    int depth = atoi(argv[2]), to_disk = strcmp(argv[4], "write") == 0;
    uint32_t bytes = atoi(argv[3]);
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(atoi(argv[7]), &cpus);
    if (depth < 1 || depth > MAX_DEPTH || bytes % 512 || bytes == 0 || (uint64_t)depth * bytes > MEMORY - DATA)
        return fprintf(stderr, "no such load\n"), 64;
    if (sched_setaffinity(0, sizeof(cpus), &cpus) != 0)
        fail("affinity");
    if (!is_set_up(argv[1]))
        connect_to(argv[1]), set_up();
    if (sleeps && call_fd < 0)
        return fprintf(stderr, "who has set up the device has the interrupts\n"), 64;
    prepare(depth, bytes, to_disk);
    double rate = drive(depth, bytes, atof(argv[5]), strtoull(argv[6], NULL, 0) / bytes);
    printf("%.0f %lu %lu\n", rate, failed, kicks);
    return 0;
}
