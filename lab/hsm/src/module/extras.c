/* What comes with some hosts only: processor states, and the rings of ACRN's own kernel. */
#include "rig.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RING_MAGIC 0x5aa57aa71aa13aa3ull
#define KICK_SIZE 8   /* the kernel's pointer to an eventfd */
#define EVENT_SIZE 32 /* type, data */

/* The hypervisor writes one byte of a count and leaves the module's other seven as they were. */
static long count_of_states(unsigned long to, uint8_t states) {
    uint64_t count = 0xa5a5a5a5a5a5a500ull | states;

    return copy_out(to, &count, sizeof(count)) ? 0 : set_failed(EFAULT);
}

static long performance_state(unsigned long to, uint32_t number) {
    struct acrn_pstate_data px = {2400, 15000, 10, 10, 0x1800, 0x1800};

    if (number >= 2)
        return set_failed(EPERM);
    px.core_frequency -= number * 800;
    px.control = px.status = number ? 0x1000 : 0x1800;
    return copy_out(to, &px, sizeof(px)) ? 0 : set_failed(EFAULT);
}

/* Numbers begin at 1. */
static long idle_state(unsigned long to, uint32_t number) {
    struct acrn_cstate_data cx = {.type = (uint8_t)number, .latency = number * number, .power = 1000};

    if (number < 1 || number > 2)
        return set_failed(EPERM);
    cx.cx_reg.space_id = 0x7f; /* functional fixed hardware */
    return copy_out(to, &cx, sizeof(cx)) ? 0 : set_failed(EFAULT);
}

long get_cpu_state(struct vm *vm, unsigned long argument) {
    bool known = number_setting("RIG_PM", 0) != 0;
    long result = set_failed(EPERM);
    uint32_t number, type;
    uint64_t command;

    if (!copy_in(&command, argument, sizeof(command)))
        return wrong(EFAULT, "PM_GET_CPU_STATE: bad address");
    type = command & PMCMD_TYPE_MASK;
    number = command >> 8 & 0xff;
    if (vm->state == VM_RUNNING)
        result = refused(vm, "PM_GET_CPU_STATE");
    else if (type == ACRN_PMCMD_GET_CX_CNT)
        result = count_of_states(argument, known ? 2 : 0);
    else if (type == ACRN_PMCMD_GET_PX_CNT && known)
        result = count_of_states(argument, 2);
    else if (type == ACRN_PMCMD_GET_PX_DATA && known)
        result = performance_state(argument, number);
    else if (type == ACRN_PMCMD_GET_CX_DATA && known)
        result = idle_state(argument, number);
    trace("PM_GET_CPU_STATE", result, "\"command\":%llu", (unsigned long long)command);
    return result;
}

/* Linux's module has no rings: the client is to go on without. */
static struct shared_ring *take_ring(const char *call, uint64_t address, uint32_t element) {
    const struct shared_ring *ring = (const struct shared_ring *)address;

    if (!number_setting("RIG_ACRN", 0)) {
        set_failed(ENOTTY);
        return NULL;
    }
    if (address % PAGE || !page_is_writable(address)) {
        violation("%s: not a page", call);
        set_failed(EINVAL);
        return NULL;
    }
    if (ring->magic != RING_MAGIC || ring->element != element || ring->count != (PAGE - sizeof(*ring)) / element ||
        ring->head != ring->tail || ring->size != ring->count * element) {
        violation("%s: the page is not an empty ring of elements of %u bytes", call, element);
        set_failed(EPERM);
        return NULL;
    }
    return pin_page(address);
}

long setup_asyncio(struct vm *vm, uint64_t address) {
    vm->kick_ring = take_ring("SETUP_ASYNCIO", address, KICK_SIZE);
    return vm->kick_ring != NULL ? 0 : -1;
}

long setup_event_ring(struct vm *vm, uint64_t address) {
    vm->event_ring = take_ring("SETUP_VM_EVENT_RING", address, EVENT_SIZE);
    return vm->event_ring != NULL ? 0 : -1;
}

long setup_event_fd(struct vm *vm, int fd) {
    if (!number_setting("RIG_ACRN", 0))
        return set_failed(ENOTTY);
    vm->event_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return vm->event_fd < 0 ? -1 : 0;
}

/* A full ring loses the event. */
void send_event(struct vm *vm, uint32_t type) {
    struct shared_ring *ring = vm->event_ring;
    uint64_t one = 1;
    uint32_t next;

    if (ring == NULL)
        return;
    next = (ring->tail + ring->element) % ring->size;
    if (next == __atomic_load_n(&ring->head, __ATOMIC_ACQUIRE))
        return;
    memset(ring->data + ring->tail, 0, ring->element);
    memcpy(ring->data + ring->tail, &type, sizeof(type));
    __atomic_store_n(&ring->tail, next, __ATOMIC_RELEASE);
    if (vm->event_fd >= 0 && write(vm->event_fd, &one, sizeof(one)) < 0)
        violation("signalling the event descriptor: errno %d", errno);
}

void extras_release(struct vm *vm) {
    vm->kick_ring = vm->event_ring = NULL; /* the mappings stay: a vCPU's last event may still be under way */
    if (vm->event_fd >= 0)
        close(vm->event_fd);
    vm->event_fd = -1;
}
